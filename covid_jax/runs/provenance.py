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
from covid_jax.errors import plural
from covid_jax.parallel import processor

NOTICE = "Research use only; not for diagnosis or treatment."
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "nibabel")


def provenance(argv: Sequence[str]) -> dict[str, Any]:
    """Versions, device, processor, commit, command line and UTC time, as JSON can hold them."""
    model = processor("model name")
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return {
        "command": shlex.join(argv),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processor": f"{plural(len(usable(0)), 'core')}, {model or platform.machine()}",
        "commit": _commit(),
        "versions": {
            "covid_jax": covid_jax.__version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES},
        },
    }


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
