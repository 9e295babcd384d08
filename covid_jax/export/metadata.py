"""What a program without covid_jax must know to use an exported network."""

import importlib
from types import ModuleType
from typing import Any

import covid_jax
from covid_jax.data.scan import LESION
from covid_jax.errors import ConfigError
from covid_jax.inference import Run

RESEARCH_USE = (
    "Research use only. It diagnoses nothing and no one; do not use it for clinical decisions."
)


def channel_names(run: Run) -> tuple[str, ...]:
    """What each channel of the output is the probability of."""
    classes = run.config.data.classes
    return ("background", *classes) if len(classes) > 1 else (classes or (LESION,))


def constants(run: Run) -> dict[str, Any]:
    """Preprocessing, classes and origin of a run's network, as JSON can hold them."""
    size = run.config.data.image_size
    channels = channel_names(run)
    several = "background is the first channel; a pixel belongs to the most probable one"
    return {
        "use": RESEARCH_USE,
        "producer": f"covid_jax {covid_jax.__version__}",
        "image_size": size,
        "input": (
            "raw intensities as the file gives them (HU, or grey values), float32, slices as a "
            f"radiologist sees them, each resized to {size} x {size}; normalization is inside"
        ),
        "resize": "linear, antialiased where it shrinks, pixel centres aligned; back: the same",
        "normalization": {**run.normalization.record(), "inside": True, "kind": _kind(run)},
        "channels": list(channels),
        "output": "probabilities; " + (several if len(channels) > 1 else "lesion above threshold"),
        "threshold": 0.5,
        "data": run.record["data"]["layout"],
        "data_fingerprint": run.record["data"]["fingerprint"],
        "intensities": sorted({part["scale"] for part in run.record["data"].get("sources", [])}),
        "epoch": run.epoch,
    }


def need(module: str, what: str) -> ModuleType:
    """Imports a library of the extra ``export``.

    Raises:
      ConfigError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.split(".")[0]
        raise ConfigError(f'{what} needs {name}: pip install "covid_jax[export]"') from error


def _kind(run: Run) -> str:
    if run.normalization.mean is None:
        return "z-score of each slice; zeros where its spread is below 1e-5 of its magnitude"
    if run.normalization.clip:
        return "(x - mean) / std, cut off at -1 and 1"
    return "(x - mean) / std"
