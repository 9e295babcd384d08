"""All that a run has learned and counted so far, as one pytree: what a checkpoint must hold."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int, Key

from covid_jax.models import SCSEUNet


class TrainState(struct.PyTreeNode):
    """The state of a training run.

    Attributes:
      params: of the network, float32.
      average: their exponential moving average; None where none is kept.
      optimizer: the chain's moments and counters.
      plateau: the plateau rule's state; its ``scale`` multiplies the learning rate.
      step: steps taken.
      epoch: epochs finished.
      best_loss: lowest validation loss so far.
      stale: epochs since then.
    """

    params: Any
    average: Any
    optimizer: Any
    plateau: Any
    step: Int[Array, ""]
    epoch: Int[Array, ""]
    best_loss: Float[Array, ""]
    stale: Int[Array, ""]

    @property
    def judged(self) -> Any:
        """The parameters that are validated: the average, where one is kept."""
        return self.params if self.average is None else self.average

    def weights(self) -> dict[str, Any]:
        """What inference needs."""
        return weights(self.params, self.average)

    def trainer(self) -> dict[str, Any]:
        """What resuming needs besides the weights."""
        names = ("optimizer", "plateau", "step", "epoch", "best_loss", "stale")
        return {name: getattr(self, name) for name in names}


def init_state(
    model: SCSEUNet,
    optimizer: optax.GradientTransformation,
    plateau: optax.GradientTransformationExtraArgs,
    key: Key[Array, ""],
    image_size: int,
    averaged: bool,
) -> TrainState:
    """The state before the first step; parameters drawn from the key."""
    params = model.init(key, jnp.zeros((1, image_size, image_size, 1)))["params"]
    return _strongly_typed(
        TrainState(
            params=params,
            average=jax.tree.map(jnp.copy, params) if averaged else None,
            optimizer=optimizer.init(params),
            plateau=plateau.init(params),
            step=jnp.zeros((), jnp.int32),
            epoch=jnp.zeros((), jnp.int32),
            best_loss=jnp.full((), jnp.inf),
            stale=jnp.zeros((), jnp.int32),
        )
    )


def weights(params: Any, average: Any) -> dict[str, Any]:
    """The checkpoint item of the weights: an average stands in it only where one is kept."""
    return {"params": params} if average is None else {"params": params, "average": average}


def end_epoch(
    state: TrainState,
    plateau: optax.GradientTransformationExtraArgs | None,
    validation_loss: jax.typing.ArrayLike,
) -> TrainState:
    """Counts the epoch; halves the learning rate on a plateau; notes whether the loss fell.

    Without a plateau rule (a cosine needs none) the learning rate stays with its schedule. A fall
    of any size resets ``stale`` (Keras' EarlyStopping with min_delta 0); NaN is no fall.
    """
    loss = jnp.asarray(validation_loss, jnp.float32)
    improved = loss < state.best_loss
    plateau_state = state.plateau
    if plateau is not None:
        _, plateau_state = plateau.update({}, plateau_state, value=loss)
    return _strongly_typed(
        state.replace(
            plateau=plateau_state,
            epoch=state.epoch + 1,
            best_loss=jnp.where(improved, loss, state.best_loss),
            stale=jnp.where(improved, 0, state.stale + 1),
        )
    )


def _strongly_typed(state: TrainState) -> TrainState:
    """Python scalars leave weakly typed arrays behind, on which the step would compile again."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), state)
