"""Arrays built once and memory-mapped from then on; a damaged cache is built again.

A cache is a folder: one raw file per array, and ``index.json`` with a checksum of each file and of
itself. The checksums are verified whenever the folder is opened. A complete folder is renamed to
its final name, so that several processes may build it at once: the first to finish is kept.
"""

import contextlib
import functools
import json
import math
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from covid_jax.errors import DataError
from covid_jax.files import writing_to

_DAY = 24 * 3600.0
_BLOCK = 1 << 22  # bytes read at once for a checksum


class Contents(NamedTuple):
    """The contents of a cache.

    Attributes:
      record: anything JSON can hold.
      arrays: by name; read only, on disk.
    """

    record: Any
    arrays: dict[str, np.ndarray]


class Plan(NamedTuple):
    """Describes the files ``<name>.bin`` that a builder has written.

    Attributes:
      record: anything JSON can hold.
      arrays: dtype and shape by name.
    """

    record: Any
    arrays: dict[str, tuple[str, tuple[int, ...]]]


def open_arrays(folder: Path, build: Callable[[Path], Plan]) -> Contents:
    """Opens the cache in a folder; builds it first if it is missing or damaged.

    Args:
      folder: its name must change with everything that the contents depend on.
      build: writes the arrays' raw bytes into the folder that it is given.

    Raises:
      DataError: if the folder cannot be written (permission, disk full).
    """
    if contents := _load(folder):
        return contents
    advice = "make room, or set XDG_CACHE_HOME to a folder that can be written"
    with writing_to(folder.parent, advice, DataError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        with tempfile.TemporaryDirectory(
            prefix=".building-", dir=folder.parent, ignore_cleanup_errors=True
        ) as work:
            partial = Path(work, "new")
            partial.mkdir()
            plan = build(partial)
            checksums = {name: _checksum(partial / f"{name}.bin") for name in plan.arrays}
            text = json.dumps([plan.record, plan.arrays, checksums])
            (partial / "index.json").write_text(f"{zlib.crc32(text.encode()):08x}\n{text}")
            for path in partial.iterdir():
                with path.open("rb") as file:  # or a power cut could leave a file without its bytes
                    os.fsync(file.fileno())
            return _put(partial, folder)


def _load(folder: Path) -> Contents | None:
    """The folder's contents; None unless every file is as it was written."""
    try:
        checksum, text = (folder / "index.json").read_bytes().split(b"\n", 1)
        if checksum != b"%08x" % zlib.crc32(text):
            return None
        record, described, checksums = json.loads(text)
        arrays = {}
        for name, (dtype, shape) in described.items():
            path = folder / f"{name}.bin"
            if _checksum(path) != checksums[name]:
                return None
            mapped = functools.partial(np.memmap, path, mode="r") if math.prod(shape) else np.empty
            arrays[name] = mapped(dtype=np.dtype(dtype), shape=tuple(shape))
        return Contents(record, arrays)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


def _checksum(path: Path) -> list[int]:
    """The file's size and the CRC of each of its blocks; threads share the work."""
    size = path.stat().st_size

    def of_block(start: int) -> int:
        with path.open("rb") as file:
            file.seek(start)
            return zlib.crc32(file.read(_BLOCK))

    with ThreadPoolExecutor() as pool:
        return [size, *pool.map(of_block, range(0, size, _BLOCK))]


def _put(partial: Path, folder: Path) -> Contents:
    """Renames a built cache to its final name, unless another process has finished one."""
    while True:
        with contextlib.suppress(OSError):  # a folder with files in it has the name
            partial.rename(folder)
        if contents := _load(folder):
            return contents
        if not partial.exists():
            raise DataError(f"{folder}: was written and cannot be read back; check the disk")
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            folder.rename(Path(tempfile.mkdtemp(dir=partial.parent), "old"))


def _sweep(parent: Path) -> None:
    """Deletes what killed builders left behind a day ago or earlier."""
    for path in parent.glob(".building-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _DAY:
                shutil.rmtree(path, ignore_errors=True)
