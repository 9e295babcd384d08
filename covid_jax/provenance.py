"""What a result was made with: versions, device, command, time. Kept beside every number."""

import datetime
import importlib.metadata
import platform
import shlex
from collections.abc import Sequence
from typing import Any

import jax

import covid_jax

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "nibabel")


def provenance(argv: Sequence[str]) -> dict[str, Any]:
    """Versions, device, command line and UTC time, as JSON can hold them."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "command": shlex.join(argv),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {
            "covid_jax": covid_jax.__version__,
            "python": platform.python_version(),
            **versions,
        },
    }
