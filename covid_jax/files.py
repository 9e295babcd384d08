"""Files that matter are written beside and renamed: a kill leaves the old one or the new one."""

import contextlib
import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # names of files may be no UTF-8


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the name to write to; it takes the place of ``path`` once the block ends well.

    The name has ``path``'s endings, so that writers that look at them write the same format.
    """
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a table whole or not at all: numbers in full precision, a missing cell empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with replacing(path) as partial, partial.open("w", newline="", **TEXT) as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def printable(text: str) -> str:
    """The text as UTF-8 can hold it: bytes of file names that are no UTF-8 become numbers."""
    return text.encode("utf-8", "backslashreplace").decode()


def cache_folder() -> Path:
    """Where the phantom, decoded slices and compiled steps are kept; free to be deleted."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "covid_jax"
