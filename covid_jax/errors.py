"""The errors a user may see.

Each names the file or flag, what was found, what was expected and what to do.
Anything else that escapes is a defect of covid_jax and keeps its traceback.
"""

import importlib
import signal
from collections.abc import Iterable
from typing import Any


class CovidJaxError(Exception):
    """A mistake in what the user gave; the command line prints it and exits with status 2."""


class ConfigError(CovidJaxError):
    """A setting that is invalid, alone or in combination with another.

    Attributes:
      fields: names of the settings in the message, which the command line shows as flags.
    """

    def __init__(self, message: str, *fields: str) -> None:
        super().__init__(message)
        self.fields = fields


class DataError(CovidJaxError):
    """A file or folder that is missing, damaged, or not what it should be."""


class RunError(CovidJaxError):
    """A run folder or a checkpoint that is missing, incomplete, or of another run."""


class StoppedError(CovidJaxError):
    """A signal ended the run between two steps; the command exits with 128 + its number."""

    def __init__(self, number: signal.Signals) -> None:
        advice = "the same command with --resume goes on after the last of them"
        super().__init__(f"stopped by {number.name}: ended epochs are kept; {advice}")
        self.status = 128 + number


def need(module: str, what: str, extra: str, error: type[CovidJaxError] = ConfigError) -> Any:
    """Imports a library of an extra.

    Raises:
      CovidJaxError: the kind given, saying what needs it and how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as absent:
        name = module.split(".")[0]
        raise error(f'{what} needs {name}: pip install "covid_jax[{extra}]"') from absent


def shorten(names: Iterable[str], most: int = 3) -> str:
    """The first few items, joined for a message."""
    names = list(names)
    return printable(", ".join([*names[:most], *(["..."] if len(names) > most else [])]))


def printable(text: str) -> str:
    """The text with escapes for undecodable bytes and control characters."""
    try:  # names in another encoding than the locale's: their bytes may be UTF-8
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def plural(number: int, noun: str) -> str:
    """A number with its noun: ``1 patient``, ``2 patients``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
