"""The logs of a run: progress on the terminal, metrics.jsonl, TensorBoard, a trace."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import jax
from numpy import concatenate
from rich import progress
from rich.console import Console

from covid_jax.errors import ConfigError
from covid_jax.files import parse_json, replace_text, writing_to
from covid_jax.reporting.drawing import Panel
from covid_jax.reporting.plots import DRAWN
from covid_jax.training.event_file import EventFile

MAKE_ROOM = "the epochs that were saved are kept. Make room, then go on with --resume"
Row = dict[str, Any]  # an epoch's numbers
_TRACE_AFTER = 3  # steps of this process: the first ones compile


class Logs(contextlib.AbstractContextManager):
    """The logs of one run.

    Args:
      folder: the run folder.
      console: for the progress.
      epochs: of the whole run.
      steps: of an epoch.
      done: epochs already in the run's checkpoint: later lines of metrics.jsonl, left by a process
        that was killed before it could save, are dropped.
      profile: steps to trace into ``trace/``, which Perfetto opens; 0 for none.

    Attributes:
      rows: the epochs so far.

    Raises:
      RunError: here and in each method, if the folder cannot be written.
    """

    rows: list[Row]

    def __init__(
        self, folder: Path, console: Console, epochs: int, steps: int, done: int, profile: int = 0
    ) -> None:
        self._folder = folder
        self._metrics = folder / "metrics.jsonl"
        with writing_to(folder, MAKE_ROOM):
            self.rows = [row for row in read_metrics(self._metrics) if row["epoch"] <= done]
            replace_text(self._metrics, "".join(_line(row) for row in self.rows))
            self._board = EventFile(folder / "tensorboard", done + 1)
        self._epochs, self._steps, self._done = epochs, steps, done
        self._seen, self._profile, self._trace = 0, profile, contextlib.ExitStack()
        columns = progress.TextColumn("[bold]{task.description}"), progress.BarColumn(bar_width=12)
        columns += progress.MofNCompleteColumn(), progress.TimeRemainingColumn()
        columns += (progress.TextColumn("left  [dim]{task.fields[last]}"),)
        bar = self._progress = progress.Progress(*columns, console=console)
        doing = "compiling" if done < epochs else "finished"
        self._task = bar.add_task(doing, total=epochs * steps, completed=done * steps, last="")
        bar.start()

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()
        with contextlib.suppress(OSError):  # every epoch's numbers were flushed before
            self._board.close()
        with writing_to(self._folder, MAKE_ROOM):
            self._trace.close()

    def step(self) -> None:
        """Advances the bar by one step; before the end of the first step it shows ``compiling``."""
        self._seen += 1
        with writing_to(self._folder, MAKE_ROOM):
            if self._profile and self._seen == _TRACE_AFTER:
                trace = jax.profiler.trace(self._folder / "trace", create_perfetto_trace=True)
                self._trace.enter_context(trace)
            elif self._seen == _TRACE_AFTER + self._profile:
                self._trace.close()
        epoch = self._done + -(-self._seen // self._steps)
        self._progress.update(self._task, advance=1, description=f"epoch {epoch}/{self._epochs}")

    def end_epoch(self, row: Row, panel: Panel | None = None) -> None:
        """Writes an epoch's numbers to all logs and, if it is the best yet, a panel of slices."""
        self.rows.append(row)
        with writing_to(self._folder, MAKE_ROOM):
            with self._metrics.open("a") as file:
                file.write(_line(row))
            for name, value in row.items():
                if name != "epoch":
                    self._board.scalar(row["epoch"], name, value)
            if panel is not None:
                self._board.image(row["epoch"], "validation slices", concatenate(panel, axis=1))
            self._board.flush()
        scores = f"loss {row['train_loss']:.4f}  val Dice {row['val_dice']:.4f}"
        speed = f"{row['slices_per_second']:.1f} slices/s"
        self._progress.update(self._task, last=f"Dice {row['val_dice']:.3f}  {speed}")
        skipped = row["skipped_steps"]
        self._progress.console.print(
            f"epoch {row['epoch']:>3}  {scores}  val loss {row['val_loss']:.4f}  "
            f"lr {row['learning_rate']:.2g}  {speed}"
            + (f"  [yellow]{skipped} steps skipped[/yellow]" if skipped else "")
            + ("" if panel is None else "  [green]best so far[/green]")
        )


class NoLogs(Logs):
    """Logger of non-primary processes; does nothing."""

    def __init__(self) -> None:
        self.rows = []

    def __exit__(self, *exc_info: object) -> None: ...
    def step(self) -> None: ...
    def end_epoch(self, row: Row, panel: Panel | None = None) -> None: ...


def peak_memory() -> float | None:
    """Peak memory of the device, or on a CPU of the process, in GiB; None if unknown."""
    if stats := jax.local_devices()[0].memory_stats():
        return stats["peak_bytes_in_use"] / 2**30
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def read_metrics(path: Path) -> list[Row]:
    """The epochs recorded so far, without incomplete or damaged lines."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ConfigError):
            row = parse_json(line, dict[str, int | float | str | None])
            drawn = [isinstance(row.get(name), int | float) for name in DRAWN]
            if isinstance(row.get("epoch"), int) and all(drawn):
                rows.append(row)
    return rows


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
