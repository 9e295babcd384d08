"""The state of a training run as one pytree, which checkpoints contain."""

from collections.abc import Callable
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

_TRAINER = ("opt_state", "plateau_state", "step", "epoch", "best_loss")
_TRAINER += ("epochs_without_improvement",)


@no_type_check  # jax.tree.map makes states of other leaves, such as shapes and shardings
class TrainState(struct.PyTreeNode):
    """The state of a training run; ``create`` makes the initial state.

    Attributes:
      params: of the network.
      ema_params: their exponential moving average; None where none is kept.
      opt_state: of ``tx``.
      plateau_state: of ``plateau``; its ``scale`` multiplies the updates. None without a rule.
      step: number of steps taken, without skipped ones.
      epoch: epochs finished.
      best_loss: lowest validation loss so far.
      epochs_without_improvement: number of epochs since ``best_loss``.
      apply_fn: ``model.apply``: maps ``{"params": params}`` and images to logits.
      tx: any optax transformation.
      plateau: a rule such as ``optax.contrib.reduce_on_plateau``, updated once per epoch.
    """

    params: Any
    ema_params: Any
    opt_state: Any
    plateau_state: Any
    step: Int[Array, ""]
    epoch: Int[Array, ""]
    best_loss: Float[Array, ""]
    epochs_without_improvement: Int[Array, ""]
    apply_fn: Callable[..., Any] = struct.field(pytree_node=False)
    tx: optax.GradientTransformation = struct.field(pytree_node=False)
    plateau: optax.GradientTransformationExtraArgs | None = struct.field(pytree_node=False)

    @classmethod
    def create(
        cls,
        *,
        apply_fn: Callable[..., Any],
        params: Any,
        tx: optax.GradientTransformation,
        plateau: optax.GradientTransformationExtraArgs | None = None,
        ema: bool = False,
    ) -> "TrainState":
        """The state before the first step; ``ema``: whether to keep a moving average."""
        state = cls(
            params=params,
            ema_params=jax.tree.map(jnp.copy, params) if ema else None,
            opt_state=tx.init(params),
            plateau_state=None if plateau is None else plateau.init(params),
            step=jnp.zeros((), jnp.int32),
            epoch=jnp.zeros((), jnp.int32),
            best_loss=jnp.full((), jnp.inf, jnp.float32),
            epochs_without_improvement=jnp.zeros((), jnp.int32),
            apply_fn=apply_fn,
            tx=tx,
            plateau=plateau,
        )
        return _typed_like(jax.tree.map(jnp.asarray, state), state)

    @property
    def eval_params(self) -> Any:
        """The parameters to evaluate: the moving average, where one is kept."""
        return self.params if self.ema_params is None else self.ema_params

    def items(self) -> dict[str, dict[str, Any]]:
        """A checkpoint's items: ``weights`` for inference; ``trainer``, needed also to resume."""
        named = ((name, getattr(self, name)) for name in _TRAINER)
        trainer = {name: tree for name, tree in named if tree is not None}
        average = {} if self.ema_params is None else {"average": self.ema_params}
        return {"weights": {"params": self.params, **average}, "trainer": trainer}

    def restored(self, weights: dict[str, Any], trainer: dict[str, Any]) -> "TrainState":
        """The state with the two items of a checkpoint."""
        return self.replace(params=weights["params"], ema_params=weights.get("average"), **trainer)

    def end_epoch(self, validation_loss: jax.typing.ArrayLike) -> "TrainState":
        """Counts the epoch, updates the plateau rule, and records whether the loss fell.

        Any decrease resets ``epochs_without_improvement`` (Keras' EarlyStopping with min_delta 0);
        NaN is not a decrease.
        """
        loss = jnp.asarray(validation_loss, jnp.float32)
        improved = loss < self.best_loss
        plateau_state = self.plateau_state
        if self.plateau is not None:
            with jax.numpy_dtype_promotion("standard"):  # optax mixes float and int32
                _, plateau_state = self.plateau.update({}, plateau_state, value=loss)
        after = self.replace(
            plateau_state=plateau_state,
            epoch=self.epoch + 1,
            best_loss=jnp.where(improved, loss, self.best_loss),
            epochs_without_improvement=jnp.where(improved, 0, self.epochs_without_improvement + 1),
        )
        return _typed_like(self, after)


def _typed_like(before: TrainState, state: TrainState) -> TrainState:
    """Restores dtypes: for the weakly typed arrays of Python scalars the step would recompile."""
    return jax.tree.map(lambda old, new: jnp.asarray(new, old.dtype), before, state)
