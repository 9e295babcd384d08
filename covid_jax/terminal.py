"""The console of the commands, which shows any file name safely, and a progress bar."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from rich import progress
from rich.console import Console
from rich.text import Text

from covid_jax.errors import printable

Progress = Callable[[float, int], None]  # takes the pieces done and all pieces


class Screen(Console):
    """A console that escapes control characters in file names.

    Lines are not wrapped; unprintable characters are shown as escapes.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(soft_wrap=True, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Rich's rendering of the text, with unprintable characters escaped."""
        return super().render_str(printable(text), **options)


@contextlib.contextmanager
def counting_bar(console: Console, doing: str) -> Iterator[Progress]:
    """A progress bar with the time left; it appears when the yielded function is first called."""
    if not console.is_terminal:  # a bar would leave an empty line in a file
        yield lambda done, total: None
        return
    columns = progress.TextColumn(doing), progress.BarColumn(), progress.MofNCompleteColumn()
    columns += (progress.TimeRemainingColumn(),)
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
