"""SIGTERM and SIGINT let the step end, then the run."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from covid_jax.errors import StoppedError
from covid_jax.parallel import are_several, asked_to_end

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Whether someone has asked the run to end."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._checks = 0

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
        self._checks += 1
        if are_several() and asked_to_end(self._checks):
            raise StoppedError(signal.SIGTERM)
        if self._signal is not None:
            raise StoppedError(signal.Signals(self._signal))


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Catches the two signals for as long as the block runs; only the main thread can.

    Raises:
      StoppedError: at the block's end, where a signal came after its last check.
    """
    stop = Stop()
    caught = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = [(number, signal.signal(number, stop.ask)) for number in caught]
    try:
        yield stop
        stop.check()
    finally:
        for number, handler in before:
            signal.signal(number, handler)
