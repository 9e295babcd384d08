"""The pure steps: a state and a batch in, a state and numbers out. The loop jits them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key

from covid_jax.config import LossConfig
from covid_jax.data.augment import augment
from covid_jax.data.batches import Batch
from covid_jax.losses import dice_loss, focal_tversky_loss, tversky_loss
from covid_jax.metrics.overlap import Counts, confusion_counts
from covid_jax.models import SCSEUNet
from covid_jax.training.state import TrainState

Loss = Callable[[Float[Array, "b h w c"], Any], Float[Array, " b"]]
Apply = Callable[[Any, Float[Array, "b h w c"]], Float[Array, "b h w c"]]


def make_apply(model: SCSEUNet) -> Apply:
    """The network as a function of parameters and images."""

    def apply(params: Any, images: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return jnp.asarray(model.apply({"params": params}, images))

    return apply


def make_loss(config: LossConfig) -> Loss:
    """The configured loss: logits and labels to one value a slice."""
    weights = {"alpha": config.alpha, "beta": config.beta}
    losses: dict[str, Loss] = {
        "ftl": functools.partial(focal_tversky_loss, **weights, gamma=config.gamma),
        "tversky": functools.partial(tversky_loss, **weights),
        "dice": dice_loss,
    }
    return losses[config.loss]


def train_step(
    state: TrainState,
    batch: Batch,
    key: Key[Array, ""],
    *,
    apply: Apply,
    loss: Loss,
    adam: optax.GradientTransformation,
    augmented: bool,
) -> tuple[TrainState, Float[Array, ""]]:
    """One Adam step on the mean loss of the batch's real slices.

    Args:
      state: before the step.
      batch: padded slices do not count.
      key: the epoch's; each slice folds its own position into it, so that its augmentation does not
        depend on the batch it falls in.
      apply: parameters and images to logits.
      loss: logits and labels to a loss a slice.
      adam: the optimiser; its updates are multiplied by the plateau's scale.
      augmented: whether slices are changed at random.

    Returns:
      The state after it, and the sum of the real slices' losses.
    """
    images, masks = jnp.asarray(batch.images), jnp.asarray(batch.masks)
    if augmented:
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(batch.position)
        images, masks = augment(keys, images, masks)

    def total_loss(params):
        losses = loss(apply(params, images), masks)
        total = jnp.sum(losses, where=batch.real)
        return total / jnp.sum(batch.real), total

    gradients, total = jax.grad(total_loss, has_aux=True)(state.params)
    updates, adam_state = adam.update(gradients, state.adam, state.params)
    updates = jax.tree.map(lambda update: state.plateau.scale * update, updates)
    params = optax.apply_updates(state.params, updates)
    return state.replace(params=params, adam=adam_state), total


def eval_step(
    params: Any, batch: Batch, *, apply: Apply, loss: Loss
) -> tuple[Float[Array, " b"], Counts]:
    """Each slice's loss and confusion counts at threshold 0.5, at the network's size."""
    logits = apply(params, jnp.asarray(batch.images))
    masks = jnp.asarray(batch.masks)
    return loss(logits, masks), confusion_counts(logits[..., 0] > 0, masks[..., 0] > 0)
