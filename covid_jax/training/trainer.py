"""The training loop, from a config to a run folder. The one place that jits a step."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key
from rich.console import Console
from rich.markup import escape

from covid_jax.data import SliceDataset
from covid_jax.data.batches import Batch, batches, sent_ahead
from covid_jax.errors import RunError
from covid_jax.files import writing_to
from covid_jax.metrics.confusion import Counts, dice
from covid_jax.models import SCSEUNet
from covid_jax.parallel import Devices, is_primary_process, together
from covid_jax.reporting.curves import draw_curves
from covid_jax.reporting.validation_panel import draw_panel
from covid_jax.runs.checkpoints import Checkpoints
from covid_jax.runs.config import TrainConfig
from covid_jax.runs.lock import locked
from covid_jax.training import optimizer
from covid_jax.training.epoch_losses import EpochLosses
from covid_jax.training.loggers import MAKE_ROOM, Logs, NoLogs, peak_memory
from covid_jax.training.run_setup import set_up_run
from covid_jax.training.shutdown import ShutdownRequest, stop_on_signals
from covid_jax.training.train_state import TrainState, end_epoch, init_state
from covid_jax.training.train_step import (
    Evaluated,
    Inputs,
    eval_step,
    make_apply,
    make_loss,
    train_step,
)
from covid_jax.transforms.labels import class_names

_PANEL = 4  # validation slices shown in TensorBoard


def train(
    config: TrainConfig,
    dataset: SliceDataset,
    out: Path,
    console: Console,
    command: Sequence[str] = (),
) -> None:
    """Trains until the last epoch or the early stop; leaves a run folder.

    Nothing is written before the config, the data, the split and the folder were found good. All
    devices of all processes share each batch; the first process writes.

    Args:
      config: all settings; ``config.resume`` goes on with the run in ``out``.
      dataset: opened with the config's data settings.
      out: the run folder.
      console: for the progress.
      command: the command line, kept in config.json.

    Raises:
      ConfigError, DataError, RunError: if the data cannot be split so, the folder holds another
        run or cannot be written, or the loss is no longer a number.
      StoppedError: after SIGTERM or SIGINT.
    """
    with contextlib.ExitStack() as stack:
        with together(f"{out}: opening the run folder"):
            if is_primary_process():
                stack.enter_context(locked(out))
        _train(config, dataset, out, console, command)


def _train(
    config: TrainConfig, dataset: SliceDataset, out: Path, console: Console, command: Sequence[str]
) -> None:
    split, normalization = set_up_run(config, dataset, out, console, command)
    train_slices = np.asarray(split.indices(dataset, "train"))
    val_slices = np.asarray(split.indices(dataset, "val"))
    steps = -(-len(train_slices) // config.batch_size)
    devices = Devices.all()
    inputs = Inputs(normalization, max(1, len(dataset.targets)))
    compiled = _compile(config, inputs, devices, steps)
    init_key, augment_key = jax.random.split(jax.random.key(config.seed))
    job = _Job(config, dataset, out, devices, compiled, train_slices, val_slices, augment_key)
    with Checkpoints(out / "checkpoints") as checkpoints, stop_on_signals() as stop:
        state = compiled.init(init_key)
        if checkpoints.epoch("latest") is not None:
            state = _restore(checkpoints, state, devices, console)
        done = int(state.epoch)
        with _logs(config, out, console, steps, done) as logs:
            for epoch in range(done + 1, config.epochs + 1):
                if int(state.stale) >= config.optimizer.stop_patience:
                    console.print(f"no improvement for {int(state.stale)} epochs: stopped early")
                    break
                logs.start_epoch(epoch, config.epochs)
                state, trained = _train_epoch(job, state, epoch, logs, stop)
                validated, panel = _validate_epoch(job, state, epoch)
                row = {"epoch": epoch, **trained, **validated}
                row["learning_rate"] = compiled.learning_rate(state)
                row["peak_memory_gib"] = round(peak_memory(), 3)
                state = end_epoch(state, compiled.plateau, row["val_loss"])
                if best := int(state.stale) == 0:
                    logs.show_panel(epoch, draw_panel(dataset, val_slices[: len(panel)], panel))
                # The line before the checkpoint: a kill between them leaves a line too many, which
                # resuming drops, and never one too few.
                logs.end_epoch(row, best=best)
                checkpoints.save(epoch, state.weights(), state.trainer(), row["val_loss"])
    if is_primary_process() and logs.rows:
        with writing_to(out, MAKE_ROOM):
            draw_curves(logs.rows, out / "curves.png", str(dataset.layout))


class _Job(NamedTuple):
    """What stays the same from epoch to epoch; train and val are positions in the dataset."""

    config: TrainConfig
    dataset: SliceDataset
    out: Path
    devices: Devices
    compiled: "_Compiled"
    train: Int[np.ndarray, " n"]
    val: Int[np.ndarray, " m"]
    augment_key: Key[Array, ""]

    def batches(self, order: Int[np.ndarray, " n"]) -> Iterable[Batch]:
        """These slices in batches, sent ahead to the devices."""
        rows = self.devices.round_up(self.config.batch_size)
        share = self.devices.process_rows(rows)
        cut = batches(self.dataset, order, self.config.batch_size, rows, share)
        return sent_ahead(cut, self.devices.place)


def _train_epoch(
    job: _Job, state: TrainState, epoch: int, logs: Logs, stop: ShutdownRequest
) -> tuple[TrainState, dict[str, Any]]:
    """The training slices once, in the epoch's own order; what the log says of it."""
    started = time.perf_counter()
    order = np.random.default_rng([job.config.seed, epoch]).permutation(job.train)
    key = jax.random.fold_in(job.augment_key, epoch)
    state, totals = _run_epoch(job.compiled.step, state, job.batches(order), key, logs, stop)
    seconds = time.perf_counter() - started
    losses = EpochLosses(totals, order, job.config.batch_size)
    if int(state.optimizer.in_a_row) >= optimizer.BAD_STEPS or losses.none_taken:
        names = ", ".join(job.dataset.slices[i].id for i in losses.first_of_last_skipped)
        raise RunError(
            f"{job.out}: loss or gradients are no numbers in epoch {epoch}, first on {names}, and "
            "in every step after; the epochs before are kept. Look at these slices, or start again "
            "with a lower --learning-rate"
        )
    return state, {
        "train_loss": losses.mean,
        "skipped_steps": losses.skipped,
        "seconds": round(seconds, 3),
        "slices_per_second": round(len(order) / seconds, 3),
    }


def _validate_epoch(
    job: _Job, state: TrainState, epoch: int
) -> tuple[dict[str, float], np.ndarray]:
    """The validation slices judged; what is predicted on the first few."""
    validated, panel = _validate(job.compiled, state, job.dataset, job.batches(job.val))
    if not math.isfinite(validated["val_loss"]):
        raise RunError(
            f"{job.out}: the validation loss is no number in epoch {epoch}; the epochs before it "
            "are kept. Start again with a lower --learning-rate"
        )
    return validated, panel


class _Compiled(NamedTuple):
    """The jitted functions of a run (they compile when first called), and its two rules."""

    init: Callable[[Key[Array, ""]], TrainState]
    step: Callable[..., tuple[TrainState, Float[Array, ""]]]
    evaluate: Callable[..., Evaluated]
    plateau: Any
    learning_rate: Callable[[TrainState], float]


def _compile(config: TrainConfig, inputs: Inputs, devices: Devices, steps: int) -> _Compiled:
    model = SCSEUNet(num_classes=inputs.classes, **config.model.arguments())
    settings = config.optimizer
    counts = config.epochs * steps, settings.warmup_epochs * steps
    chain, plateau = optimizer.optimizer(settings, *counts), optimizer.plateau(settings)
    rate = optimizer.schedule(settings, *counts)
    shared = {"apply": make_apply(model), "loss": make_loss(config.loss), "inputs": inputs}
    init = functools.partial(
        init_state,
        model,
        chain,
        plateau,
        image_size=config.data.image_size,
        averaged=settings.ema is not None,
    )
    step = functools.partial(
        train_step,
        **shared,
        optimizer=chain,
        strengths=config.augmentation,
        decay=settings.ema,
    )
    jit = functools.partial(jax.jit, out_shardings=devices.replicated)
    return _Compiled(
        init=jit(init),
        step=jit(step, donate_argnums=0),
        evaluate=jit(functools.partial(eval_step, **shared)),
        plateau=plateau if settings.schedule == "plateau" else None,
        learning_rate=lambda state: float(rate(int(state.step)) * state.plateau.scale),
    )


def _run_epoch(
    step: Callable[..., tuple[TrainState, Float[Array, ""]]],
    state: TrainState,
    source: Iterable[Batch],
    key: Key[Array, ""],
    logs: Logs,
    stop: ShutdownRequest,
) -> tuple[TrainState, Float[np.ndarray, " n"]]:
    """Every batch once; the state after it and each batch's sum of losses, NaN where skipped."""
    totals = []
    for batch in source:
        stop.check()
        state, total = step(state, batch, key)
        totals.append(total)
        if len(totals) > 2:  # two steps behind: the queue stays short, and the device never waits
            totals[-3].block_until_ready()
        logs.step()
    return state, np.asarray(jax.device_get(totals))


def _validate(
    compiled: _Compiled, state: TrainState, dataset: SliceDataset, source: Iterable[Batch]
) -> tuple[dict[str, float], np.ndarray]:
    """Means over the validation slices of loss and Dice; what is predicted on the first few."""
    found, panel = [], []
    for batch in source:
        judged = compiled.evaluate(state.judged, batch)
        assert judged.predicted is not None
        panel = panel or [judged.predicted[:_PANEL]]
        found.append(judged._replace(predicted=None))  # it can go
    found, (panel,) = jax.device_get((found, panel))
    real = np.concatenate([judged.real for judged in found])
    losses = np.concatenate([judged.loss for judged in found])[real]
    means = {"val_loss": float(losses.mean(dtype=np.float64))}
    for region, name in enumerate(class_names(dataset.targets)):
        parts = zip(*(judged.counts[region] for judged in found), strict=True)
        counts = Counts(*(np.concatenate(part)[real] for part in parts))
        means["val_dice" if region == 0 else f"val_dice_{name}"] = float(dice(counts).mean())
    return means, panel[found[0].real[:_PANEL]]


def _restore(
    checkpoints: Checkpoints, state: TrainState, devices: Devices, console: Console
) -> TrainState:
    """The latest checkpoint that can be read; later ones are damaged and go."""
    wanted = {"weights": state.weights(), "trainer": state.trainer()}
    found = checkpoints.restore("latest", devices.replicated, **wanted)
    for damage in found.damaged:
        console.print(f"[yellow]note:[/yellow] {escape(damage)}; epoch {found.epoch} is taken")
    checkpoints.forget_after(found.epoch)
    return state.replace(**found.items["weights"], **found.items["trainer"])


def _logs(config: TrainConfig, out: Path, console: Console, steps: int, done: int) -> Logs:
    if not is_primary_process():
        return NoLogs()
    return Logs(out, console, config.epochs * steps, done, done * steps, config.profile)
