"""The constants that a program without covid_jax needs to use an exported network."""

from typing import Any

import covid_jax
from covid_jax.inference import Run
from covid_jax.runs.config import to_dict
from covid_jax.runs.provenance import NOTICE
from covid_jax.transforms.grey_scale import CLIP, LUNG_HU, SOFT_TISSUE_HU
from covid_jax.transforms.labels import LESION


def channel_names(run: Run) -> tuple[str, ...]:
    """The class of each output channel."""
    classes = run.config.data.classes
    return ("background", *classes) if len(classes) > 1 else (classes or (LESION,))


def constants(run: Run) -> dict[str, Any]:
    """Preprocessing, classes and origin of a run's network, as JSON can hold them."""
    size = run.config.data.image_size
    channels = channel_names(run)
    crop = ", cropped to the lungs' box" if run.config.data.crop == "lungs" else ""
    several = "background is the first channel; a pixel belongs to the most probable one"
    return {
        "use": NOTICE,
        "producer": f"covid_jax {covid_jax.__version__}",
        "image_size": size,
        "input": (
            f"float32 slices in display orientation (anterior up){crop}, each resized to "
            f"{size} x {size}; {_intensities(run)}; normalization is inside"
        ),
        "crop": run.config.data.crop,
        "intensity": run.config.data.intensity,
        "resize": "linear, antialiased where it shrinks, pixel centres aligned; back: the same",
        "normalization": {**to_dict(run.normalization), "inside": True, "kind": _kind(run)},
        "channels": list(channels),
        "output": "probabilities; " + (several if len(channels) > 1 else "lesion above threshold"),
        "threshold": 0.5,
        "data": run.record.data.layout,
        "data_fingerprint": run.record.data.fingerprint,
        "intensities": sorted({part.scale for part in run.record.data.sources}),
        "epoch": run.epoch,
    }


def _intensities(run: Run) -> str:
    if run.config.data.intensity != "lung":
        return "raw intensities as the file gives them (HU, or grey values)"
    return (
        f"then on the lung grey scale: 0 is aerated lung ({LUNG_HU:g} HU), 1 is soft tissue "
        f"({SOFT_TISSUE_HU:g} HU), clipped to {CLIP[0]:g} and {CLIP[1]:g}"
    )


def _kind(run: Run) -> str:
    if run.normalization.mean is None:
        return "z-score of each slice; zeros where its spread is below 1e-5 of its magnitude"
    if run.normalization.clip:
        return "(x - mean) / std, cut off at -1 and 1"
    return "(x - mean) / std"
