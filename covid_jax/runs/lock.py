"""Locks a folder: a second process is refused or waits, even on another host of a shared disk.

The lock is an operating-system lock on a file that names the process. It is released when the
process ends for any reason. On NFS the server keeps the lock.
"""

import contextlib
import datetime
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from covid_jax.errors import RunError
from covid_jax.files import writing_to

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

NAME = ".lock"


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Locks a folder during the block, and creates it if it is missing.

    Args:
      folder: of a run, or of results.
      wait: until another process gives the lock back.

    Raises:
      RunError: without ``wait``, if another process has the lock (naming host, process and time);
        or if the folder cannot be written.

    Warns:
      UserWarning: if the file system has no locks.
    """
    made = not folder.exists()
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = _take(folder / NAME, wait)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / NAME).unlink()
            if made:  # and the run was refused before it wrote anything
                folder.rmdir()
        file.close()


def _take(path: Path, wait: bool) -> TextIO:
    """The file, locked; the lock ends when it is closed."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    while True:
        file = os.fdopen(os.open(path, flags, 0o666), "r+", encoding="utf-8")
        try:
            if fcntl is None:
                raise OSError("this system has none")
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            owner = file.read() or "another process"
            file.close()
            raise RunError(f"{path.parent}: in use by {owner}; wait for it, or end it") from error
        except OSError as error:
            reason = error.strerror or error
            problem = f"{path}: no lock ({reason}); start no second run in this folder"
            warnings.warn(problem, stacklevel=4)
        with contextlib.suppress(FileNotFoundError):  # given back and deleted in between
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    file.truncate(0)  # of one that was killed
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}")
    file.flush()
    return file
