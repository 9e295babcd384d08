"""Files that matter are written beside and renamed: a kill leaves the old one or the new one."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


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


def cache_folder() -> Path:
    """Where the phantom, decoded slices and compiled steps are kept; free to be deleted."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "covid_jax"
