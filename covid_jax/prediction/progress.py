"""What one call shows on the terminal: a bar with the time left, warnings, results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

_LOUD = 3  # warnings printed in full; the others are counted
_ROWS = 20  # of the table; all are in summary.csv


class Bar(Progress):
    """Shows slices and scans as they are done; nothing of it is left on the screen.

    Args:
      console: to draw on.
      scans: how many there are.
    """

    def __init__(self, console: Console, scans: int) -> None:
        time_left = TimeRemainingColumn(elapsed_when_finished=True)
        super().__init__(
            *(TextColumn("{task.description}"), BarColumn(), time_left),
            console=console,
            transient=True,
            disable=not console.is_terminal,  # else it would leave an empty line in a file
        )
        self._scans, self._done, self._warned = scans, 0, 0
        self._shown = self.add_task(f"0 of {scans} scans", total=scans)

    def stop(self) -> None:
        """Takes the bar away, and counts the warnings that were not printed."""
        super().stop()
        if self._warned > _LOUD:
            rest = f"and {self._warned - _LOUD} more scans like these"
            self.console.print(f"[bold yellow]WARNING[/bold yellow] {rest}")

    def slice_done(self, index: int, of: int) -> None:
        """The slice ``index`` of a scan of ``of`` slices is done."""
        self.update(self._shown, completed=self._done + index / of)

    def scan_done(self) -> None:
        """A scan is written, or left out."""
        self._done += 1
        words = f"{self._done} of {self._scans} scans"
        self.update(self._shown, completed=self._done, description=words)

    def warn(self, path: Path, text: str) -> None:
        """Prints a warning above the bar."""
        self._warned += 1
        if self._warned <= _LOUD:
            words = escape(f"{path}: {text}")
            self.console.print(f"[bold yellow]WARNING[/bold yellow] {words}")


def show_scans(scans: Sequence[dict[str, Any]], console: Console) -> None:
    """A table of the main numbers, a row per scan."""
    if not scans:
        return
    table = Table(title="predicted", title_justify="left")
    headings = ("slices", "with lesion", "lesion", "share of lung", "probability in it")
    table.add_column("scan")
    for heading in headings:
        table.add_column(heading, justify="right")
    for one in scans[:_ROWS]:
        ml, share, sure = one["lesion_ml"], one["share_of_lung"], one["probability_in_lesion"]
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
