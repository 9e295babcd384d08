"""The jitted functions of a run, from its settings."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Key

from covid_jax.losses import Loss, dice_loss, focal_tversky_loss, tversky_loss, with_cross_entropy
from covid_jax.metrics.confusion import confusion_counts
from covid_jax.models import SCSEUNet
from covid_jax.models.blocks import CONVOLVED
from covid_jax.models.cpu_bfloat16 import jit_bfloat16
from covid_jax.parallel import Devices
from covid_jax.runs.config import LossConfig, TrainConfig
from covid_jax.training.fine_tune import freeze
from covid_jax.training.optimizer import learning_rate_schedule, make_optimizer, reduce_on_plateau
from covid_jax.training.train_state import TrainState
from covid_jax.training.train_step import make_eval_step, make_train_step
from covid_jax.transforms.labels import class_masks, one_hot, predict_labels
from covid_jax.transforms.preprocessing import Normalization, normalize


def make_loss(config: LossConfig) -> Loss:
    """The loss that the settings describe."""
    weights = {"alpha": config.alpha, "beta": config.beta}
    losses: dict[str, Loss] = {
        "ftl": partial(focal_tversky_loss, **weights, gamma=config.gamma),
        "tversky": partial(tversky_loss, **weights),
        "dice": dice_loss,
    }
    loss = losses[config.loss]
    if config.pool == "batch":
        loss = partial(loss, axis=(0, 1, 2))
    return with_cross_entropy(loss, config.bce_weight) if config.bce_weight else loss


class CompiledRun(NamedTuple):
    """The jitted functions of a run; they compile when first called.

    Attributes:
      init: maps a random key to the initial state with random parameters.
      step: maps a state, a batch of ``batches`` and a key to the next state and metrics.
      evaluate: maps a state and a batch to loss, counts, predicted class ids and ``where``.
      learning_rate: maps a state to the learning rate of its last step.
    """

    init: Callable[[Key[Array, ""]], TrainState]
    step: Callable[..., tuple[TrainState, dict[str, Any]]]
    evaluate: Callable[..., dict[str, Any]]
    learning_rate: Callable[[TrainState], float]


def compile_run(
    config: TrainConfig,
    model: nn.Module,
    loss: Loss,
    normalization: Normalization,
    classes: int,
    devices: Devices,
    steps: int = 1,
) -> CompiledRun:
    """The functions of a run with the given number of steps per epoch."""
    settings, size = config.optimizer, config.data.image_size
    total = config.epochs * steps // config.accumulate
    warmup = max(settings.warmup_epochs * steps // config.accumulate, settings.warmup_epochs > 0)
    schedule = learning_rate_schedule(
        settings.learning_rate, settings.schedule, steps=total, warmup_steps=min(warmup, total - 1)
    )
    tx = make_optimizer(schedule, clip_norm=settings.clip_norm)
    plateau = None
    if settings.schedule == "plateau":
        plateau = reduce_on_plateau(settings.plateau_factor, settings.plateau_patience)

    def prepare(batch):
        images = normalize(batch["image"], normalization)
        return {**batch, "image": images, "label": batch["label"][..., None]}

    def ids_loss(logits, ids, where):
        return loss(logits, one_hot(ids[..., 0], classes), where=where)

    train_step = make_train_step(loss=ids_loss, augment=config.augmentation, ema_decay=settings.ema)
    apply_fn = model.apply
    if config.remat:
        policy = jax.checkpoint_policies.save_only_these_names(CONVOLVED)
        apply_fn = jax.checkpoint(apply_fn, policy=policy)
    if config.init.freeze:
        tx, apply_fn, train_step = freeze(config.init.freeze, tx, apply_fn, train_step)
    if config.accumulate > 1:
        tx = optax.MultiSteps(tx, config.accumulate).gradient_transformation()

    # With the package's convolutions alone are gradients right in bfloat16 on a CPU.
    precision = config.model.precision if isinstance(model, SCSEUNet) else jnp.float32
    jit = partial(jit_bfloat16, dtype=precision, out_shardings=devices.replicated)

    @partial(jax.jit, out_shardings=devices.replicated)
    def init(key):
        params = model.init(key, jnp.zeros((1, size, size, 1)))["params"]
        ema = settings.ema is not None
        return TrainState.create(apply_fn=apply_fn, params=params, tx=tx, plateau=plateau, ema=ema)

    def evaluate(state, batch):
        batch = prepare(batch)
        metrics = make_eval_step(loss=ids_loss)(state, batch)
        predicted = jnp.asarray(predict_labels(metrics["logits"], threshold=0.0))
        masks = class_masks(predicted, classes), class_masks(batch["label"][..., 0], classes)
        counts = [confusion_counts(*pair) for pair in zip(*masks, strict=True)]
        loss = jnp.broadcast_to(metrics["loss"], batch["where"].shape)
        return {"loss": loss, "counts": counts, "predicted": predicted, "where": batch["where"]}

    def learning_rate(state):
        """The learning rate of the last step."""
        rate = schedule(max(0, int(state.step) - 1))
        return float(np.asarray(rate if plateau is None else rate * state.plateau_state.scale))

    @partial(jit, donate_argnums=0)
    def step(state, batch, key):
        return train_step(state, prepare(batch), key)

    return CompiledRun(init, step, jit(evaluate), learning_rate)
