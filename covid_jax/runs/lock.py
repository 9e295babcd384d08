"""One process to a run folder: a second one is refused, also on another host of a network disk.

The lock is a file that is made exclusively, says who holds it, and is touched every few seconds.
That works where system locks do not, such as on NFS. It is stale when its process is gone (same
host), or when it is not touched for a minute while we watch (another host, whose clock may differ).
"""

import contextlib
import datetime
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from covid_jax.errors import ConfigError, CovidJaxError, RunError
from covid_jax.files import parse_json, writing_to
from covid_jax.runs.config import to_dict

NAME = ".lock"
HEARTBEAT = 10.0  # seconds between touches
WATCH = 60.0  # seconds without a touch after which a lock of another host is stale
_held: set[str] = set()  # tokens of this process


@dataclass(frozen=True)
class _Holder:
    host: str
    pid: int
    since: str
    token: str


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a run folder, which is made where it is missing, for the block.

    Raises:
      RunError: if another process holds it (naming host, process and time), or it cannot be
        written.
    """
    path = folder / NAME
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    holder = _Holder(socket.gethostname(), os.getpid(), now, secrets.token_hex(8))
    made = not folder.exists()
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _take(path, holder)
    _held.add(holder.token)
    done = threading.Event()
    thread = threading.Thread(target=_touch, args=(path, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        _held.discard(holder.token)
        with contextlib.suppress(OSError, CovidJaxError):
            if _read(path) == holder:  # else it was taken for stale, as after a long suspension
                path.unlink()
            if made:  # and the run was refused before it wrote anything
                folder.rmdir()


def _take(path: Path, holder: _Holder) -> None:
    for _ in range(3):  # a stale lock may be removed by others at the same moment
        try:
            file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            _remove_stale(path, holder)
            continue
        with os.fdopen(file, "w", encoding="utf-8") as opened:
            opened.write(json.dumps(to_dict(holder)))
        return
    raise RunError(f"{path.parent}: other processes are taking this run folder; try again")


def _remove_stale(path: Path, ours: _Holder) -> None:
    """Removes a lock that nobody holds.

    Raises:
      RunError: if somebody does.
    """
    try:
        holder = _read(path)
    except FileNotFoundError:
        return
    except ConfigError:  # being written, or cut short by a kill or a full disk
        holder = _Holder("unknown host", 0, "unknown time", "")
    if _alive(holder) if holder.host == ours.host else _touched(path):
        raise RunError(
            f"{path.parent}: in use by process {holder.pid} on {holder.host} since {holder.since}; "
            f"wait for it, or remove {path} if it is not running"
        )
    aside = path.with_name(f"{NAME}-{ours.token}")  # renamed first: only one process succeeds
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        aside.unlink()


def _read(path: Path) -> _Holder:
    return parse_json(path.read_bytes(), _Holder)


def _alive(holder: _Holder) -> bool:
    if holder.pid == os.getpid():  # else it is of an earlier container, with the same numbers
        return holder.token in _held
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _touched(path: Path) -> bool:
    """Whether the holder touches its lock while we watch; opening it bypasses NFS's caches."""
    times = set()
    end = time.monotonic() + WATCH
    while len(times) < 2 and time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            times.add(os.fstat(file.fileno()).st_mtime_ns)
        time.sleep(min(1.0, WATCH / 10))
    return len(times) > 1


def _touch(path: Path, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(path)
