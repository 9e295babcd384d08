"""An iterator that runs in a thread of its own, a little ahead of whoever reads it."""

import queue
import threading
from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")
_PATIENCE = 0.1  # seconds between two looks at whether anyone still waits


def in_background(source: Generator[T, None, None], ahead: int) -> Generator[T, None, None]:
    """The same items in the same order; errors are raised where they are read.

    Args:
      source: run and closed in the thread.
      ahead: items that wait to be read, at most; memory grows with it.
    """
    items: queue.Queue[tuple[str, Any]] = queue.Queue(ahead)
    stopped = threading.Event()

    def put(what: str, item: Any = None) -> bool:
        while not stopped.is_set():
            try:
                items.put((what, item), timeout=_PATIENCE)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in source:
                if not put("item", item):
                    return
                del item  # or a scan would be held while the next one is read
            put("end")
        except BaseException as error:  # whatever it is, the reader has to know
            put("error", error)
        finally:
            source.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            what, item = items.get()
            if what == "end":
                return
            if what == "error":
                raise item
            yield item
            del item
    finally:
        stopped.set()
        thread.join()
