"""Silence for libraries that warn of each small fault in a file: what matters ends in an error."""

import contextlib
import threading
import warnings
from collections.abc import Iterator

_ONE_AT_A_TIME = threading.Lock()  # filters of warnings are all threads'


@contextlib.contextmanager
def suppress_warnings(*libraries: str) -> Iterator[None]:
    """No warning of these libraries is heard within; threads enter one after the other."""
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=rf"({'|'.join(libraries)})\.")
        yield
