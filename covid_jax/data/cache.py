"""Arrays built once and memory-mapped from then on; a damaged cache is built again.

A cache is a folder: one raw file per array, and ``index.json`` with a checksum of each file and of
itself. The checksums are verified whenever the folder is opened. A complete folder is renamed to
its final name, so that several processes may build it at once: the first to finish is kept.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from covid_jax.errors import DataError
from covid_jax.files import writing_to

Arrays = dict[str, np.ndarray]


class Contents(NamedTuple):
    """The contents of a cache.

    Attributes:
      record: any value that can be stored as JSON.
      arrays: by name; read only, on disk.
    """

    record: Any
    arrays: Arrays


class Plan(NamedTuple):
    """Describes the files ``<name>.bin`` that a builder has written.

    Attributes:
      record: any value that can be stored as JSON.
      arrays: dtype and shape by name.
    """

    record: Any
    arrays: dict[str, tuple[str, tuple[int, ...]]]


def open_arrays(folder: Path, build: Callable[[Path], Plan]) -> Contents:
    """Opens the cache in a folder; builds it first if it is missing or damaged.

    Args:
      folder: its name must identify all that the contents depend on, as a digest does.
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
            text = json.dumps([plan.record, plan.arrays, _checksums(_map(partial, plan.arrays))])
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
        arrays = _map(folder, described)
        return Contents(record, arrays) if checksums == _checksums(arrays) else None
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


def _map(folder: Path, described: Mapping[str, Sequence[Any]]) -> Arrays:
    """Maps arrays of given dtype and shape; ValueError if a file is too short."""
    arrays = {}
    for name, (dtype, shape) in described.items():
        if 0 in shape:  # which cannot be mapped
            arrays[name] = np.empty(shape, dtype)
        else:
            arrays[name] = np.memmap(folder / f"{name}.bin", dtype, "r", shape=tuple(shape))
    return arrays


def _checksums(arrays: Arrays) -> dict[str, int]:
    return {name: zlib.crc32(array.data) for name, array in arrays.items()}


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
            if time.time() - path.stat().st_mtime > 24 * 3600:
                shutil.rmtree(path, ignore_errors=True)
