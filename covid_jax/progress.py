"""A bar on the terminal for work of which the number of pieces is known once it has begun."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


@contextlib.contextmanager
def counting_bar(console: Console, doing: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears once it is told the number of pieces done and of all pieces."""
    columns = TextColumn(doing), BarColumn(), MofNCompleteColumn()
    silent = not console.is_terminal  # else it would leave an empty line in a file
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
