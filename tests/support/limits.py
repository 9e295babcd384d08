"""Bounds of time, memory and files, for what must neither hang nor fill a machine."""

import contextlib
import resource
import signal
import tracemalloc
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def bounded(seconds: float, memory: float) -> Iterator[None]:
    """Fails after so many seconds, or if Python and numpy held more bytes at once."""

    def stop(*_: object) -> None:
        pytest.fail(f"hangs for {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # and again, while its threads are waited for
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < memory
    finally:
        tracemalloc.stop()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def no_file_grows_beyond(size: int) -> Iterator[None]:
    """The system refuses it, as it refuses what a full disk has no room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
