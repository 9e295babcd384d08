"""The training loop, from a config to a run folder."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Int, Key
from rich.console import Console
from rich.markup import escape

from covid_jax.data import SliceDataset
from covid_jax.data.batches import batches, sent_ahead
from covid_jax.errors import RunError
from covid_jax.files import writing_to
from covid_jax.losses import Loss
from covid_jax.metrics.confusion import Counts, dice
from covid_jax.models import SCSEUNet
from covid_jax.parallel import Devices, is_primary_process, together
from covid_jax.reporting.drawing import draw_panel
from covid_jax.reporting.plots import draw_curves
from covid_jax.runs.checkpoints import Checkpoints
from covid_jax.runs.config import TrainConfig
from covid_jax.runs.lock import locked
from covid_jax.training.compiled_run import CompiledRun, compile_run, make_loss
from covid_jax.training.epochs import balance_groups, draw_epoch, endless_skipping, mean_loss
from covid_jax.training.fine_tune import read_initial_weights
from covid_jax.training.loggers import MAKE_ROOM, Logs, NoLogs, Row, peak_memory
from covid_jax.training.run_setup import set_up_run
from covid_jax.training.shutdown import stop_on_signals
from covid_jax.training.train_state import TrainState
from covid_jax.transforms.labels import class_names

_PANEL = 4  # validation slices shown in TensorBoard


def train(
    config: TrainConfig,
    dataset: SliceDataset,
    out: Path,
    *,
    loss: Loss | None = None,
    model: nn.Module | None = None,
    console: Console | None = None,
    command: Sequence[str] = (),
) -> None:
    """Trains until the last epoch or the early stop, and writes a run folder.

    Nothing is written before the settings, the data, the split and the folder have been checked.
    Each batch is split over all devices of all processes; the first process writes the files.

    Args:
      config: all settings; ``config.resume`` continues the run in ``out``.
      dataset: opened with the config's data settings.
      out: the run folder.
      loss: replaces the loss of the settings: maps logits, one-hot labels and ``where`` to a loss
        per slice (B,) or for the batch (), as in ``covid_jax.losses``. config.json records its
        name.
      model: instead of the config's network: images (B, H, W, 1) to logits (B, H, W, C), with
        parameters as its only variables. config.json notes its name; ``load_run`` needs it again.
      console: for the progress.
      command: the command line, kept in config.json.

    Raises:
      ConfigError, DataError, RunError: if the data cannot be split in this way, the folder contains
        another run or cannot be written, or the loss becomes non-finite.
      StoppedError: after SIGTERM or SIGINT.
    """
    console = console or Console()
    custom = {"loss": loss, "model": model}
    names = {name: _name_of(given) for name, given in custom.items() if given is not None}
    with contextlib.ExitStack() as stack:
        with together(f"{out}: opening the run folder"):
            if is_primary_process():
                stack.enter_context(locked(out))
        classes = max(1, len(dataset.targets))
        model = model or SCSEUNet(num_classes=classes, **config.model.arguments())
        with together(f"{out}: reading the initial weights"):
            initial = read_initial_weights(config, out, model, dataset)
        origin = initial and initial.origin
        split, normalization = set_up_run(config, dataset, out, console, command, names, origin)
        train, val = (np.asarray(split.indices(dataset, part)) for part in ("train", "val"))
        steps = -(-(config.epoch_slices or len(train)) // config.batch_size)
        devices, loss = Devices(), loss or make_loss(config.loss)
        init_key, key = jax.random.split(jax.random.key(config.seed))
        compiled = compile_run(config, model, loss, normalization, classes, devices, steps)
        checkpoints, stop = Checkpoints(out / "checkpoints"), stack.enter_context(stop_on_signals())
        run = _Training(
            config, dataset, out, console, devices, compiled, train, val, key, checkpoints, stop
        )
        state = run.compiled.init(init_key)
        if run.checkpoints.epoch("latest") is not None:
            state = run.restored(state)
        elif initial:  # saved now, so that resuming needs no origin
            state = initial.put_into(state)
            run.checkpoints.save(0, **state.items(), loss=math.inf)
        done, logs = int(state.epoch), NoLogs()
        if done >= config.epochs:
            console.print(f"finished: {done} epochs are done; go on with more --epochs")
        if is_primary_process():
            logs = Logs(out, console, config.epochs, steps, done, config.profile)
        with logs:
            run.run_epochs(state, logs)


@dataclass(frozen=True)
class _Training:
    """A run under way: what stays the same from epoch to epoch.

    Attributes:
      train, val: positions of these slices in the dataset.
      augment_key: from which each epoch's is folded.
    """

    config: TrainConfig
    dataset: SliceDataset
    out: Path
    console: Console
    devices: Devices
    compiled: CompiledRun
    train: Int[np.ndarray, " n"]
    val: Int[np.ndarray, " m"]
    augment_key: Key[Array, ""]
    checkpoints: Checkpoints
    check_stop: Callable[[], None]

    def restored(self, state: TrainState) -> TrainState:
        """Restores the latest readable checkpoint and deletes later ones, which are damaged."""
        found = self.checkpoints.restore("latest", self.devices.replicated, **state.items())
        for damage in found.damaged:
            words = f"{escape(damage)}; epoch {found.epoch} is taken"
            self.console.print(f"[yellow]note:[/yellow] {words}")
        self.checkpoints.forget_after(found.epoch)
        return state.restored(**found.items)

    def run_epochs(self, state: TrainState, logs: Logs) -> None:
        """Trains until the last epoch or the early stop, and draws the curves."""
        try:
            for epoch in range(int(state.epoch) + 1, self.config.epochs + 1):
                without = int(state.epochs_without_improvement)
                if without >= self.config.optimizer.stop_patience:
                    self.console.print(f"no improvement for {without} epochs: stopped early")
                    break
                state = self._run_epoch(state, epoch, logs)
        finally:
            if is_primary_process() and logs.rows:
                with writing_to(self.out, MAKE_ROOM):
                    draw_curves(logs.rows, self.out / "curves.png", self.dataset.layout)

    def _run_epoch(self, state: TrainState, epoch: int, logs: Logs) -> TrainState:
        """Trains, validates, logs and saves once; the state after it."""
        state, trained = self._train(state, epoch, logs)
        validated, panel = self._validate(state)
        if not math.isfinite(validated["val_loss"]):
            advice = "the epochs before it are kept. Start again with a lower --learning-rate"
            raise RunError(f"{self.out}: non-finite validation loss in epoch {epoch}; {advice}")
        row = {"epoch": epoch, **trained, **validated}
        row["learning_rate"] = self.compiled.learning_rate(state)
        if (peak := peak_memory()) is not None:
            row["peak_memory_gib"] = round(peak, 3)
        state = state.end_epoch(row["val_loss"])
        best = int(state.epochs_without_improvement) == 0
        pictures = draw_panel(self.dataset, self.val[: len(panel)], panel) if best else None
        # The line before the checkpoint: a kill between them leaves a line too many, which resuming
        # drops, and never one too few.
        logs.end_epoch(row, pictures)
        self.checkpoints.save(epoch, **state.items(), loss=row["val_loss"])
        return state

    def _train(self, state: TrainState, epoch: int, logs: Logs) -> tuple[TrainState, Row]:
        """The slices of one epoch; the state after them, and what the log says of it."""
        started = time.perf_counter()
        config, key = self.config, jax.random.fold_in(self.augment_key, epoch)
        size, count = config.batch_size, config.epoch_slices
        groups = balance_groups([self.dataset.slices[i] for i in self.train], config.balance)
        order = draw_epoch(self.train, seed=config.seed, epoch=epoch, count=count, groups=groups)
        source, step = self._batches(order), self.compiled.step
        state, losses, skipped = run_steps(step, state, source, key, logs, self.check_stop)
        seconds = time.perf_counter() - started
        if (start := endless_skipping(skipped)) is not None:
            names = ", ".join(self.dataset.slices[i].id for i in order[start * size :][:size])
            problem = f"non-finite loss or gradients in epoch {epoch}, first on {names}"
            advice = "the epochs before are kept. Look at these slices, or lower --learning-rate"
            raise RunError(f"{self.out}: {problem}, and in the steps after; {advice}")
        return state, {
            "train_loss": mean_loss(losses, skipped, len(order), size),
            "skipped_steps": int(skipped.sum()),
            "seconds": round(seconds, 3),
            "slices_per_second": round(len(order) / seconds, 3),
        }

    def _batches(self, order: Int[np.ndarray, " n"]) -> Iterable[dict[str, Any]]:
        """These slices in batches, sent ahead to the devices."""
        size = self.config.batch_size
        local = batches(self.dataset, order, size, *self.devices.rows(size))
        return sent_ahead(local, self.devices.place)

    def _validate(self, state: TrainState) -> tuple[dict[str, float], np.ndarray]:
        """Means of loss and Dice over the validation slices; and predictions of the first few."""
        results, panel = [], []
        for batch in self._batches(self.val):
            result = self.compiled.evaluate(state, batch)
            predicted = result.pop("predicted")
            panel = panel or [predicted[:_PANEL]]
            results.append(result)
        results, (panel,) = jax.device_get((results, panel))
        real = np.concatenate([result["where"] for result in results])
        losses = np.concatenate([result["loss"] for result in results])[real]
        means = {"val_loss": float(losses.mean(dtype=np.float64))}
        for region, name in enumerate(class_names(self.dataset.targets)):
            parts = zip(*(result["counts"][region] for result in results), strict=True)
            counts = Counts(*(np.concatenate(part)[real] for part in parts))
            means["val_dice" if region == 0 else f"val_dice_{name}"] = float(dice(counts).mean())
        return means, panel[results[0]["where"][:_PANEL]]


def run_steps(
    step: Callable[..., tuple[TrainState, dict[str, Any]]],
    state: TrainState,
    source: Iterable[Any],
    key: Key[Array, ""],
    logs: Logs,
    check_stop: Callable[[], None],
) -> tuple[TrainState, np.ndarray, np.ndarray]:
    """Trains on every batch once: the final state, the steps' losses, and which were skipped."""
    # Some steps behind, the queue stays short and a GPU never waits. A CPU allocates a step's
    # temporaries when it is queued: each more would take as much memory again.
    ahead = 1 if jax.default_backend() == "cpu" else 3
    metrics = []
    for batch in source:
        check_stop()
        state, metric = step(state, batch, key)
        metrics.append((metric["loss"], metric["skipped"]))
        if len(metrics) >= ahead:
            metrics[-ahead][0].block_until_ready()
        logs.step()
    losses, skipped = zip(*jax.device_get(metrics), strict=True)
    return state, np.asarray(losses), np.asarray(skipped)


def _name_of(custom: Any) -> str:
    named = getattr(custom, "func", custom)  # of a functools.partial
    return getattr(named, "__name__", type(named).__name__)
