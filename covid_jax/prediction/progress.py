"""What one call shows on the terminal: a bar with the time left, warnings, results."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

_LOUD = 3  # warnings printed in full; the others are counted
_ROWS = 20  # of the table; all are in summary.csv


class Bar:
    """Shows slices and scans as they are done.

    Attributes:
      warned: scans that a warning was given for.
    """

    def __init__(self, progress: Progress, task: TaskID, scans: int) -> None:
        self._progress, self._task, self._scans = progress, task, scans
        self._done = 0
        self.warned = 0

    def slice_done(self, index: int, of: int) -> None:
        """The slice ``index`` of a scan of ``of`` slices is done."""
        self._progress.update(self._task, completed=self._done + index / of)

    def scan_done(self) -> None:
        """A scan is written, or left out."""
        self._done += 1
        words = f"{self._done} of {self._scans} scans"
        self._progress.update(self._task, completed=self._done, description=words)

    def warn(self, path: Path, text: str) -> None:
        """Prints a warning above the bar."""
        self.warned += 1
        if self.warned <= _LOUD:
            words = escape(f"{path}: {text}")
            self._progress.console.print(f"[bold yellow]WARNING[/bold yellow] {words}")


@contextlib.contextmanager
def bar(console: Console, scans: int) -> Iterator[Bar]:
    """A bar while the block runs; nothing of it is left on the screen."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    silent = not console.is_terminal  # else it would leave an empty line in a file
    with Progress(*columns, console=console, transient=True, disable=silent) as progress:
        task = progress.add_task(f"0 of {scans} scans", total=scans)
        shown = Bar(progress, task, scans)
        yield shown
    if shown.warned > _LOUD:
        rest = shown.warned - _LOUD
        console.print(f"[bold yellow]WARNING[/bold yellow] and {rest} more scans like these")


def show_scans(scans: Sequence[dict[str, Any]], console: Console) -> None:
    """A table of the main numbers, a row per scan."""
    if not scans:
        return
    table = Table(title="predicted", title_justify="left")
    for heading in (
        "scan",
        "slices",
        "with lesion",
        "lesion",
        "share of lung",
        "probability in it",
    ):
        table.add_column(heading, justify="left" if heading == "scan" else "right")
    for one in scans[:_ROWS]:
        ml, share, sure = (
            one[name] for name in ("lesion_ml", "share_of_lung", "probability_in_lesion")
        )
        table.add_row(
            escape(one["name"]),
            str(one["slices"]),
            str(one["slices_with_lesion"]),
            f"{one['lesion_voxels']:,} px" if ml is None else f"{ml:.1f} ml",
            "" if share is None else f"{100 * share:.1f} %",
            "" if sure is None else f"{sure:.2f}",
        )
    console.print(table)
    if len(scans) > _ROWS:
        console.print(f"and {len(scans) - _ROWS} more, in summary.csv")


def show_failures(failures: Sequence[tuple[Path, str]], console: Console) -> None:
    """A line for each scan that was left out."""
    if failures:
        console.print(f"[bold red]{len(failures)} left out:[/bold red]")
    for path, reason in failures:
        console.print(f"  {escape(f'{path}: {reason}')}")
