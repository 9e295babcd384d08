"""What commands print on: a console that shows any name, and a bar for pieces of work."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich import progress
from rich.console import Console
from rich.text import Text

from covid_jax.errors import printable

Progress = Callable[[float, int], None]  # takes the pieces done and all pieces


class Screen(Console):
    """A console on which names of files and folders cannot steer the terminal.

    Lines are as long as they are; what is not printable becomes escapes.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(soft_wrap=True, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does it."""
        return super().render_str(printable(text), **options)


@contextlib.contextmanager
def counting_bar(console: Console, doing: str) -> Iterator[Progress]:
    """A bar, with the time left, that appears once it is told the pieces done and all pieces."""
    columns = progress.TextColumn(doing), progress.BarColumn(), progress.MofNCompleteColumn()
    columns += (progress.TimeRemainingColumn(),)
    silent = not console.is_terminal  # else it would leave an empty line in a file
    with progress.Progress(*columns, console=console, transient=True, disable=silent) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
