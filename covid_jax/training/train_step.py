"""Pure steps: a state and a batch in, a state and metrics out. The caller jits them.

A batch is a dict of arrays:

* ``image`` (B, H, W, C): input of the network.
* ``label`` (B, H, W, L): labels for the loss.
* ``where`` (B,), optional: False for examples that do not count, such as padding.
* ``position`` (B,), optional: whole numbers, folded into the key of each example's augmentation, so
  that it does not depend on the composition of the batch; by default the index in the batch.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, Key

from covid_jax.losses import Loss
from covid_jax.training.train_state import TrainState
from covid_jax.transforms.augmentation import AugmentConfig
from covid_jax.transforms.augmentation import augment as augment_slices

Batch = Mapping[str, Any]
TrainStep = Callable[[TrainState, Batch, Key[Array, ""]], tuple[TrainState, dict[str, Array]]]


def make_train_step(
    *, loss: Loss, augment: AugmentConfig | None = None, ema_decay: float | None = None
) -> TrainStep:
    """Makes a training step on the mean loss of the batch.

    Args:
      loss: of logits and labels, per example (B,) or for the whole batch (); where the batch has
        ``where``, it is passed on as a keyword, shaped (B, 1, 1, 1).
      augment: random changes of images and labels; None changes nothing.
      ema_decay: of the parameters' moving average, for a state created with ``ema=True``.

    Returns:
      A function that maps state, batch and key to the next state and metrics: ``loss``, the mean
      before the step, and ``skipped``. A step whose loss or gradients are not finite is skipped:
      the state stays as it was. Where ``tx`` accumulates (``optax.MultiSteps``), the step count and
      the moving average follow the updates, and a skipped step does not count towards one.

    Example:
      >>> from covid_jax.losses import dice_loss
      >>> apply_fn = lambda variables, images: variables["params"] * images
      >>> state = TrainState.create(apply_fn=apply_fn, params=jnp.ones(()), tx=optax.sgd(0.1))
      >>> step = jax.jit(make_train_step(loss=dice_loss))
      >>> batch = {"image": jnp.ones((2, 4, 4, 1)), "label": jnp.ones((2, 4, 4, 1))}
      >>> state, metrics = step(state, batch, jax.random.key(0))
      >>> print(metrics["loss"].round(3), metrics["skipped"], state.params > 1)
      0.155 False True
    """

    def train_step(state, batch, key):
        if (ema_decay is None) != (state.ema_params is None):
            raise ValueError("ema_decay goes with a state that was created with ema=True")
        images, labels = batch["image"], batch["label"]
        if augment is not None and augment.on:
            position = batch.get("position", jnp.arange(len(images)))
            keys = jax.vmap(functools.partial(jax.random.fold_in, key))(position)
            images, labels = augment_slices(keys, images, labels, augment)

        def mean_loss(params):
            logits = state.apply_fn({"params": params}, images)
            return _mean(_loss(loss, logits, labels, batch), batch)

        value, gradients = jax.value_and_grad(mean_loss)(state.params)
        finite = _finite(gradients) & jnp.isfinite(value)
        update = optax.with_extra_args_support(state.tx).update
        with jax.numpy_dtype_promotion("standard"):  # optax mixes float and int32
            updates, opt_state = update(gradients, state.opt_state, state.params, value=value)
        if state.plateau_state is not None:
            updates = optax.tree.scale(state.plateau_state.scale, updates)
        updates = jax.tree.map(lambda u: jnp.where(finite, u, jnp.zeros_like(u)), updates)
        params, ema_params = optax.apply_updates(state.params, updates), None
        accumulates = isinstance(opt_state, optax.MultiStepsState)
        updated = jnp.asarray(opt_state.mini_step == 0 if accumulates else True)
        if ema_decay is not None:
            ema_params = moving_average(state.ema_params, params, state.step, ema_decay)
            ema_params = optax.tree.where(updated, ema_params, state.ema_params)
        step = jnp.where(updated, state.step + 1, state.step)
        after = state.replace(ema_params=ema_params, opt_state=opt_state, step=step)
        kept = jax.tree.map(functools.partial(jnp.where, finite), after, state)
        # The parameters moved by zeros: choosing them here would let XLA round otherwise.
        return kept.replace(params=params), {"loss": value, "skipped": ~finite}

    return train_step


def make_eval_step(*, loss: Loss) -> Callable[[TrainState, Batch], dict[str, Array]]:
    """An evaluation of a batch with ``state.eval_params``.

    Args:
      loss: as for ``make_train_step``.

    Returns:
      A function of state and batch to ``logits`` (B, H, W, C) and ``loss``, (B,) or () as the loss
      gives it.
    """

    def eval_step(state, batch):
        logits = state.apply_fn({"params": state.eval_params}, batch["image"])
        return {"logits": logits, "loss": _loss(loss, logits, batch["label"], batch)}

    return eval_step


def moving_average(average: Any, params: Any, step: Int[Array, ""], decay: float) -> Any:
    """Exponential moving average of the parameters, ``step`` steps having been taken before.

    The decay grows as ``(1 + step) / (10 + step)`` up to its full value, so that the average soon
    forgets the initial weights.
    """
    taken = jnp.asarray(step, jnp.float32)
    decayed = jnp.minimum(decay, (1.0 + taken) / (10.0 + taken))
    return optax.incremental_update(params, average, 1.0 - decayed)


def _loss(loss, logits, labels, batch):
    if "where" not in batch:
        return loss(logits, labels)
    where = jnp.asarray(batch["where"]).reshape(-1, *[1] * (logits.ndim - 1))
    return loss(logits, labels, where=where)


def _mean(losses, batch):
    """Mean over the examples that count; a loss for the whole batch is returned unchanged."""
    if losses.ndim == 0:
        return losses
    return jnp.mean(losses, where=jnp.asarray(batch["where"]) if "where" in batch else None)


def _finite(gradients: Any) -> Bool[Array, ""]:
    """Whether all gradients and their squares are finite.

    Squares are tested because one that overflows would make Adam's second moment infinite
    permanently.
    """
    leaves = jax.tree.leaves(gradients)
    squares = jnp.stack([jnp.square(leaf).sum().astype(jnp.float32) for leaf in leaves])
    # Sorted, NaN come last. A sum or a maximum XLA would work out again in every parameter's
    # kernel, which takes long to compile (benchmarks/NOTES.md).
    return jnp.isfinite(jnp.sort(squares)[-1])
