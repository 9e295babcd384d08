"""Arrays built once and memory-mapped ever after; what is cut short or damaged is built again.

A cache is a folder: ``index.json``, which holds a checksum of each file and of itself, and one raw
file an array. The checksums are verified whenever the folder is opened. It appears under its name
by one rename, whole, so that several processes may build it at once: the first to finish is kept.
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

_DAY = 24 * 3600.0
_BLOCK = 1 << 22  # bytes read at once for a checksum


class Contents(NamedTuple):
    """What a cache holds.

    Attributes:
      record: anything JSON can hold.
      arrays: by name; read only, on disk.
    """

    record: Any
    arrays: dict[str, np.ndarray]


class Plan(NamedTuple):
    """What a builder says of the files ``<name>.bin`` it has written.

    Attributes:
      record: anything JSON can hold.
      arrays: dtype and shape by name.
    """

    record: Any
    arrays: dict[str, tuple[str, tuple[int, ...]]]


def open_arrays(folder: Path, build: Callable[[Path], Plan]) -> Contents:
    """Opens the cache in a folder, built first if it is missing or not whole.

    Args:
      folder: its name must change with whatever the contents depend on.
      build: writes the arrays' raw bytes into the folder it is given.

    Raises:
      DataError: if the folder cannot be written (permission, disk full).
    """
    contents = _load(folder)
    if contents is not None:
        return contents
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        partial = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
        try:
            plan = build(partial)
            checksums = {name: _checksum(partial / f"{name}.bin") for name in plan.arrays}
            text = json.dumps([plan.record, plan.arrays, checksums])
            (partial / "index.json").write_text(f"{zlib.crc32(text.encode()):08x}\n{text}")
            for path in partial.iterdir():
                _flush(path)
            return _put(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{folder.parent}: decoded slices cannot be kept here ({error.strerror or error}); "
            "make room, or set XDG_CACHE_HOME to a folder that can be written"
        ) from error


def _load(folder: Path) -> Contents | None:
    """What the folder holds, None unless every file is as it was written."""
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
    except (OSError, ValueError):
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
    """Moves a built cache to its place, unless another process was first with a whole one."""
    while True:
        with contextlib.suppress(OSError):  # a folder with files in it is in the way
            partial.rename(folder)
        contents = _load(folder)
        if contents is not None:
            return contents
        if not partial.exists():
            raise DataError(f"{folder}: was written and cannot be read back; check the disk")
        _remove(folder)


def _remove(folder: Path) -> None:
    """Takes a folder away in one step, then deletes it."""
    grave = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        folder.rename(grave / "old")
    shutil.rmtree(grave, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Deletes what killed builders left behind, once it is a day old."""
    for path in parent.glob(".building-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _DAY:
                shutil.rmtree(path, ignore_errors=True)


def _flush(path: Path) -> None:
    """Waits for the disk, so that no power cut leaves a file of the right length without bytes."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
