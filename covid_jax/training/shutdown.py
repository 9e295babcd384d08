"""On SIGTERM or SIGINT the current step is completed, then the run ends."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from covid_jax.errors import StoppedError
from covid_jax.parallel import any_process, is_multiprocess

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_VOTE_EVERY = 8  # checks of a run of several processes: to ask them all, they have to wait


class ShutdownRequest:
    """Records the signal that asked the run to end."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._checks = 0

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """The signal handler; a second signal ends the process immediately."""
        self._signal = number
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    def check(self) -> None:
        """To be called between steps.

        Raises:
          StoppedError: once a signal has come.
        """
        asked = self._signal is not None
        self._checks += 1
        if is_multiprocess():  # all processes end at the same step, or those left would wait
            asked = self._checks % _VOTE_EVERY == 0 and any_process(asked)
        if asked:
            raise StoppedError(signal.Signals(self._signal or signal.SIGTERM))


@contextlib.contextmanager
def stop_on_signals() -> Iterator[ShutdownRequest]:
    """Catches the two signals for as long as the block runs; only the main thread can.

    Raises:
      StoppedError: at the end of the block, if a signal arrived after the last ``check``.
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
