"""Versions, device, command and time of a result; stored with every result."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

import covid_jax

NOTICE = "Research use only; not for diagnosis or treatment."
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "nibabel")


def provenance(argv: Sequence[str]) -> dict[str, Any]:
    """Versions, device, processor, commit, command line and UTC time, as JSON can hold them."""
    return {
        "command": shlex.join(argv),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processor": f"{_cores()}, {_processor()}",
        "commit": _commit(),
        "versions": {
            "covid_jax": covid_jax.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


def _cores() -> str:
    """The CPU cores that this process may use, or all if the system does not report that."""
    usable = getattr(os, "sched_getaffinity", None)
    count = len(usable(0)) if usable else os.cpu_count()
    return "1 core" if count == 1 else f"{count} cores"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line for line in lines if line.startswith("model name"))
        return model.split(":", 1)[1].strip()
    except (OSError, StopIteration):  # not Linux, or an architecture without model names
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the running checkout, with a plus if files were changed; None if installed."""
    root = Path(covid_jax.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--exclude=*", "--abbrev=40"]
    try:
        found = subprocess.run(
            [*command, "--dirty=+"], capture_output=True, text=True, check=True, timeout=10
        )
        return found.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
