"""What a run tells while it goes: progress on the terminal, metrics.jsonl, TensorBoard."""

import contextlib
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from tensorboardX import SummaryWriter

from covid_jax.files import replace_text


class Logs(contextlib.AbstractContextManager):
    """The three logs of one run.

    Args:
      folder: the run folder.
      console: where the progress goes.
      steps: of the whole run, for the progress bar.
      done_epochs: epochs already in the run's checkpoint: later lines of metrics.jsonl, left by a
        process that was killed before it could save, are dropped.
      done_steps: where the bar starts.
    """

    def __init__(
        self, folder: Path, console: Console, steps: int, done_epochs: int, done_steps: int
    ) -> None:
        self._metrics = folder / "metrics.jsonl"
        rows = [row for row in read_metrics(self._metrics) if row["epoch"] <= done_epochs]
        replace_text(self._metrics, "".join(json.dumps(row) + "\n" for row in rows))
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=done_epochs + 1)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("left  [dim]{task.fields[last]}"),
            console=console,
        )
        self._task = self._progress.add_task("training", total=steps, completed=done_steps, last="")
        self._progress.start()

    def __exit__(self, *exc_info: object) -> None:
        self._progress.stop()
        self._board.close()

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Names the epoch on the bar."""
        self._progress.update(self._task, description=f"epoch {epoch}/{epochs}")

    def step(self) -> None:
        """Moves the bar one step on."""
        self._progress.advance(self._task)

    def end_epoch(self, row: dict[str, Any], *, best: bool) -> None:
        """Writes one epoch's numbers to all three logs."""
        with self._metrics.open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            if name != "epoch":
                self._board.add_scalar(name, value, row["epoch"])
        self._board.flush()
        scores = f"loss {row['train_loss']:.4f}  val Dice {row['val_dice']:.4f}"
        speed = f"{row['slices_per_second']:.1f} slices/s"
        self._progress.update(self._task, last=f"Dice {row['val_dice']:.3f}  {speed}")
        self._progress.console.print(
            f"epoch {row['epoch']:>3}  {scores}  val loss {row['val_loss']:.4f}  "
            f"lr {row['learning_rate']:.2g}  {speed}"
            + ("  [green]best so far[/green]" if best else "")
        )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The epochs recorded so far; a line cut short by a kill is not one."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows
