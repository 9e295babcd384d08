"""The pure steps: a state and a batch in, a state and numbers out. The loop jits them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, UInt8

from covid_jax.data.batches import Batch
from covid_jax.losses import dice_loss, focal_tversky_loss, tversky_loss, with_cross_entropy
from covid_jax.metrics.confusion import Counts, confusion_counts
from covid_jax.models import SCSEUNet
from covid_jax.runs.config import LossConfig
from covid_jax.training.optimizer import moving_average
from covid_jax.training.train_state import TrainState
from covid_jax.transforms.augmentation import AugmentConfig, augment
from covid_jax.transforms.labels import class_masks, one_hot, predict_labels
from covid_jax.transforms.preprocessing import Normalization, normalize

Loss = Callable[..., Float[Array, "..."]]  # of logits, labels and where: (B,) or ()
Apply = Callable[[Any, Float[Array, "b h w c"]], Float[Array, "b h w c"]]


class Inputs(NamedTuple):
    """How the network of a run sees a slice.

    Attributes:
      normalization: of the intensities.
      classes: how many kinds of lesion are told apart.
    """

    normalization: Normalization
    classes: int

    def images(self, batch: Batch) -> Float[Array, "b s s 1"]:
        """The batch's images, normalised."""
        return normalize(batch.images, self.normalization)


def make_apply(model: SCSEUNet) -> Apply:
    """The network as a function of parameters and images."""

    def apply(params: Any, images: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return jnp.asarray(model.apply({"params": params}, images))

    return apply


def make_loss(config: LossConfig) -> Loss:
    """The configured loss: logits and labels to one value a slice, or pooled over the batch."""
    weights = {"alpha": config.alpha, "beta": config.beta}
    losses: dict[str, Loss] = {
        "ftl": functools.partial(focal_tversky_loss, **weights, gamma=config.gamma),
        "tversky": functools.partial(tversky_loss, **weights),
        "dice": dice_loss,
    }
    loss = losses[config.loss]
    if config.pool == "batch":
        loss = functools.partial(loss, axis=(0, 1, 2))
    return with_cross_entropy(loss, config.bce_weight) if config.bce_weight else loss


def train_step(
    state: TrainState,
    batch: Batch,
    key: Key[Array, ""],
    *,
    apply: Apply,
    loss: Loss,
    optimizer: optax.GradientTransformationExtraArgs,
    inputs: Inputs,
    strengths: AugmentConfig,
    decay: float | None = None,
) -> tuple[TrainState, Float[Array, ""]]:
    """One step on the mean loss of the batch's real slices.

    Args:
      state: before the step.
      batch: padded slices do not count.
      key: the epoch's; each slice folds its own position into it, so that its augmentation does not
        depend on the batch it falls in.
      apply: parameters and images to logits.
      loss: logits and labels to a loss a slice.
      optimizer: the chain (see ``covid_jax.training.optimizer``).
      inputs: how raw slices become the network's.
      strengths: of the random changes.
      decay: of the parameters' moving average; None keeps none.

    Returns:
      The state after it, and the sum of the real slices' losses: NaN if the step was skipped, which
      changes nothing but the optimiser's count of such steps.
    """
    images, masks = inputs.images(batch), jnp.asarray(batch.masks)[..., None]
    if strengths.on:
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(batch.position)
        images, masks = augment(keys, images, masks, strengths)
    labels = one_hot(masks[..., 0], inputs.classes)

    def total_loss(params):
        real = jnp.asarray(batch.real)
        losses = loss(apply(params, images), labels, where=real[:, None, None, None])
        total = jnp.sum(jnp.broadcast_to(losses, real.shape), where=real)
        return total / jnp.sum(real), total

    gradients, total = jax.grad(total_loss, has_aux=True)(state.params)
    counted: Any
    updates, counted = optimizer.update(
        gradients, state.optimizer, state.params, loss=total, factor=state.plateau.scale
    )
    params = optax.apply_updates(state.params, updates)
    skipped = counted.total > state.optimizer.total
    average = state.average
    if decay is not None:
        moved = moving_average(average, params, state.step, decay)
        average = jax.tree.map(functools.partial(jnp.where, skipped), average, moved)
    step = jnp.where(skipped, state.step, state.step + 1)
    state = state.replace(params=params, average=average, optimizer=counted, step=step)
    return state, jnp.where(skipped, jnp.nan, total)


class Evaluated(NamedTuple):
    """A batch judged at the network's size.

    Attributes:
      loss: of each slice.
      counts: of each region, an entry a slice.
      predicted: class ids: one class decided at probability 0.5, several by the highest.
      real: False for padding.
    """

    loss: Float[Array, " b"]
    counts: list[Counts]
    predicted: UInt8[Array, "b s s"] | None
    real: Bool[Array, " b"]


def eval_step(params: Any, batch: Batch, *, apply: Apply, loss: Loss, inputs: Inputs) -> Evaluated:
    """Judges a batch with these parameters."""
    logits = apply(params, inputs.images(batch))
    ids = jnp.asarray(batch.masks)
    predicted = jnp.asarray(predict_labels(logits, threshold=0.0))
    pairs = zip(
        class_masks(predicted, inputs.classes), class_masks(ids, inputs.classes), strict=True
    )
    counts = [confusion_counts(found, true) for found, true in pairs]
    real = jnp.asarray(batch.real)
    losses = loss(logits, one_hot(ids, inputs.classes), where=real[:, None, None, None])
    return Evaluated(jnp.broadcast_to(losses, real.shape), counts, predicted, real)
