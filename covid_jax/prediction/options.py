"""Settings of a prediction."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from covid_jax.schema import Amount, Fraction, Range, Settings

Runtime = Literal["jax", "openvino", "onnxruntime", "auto"]


@dataclass(frozen=True)
class PredictOptions(Settings):
    """How masks are made of probabilities, and what is written in addition to them."""

    threshold: Fraction = 0.5
    """Probability above which a pixel is lesion; of several classes the most probable is taken."""
    tta: bool = False
    """Average over flips (left-right, up-down, both): four times the work."""
    min_area: Amount = 0.0
    """Smallest lesion kept, per slice: in mm2 where the spacing is known, else in pixels."""
    fill_holes: bool = False
    """Fill holes within the lesions of a slice."""
    format: Literal["nifti", "dicom-seg"] = "nifti"
    """Of masks: dicom-seg is a DICOM segmentation of a DICOM series."""
    probabilities: bool = False
    """Write probabilities too, and with --tta how many of the flips agree."""
    overlay: bool = False
    """Draw the masks' contours on the slices, and a contact sheet of a volume."""
    report: bool = False
    """Write a page to look at every slice with a threshold slider, and an index of all scans."""
    lungs: Path | None = None
    """Lung mask of the one scan, or a folder of masks named as the scans; by label."""
    inside_lungs: bool | None = None
    """Drop what lies outside the lungs' hull; by default for runs trained with --crop lungs."""
    series: tuple[str, ...] = ()
    """SeriesInstanceUIDs to take from DICOM folders that hold several."""
    runtime: Runtime = "jax"
    """What computes the network. auto: OpenVINO where it is installed and its masks of the first
    scan's middle slices are those of jax."""
    batch_size: Annotated[int | None, Range(1)] = None
    """Slices computed at once; memory grows with it. By default 1 on a CPU, else 4."""
