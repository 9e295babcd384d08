"""The command line: its commands, and the exit status of errors. Importing it imports no jax."""

import contextlib
import ctypes
import difflib
import importlib
import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import covid_jax
from covid_jax.errors import CovidJaxError, StoppedError
from covid_jax.files import cache_folder

# Of each command the function, as module.name in covid_jax.cli, and the line in --help. Its flags
# are those of the class in covid_jax.cli.flags that has its name, such as EvalFlags.
COMMANDS = {
    "train": ("commands.train", "Train on a dataset folder, or on the synthetic phantom."),
    "eval": ("commands.evaluate", "Score a trained run, draw its slices, write a report."),
    "compare": ("commands.compare", "Compare scored runs: intervals, a paired test, pictures."),
    "reproduce": ("reproduce.reproduce", "Train a recorded run again, and compare the numbers."),
    "score": ("commands.score", "Score any method's masks or probabilities as eval does."),
    "predict": ("commands.predict", "Write a lesion mask for every scan. Research use only."),
    "export": ("commands.export", "Export a run's network: bundle, ONNX or StableHLO."),
    "weights": ("tools.weights", "List the installed weights: data, terms, scores, SHA-256."),
    "data": ("commands.look", "Look at a dataset before training: table, warnings, pictures."),
    "phantom": ("tools.phantom", "Write the synthetic phantom dataset into a new folder."),
    "config": ("tools.config", "Print the settings that train would use, as YAML."),
    "cache": ("tools.cache", "List what is cached, or delete it."),
    "completion": ("tools.completion", "Print the script that completes covid-jax in a shell."),
}
GROUPS = {
    "Train and evaluate": "train eval compare reproduce score",
    "Predict and share": "predict export weights",
    "Data and settings": "data phantom config cache completion",
}

_EXITS = """Exit status: 0 done; 1 predict left a scan out, or reproduce is off;
2 a mistake in what was given; 130 interrupted, 143 terminated (128 + the signal)"""


@contextlib.contextmanager
def _pipe_may_close() -> Iterator[None]:
    """Ends the process without a message if its output's reader, such as ``head``, has stopped."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed again at exit
        raise SystemExit(128 + 13) from None


def train(argv: Sequence[str] | None = None) -> None:
    """``train.py``: trains on a dataset folder, or on the built-in synthetic phantom."""
    main(["train", *(sys.argv[1:] if argv is None else argv)], "train.py")


def evaluate(argv: Sequence[str] | None = None) -> None:
    """``eval.py``: scores a run."""
    main(["eval", *(sys.argv[1:] if argv is None else argv)], "eval.py")


def main(argv: Sequence[str] | None = None, prog: str = "") -> None:
    """``covid-jax COMMAND``, for the commands in ``COMMANDS``; ``prog`` is shown as its name."""
    for stream in ("stdout", "stderr"):  # as with ``>&-``
        if getattr(sys, stream) is None:
            setattr(sys, stream, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    with _pipe_may_close():
        _main(argv, prog)


def _main(argv: Sequence[str] | None, prog: str) -> None:
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(_usage())
    elif name == "--version":
        print(_versions())
    elif name in COMMANDS:
        _run(name, prog or f"covid-jax {name}", rest)
    else:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        _fail(f"error: covid-jax {name}: unknown command; {hint}", 2)


def _usage() -> str:
    lines = [
        f"covid_jax {covid_jax.__version__}, CT segmentation of COVID-19 lesions.",
        "Research use only. Not for diagnosis or treatment.",
        "",
        "usage: covid-jax COMMAND [OPTIONS], covid-jax COMMAND --help, covid-jax --version",
    ]
    for title, names in GROUPS.items():
        lines += ["", title, *(f"  {name:<11} {COMMANDS[name][1]}" for name in names.split())]
    return "\n".join([*lines, "", _EXITS, "Documentation: README.md and docs/ in the source"])


def _versions() -> str:
    import jax

    devices = ", ".join(f"{device.id}: {device.device_kind}" for device in jax.devices())
    return f"covid_jax {covid_jax.__version__}\njax {jax.__version__}\ndevices {devices}"


def _run(name: str, prog: str, argv: Sequence[str]) -> None:
    """Runs a command; a user's mistake or an interruption gives a message, not a traceback."""
    from covid_jax.terminal import Screen

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of few letters gets escapes
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "compiled"))
    function, about = COMMANDS[name]
    try:
        flags = importlib.import_module("covid_jax.cli.flags")
        parse = importlib.import_module("covid_jax.cli.parse").parse
        given = parse(getattr(flags, f"{name.title()}Flags"), prog, argv, about)
        module, _, function = function.partition(".")
        run = getattr(importlib.import_module(f"covid_jax.cli.{module}"), function)
        with _damaged_steps_deleted():
            run(given, Screen(quiet=given.quiet), [*prog.split(), *argv])
    except StoppedError as error:
        _fail(str(error), error.status)
    except CovidJaxError as error:
        if {"-v", "--verbose"} & set(argv):
            traceback.print_exc()
        _fail(f"error: {_with_flags(error)}", 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except RuntimeError as error:  # of jax, the first time that it computes
        if not str(error).startswith("Unable to initialize backend"):
            raise
        _fail(f"error: {error}", 2)


@contextlib.contextmanager
def _damaged_steps_deleted() -> Iterator[None]:
    """Deletes cached programs that JAX cannot read, about which it would warn in every run."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def look(message: Warning | str, *details: Any) -> None:
            step = re.match(r"Error reading persistent compilation.* '([\w.-]+)'", str(message))
            if step is None:
                return show(message, *details)
            for path in Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).glob(f"{step[1]}-*"):
                path.unlink(missing_ok=True)

        warnings.showwarning = look
        yield


def _with_flags(error: CovidJaxError) -> str:
    """The message with settings written as flags: ``batch_size`` becomes ``--batch-size``."""
    message = str(error)
    for name in getattr(error, "fields", ()):
        message = re.sub(rf"(?<![\w-]){name}\b", f"--{name.replace('_', '-')}", message)
    return message


def _fail(message: str, status: int) -> NoReturn:
    from rich.markup import escape

    from covid_jax.terminal import Screen

    Screen(stderr=True).print(escape(message), style="red")
    raise SystemExit(status)


def keep_freed_memory() -> bool:
    """Lets the GNU C library keep freed memory instead of returning it to the system.

    On a CPU, XLA frees its large buffers after every step and asks for them again at the next. The
    system then hands out fresh pages, zeroed one by one: a tenth to a quarter of a full-width
    training step. In exchange, peak memory is a quarter to three fifths higher
    (benchmarks/NOTES.md).

    Returns:
      Whether it was done; False with another C library, or if the call fails.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # malloc.h: M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD.
    settings = ((-8, 1), (-4, 0), (-1, -1))
    return mallopt is not None and all([mallopt(*setting) == 1 for setting in settings])
