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
      adam: the optimiser's moments and step count.
      plateau: the plateau rule's state; its ``scale`` multiplies the learning rate.
      epoch: epochs finished.
      best_loss: lowest validation loss so far.
      stale: epochs since then.
    """

    params: Any
    adam: optax.OptState
    plateau: Any
    epoch: Int[Array, ""]
    best_loss: Float[Array, ""]
    stale: Int[Array, ""]

    def weights(self) -> dict[str, Any]:
        """What inference needs."""
        return {"params": self.params}

    def trainer(self) -> dict[str, Any]:
        """What resuming needs besides the weights."""
        names = ("adam", "plateau", "epoch", "best_loss", "stale")
        return {name: getattr(self, name) for name in names}


def init_state(
    model: SCSEUNet,
    adam: optax.GradientTransformation,
    plateau: optax.GradientTransformationExtraArgs,
    key: Key[Array, ""],
    image_size: int,
) -> TrainState:
    """The state before the first step; parameters drawn from the key."""
    params = model.init(key, jnp.zeros((1, image_size, image_size, 1)))["params"]
    return _strongly_typed(
        TrainState(
            params=params,
            adam=adam.init(params),
            plateau=plateau.init(params),
            epoch=jnp.zeros((), jnp.int32),
            best_loss=jnp.full((), jnp.inf),
            stale=jnp.zeros((), jnp.int32),
        )
    )


def end_epoch(
    state: TrainState,
    plateau: optax.GradientTransformationExtraArgs,
    validation_loss: jax.typing.ArrayLike,
) -> TrainState:
    """Counts the epoch; halves the learning rate on a plateau; notes whether the loss fell.

    A fall of any size resets ``stale`` (Keras' EarlyStopping with min_delta 0); NaN is no fall.
    """
    loss = jnp.asarray(validation_loss, jnp.float32)
    improved = loss < state.best_loss
    _, plateau_state = plateau.update({}, state.plateau, value=loss)
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
