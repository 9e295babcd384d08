"""SIGTERM and SIGINT let the step end, then the run."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from covid_jax.errors import StoppedError
from covid_jax.parallel import Vote, is_multiprocess

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ShutdownRequest:
    """Whether someone has asked the run to end."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._vote = Vote() if is_multiprocess() else None

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """The signals' handler; the next of either kind ends the process at once."""
        self._signal = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def check(self) -> None:
        """To be called between steps.

        Raises:
          StoppedError: once a signal has come.
        """
        asked = self._signal is not None
        if self._vote is not None:  # all processes end at the same step, or those left would wait
            asked = self._vote.any(asked)
        if asked:
            raise StoppedError(signal.Signals(self._signal or signal.SIGTERM))


@contextlib.contextmanager
def stop_on_signals() -> Iterator[ShutdownRequest]:
    """Catches the two signals for as long as the block runs; only the main thread can.

    Raises:
      StoppedError: at the block's end, where a signal came after its last check.
    """
    stop = ShutdownRequest()
    caught = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = [(number, signal.signal(number, stop.ask)) for number in caught]
    try:
        yield stop
        stop.check()
    finally:
        for number, handler in before:
            signal.signal(number, handler)
