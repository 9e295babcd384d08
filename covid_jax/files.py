"""Reads and writes files: JSON is checked against types, and no file is left half written."""

import contextlib
import csv
import functools
import json
import math
import os
import secrets
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from covid_jax.errors import ConfigError, CovidJaxError, DataError, RunError
from covid_jax.schema import parse

_OBJECT = dict[str, Any]
TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # names of files may be no UTF-8


@contextlib.contextmanager
def writing_to(
    path: Path, advice: str = "choose another --out", error: type[CovidJaxError] = RunError
) -> Iterator[None]:
    """Turns a system error in the block, such as a full disk, into an error of the user.

    Args:
      path: file or folder that the block writes.
      advice: what to do, for the message.
      error: the kind of error.
    """
    try:
        yield
    except OSError as refused:
        reason = refused.strerror or refused
        raise error(f"{path}: cannot be written ({reason}); {advice}") from refused


@contextlib.contextmanager
def reading(path: Path, error: type[CovidJaxError] = DataError) -> Iterator[None]:
    """Turns a system error in the block into an error of the user.

    Args:
      path: file or folder that the block reads; in a folder, the message names the file in it.
      error: the kind of error.
    """
    try:
        yield
    except OSError as refused:
        name, reason = refused.filename or path, refused.strerror or refused
        raise error(f"{name}: cannot be read ({reason})") from refused


def require_file(path: Path, error: type[CovidJaxError] = DataError) -> None:
    """Refuses what is not a file: opening a named pipe or a device could block forever.

    Raises:
      CovidJaxError: the kind given, saying what the path is instead.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise error(f"{path}: a folder, not a file")
    if path.exists():
        raise error(f"{path}: a named pipe or a device; expected a file")
    raise error(f"{path}: no such file, or a link to nothing")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives an empty file to write; it replaces ``path`` once the block ends without an error.

    If the process is killed, the old or the new file remains. The temporary name is random, so that
    nobody can place a link there in advance, and has the suffixes of ``path``, from which writers
    choose the format.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}-{path.name}")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(partial, flags, 0o666))
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
      ValueError: on NaN and infinity, which JSON does not have.
      OSError: if it cannot be written.
    """
    replace_text(path, json.dumps(value, indent=1, allow_nan=False))


def read_json(path: Path, kind: Any = _OBJECT, error: type[CovidJaxError] = DataError) -> Any:
    """Reads a JSON file and checks its types.

    Args:
      path: of the file; a byte-order mark is skipped.
      kind: its type, such as a dataclass or ``dict[str, list[int]]`` (see ``schema.parse``).
      error: the kind of error.

    Raises:
      CovidJaxError: the kind given, naming the file, if it cannot be read or is not JSON (cut
        short, NaN), or a value is of another type, named too.
    """
    try:
        with reading(path, error):
            require_file(path, error)
            return parse_json(path.read_bytes(), kind)
    except ConfigError as wrong:
        raise error(f"{path}: {wrong}") from wrong


def parse_json(text: str | bytes, kind: Any = _OBJECT) -> Any:
    """The value of a JSON text, such as a line of metrics.jsonl, checked against a type.

    Raises:
      ConfigError: if it is not JSON, or not of the type.
    """
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=_finite_float, parse_float=_finite_float)
        if "\\u" in text:  # half a surrogate pair, unless it is a byte of a file's name
            json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")
    except (ValueError, RecursionError) as wrong:
        raise ConfigError(f"damaged ({wrong})") from wrong
    return parse(kind, value)


def _finite_float(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"{digits:.20} is not a finite number")
    return number


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a table whole or not at all: numbers in full precision, a missing cell empty.

    An apostrophe is put before a text that a spreadsheet would treat as a formula, or that begins
    with an apostrophe.
    """
    with replacing(path) as partial, partial.open("w", newline="", **TEXT) as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(value) for name, value in row.items()})


def _cell(value: Any) -> Any:
    formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "'"))
    return f"'{value}" if formula else value


def cache_folder() -> Path:
    """Folder of the phantom, decoded slices and compiled steps; it may be deleted at any time.

    ``$XDG_CACHE_HOME/covid_jax``, else ``~/.cache/covid_jax``. Without a writable home folder, as
    in containers, it is in the system's folder for temporary files.

    Warns:
      UserWarning: in this last case, once.
    """
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "covid_jax"
    with contextlib.suppress(RuntimeError):  # a user id without a name, and no HOME
        if os.access(home := Path.home(), os.W_OK):
            return home / ".cache" / "covid_jax"
    return _temporary_cache()


@functools.cache
def _temporary_cache() -> Path:
    folder = Path(tempfile.gettempdir()) / f"covid_jax-{os.getuid()}"
    with contextlib.suppress(OSError):
        folder.mkdir(0o700, exist_ok=True)
    if folder.is_symlink() or not os.access(folder, os.W_OK) or folder.stat().st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="covid_jax-"))
    warnings.warn(f"no home folder to cache in: {folder} is used; set XDG_CACHE_HOME", stacklevel=3)
    return folder
