"""On SIGTERM or SIGINT the current step is completed, then the run ends."""

import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from covid_jax.errors import StoppedError
from covid_jax.parallel import any_process, is_multiprocess

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_VOTE_EVERY = 8  # checks of a run of several processes: to ask them all, they have to wait


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], None]]:
    """Catches the two signals for as long as the block runs; only the main thread can.

    A second signal ends the process immediately.

    Yields:
      A function to be called between steps; it raises StoppedError once a signal has come.

    Raises:
      StoppedError: at the end of the block, if a signal arrived after the last check.
    """
    received: list[int] = []
    checks = itertools.count(1)

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def check() -> None:
        stop = bool(received)
        if is_multiprocess():  # all processes end at the same step, or those left would wait
            stop = next(checks) % _VOTE_EVERY == 0 and any_process(stop)
        if stop:
            raise StoppedError(signal.Signals(received[0] if received else signal.SIGTERM))

    caught = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = [(number, signal.signal(number, receive)) for number in caught]
    try:
        yield check
        check()
    finally:
        for number, handler in before:
            signal.signal(number, handler)
