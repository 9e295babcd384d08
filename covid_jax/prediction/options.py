"""Settings of a prediction."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from covid_jax.schema import Amount, Fraction, Range, Settings

Runtime = Literal["jax", "openvino", "onnxruntime", "auto"]


@dataclass(frozen=True)
class PredictOptions(Settings):
    """How probabilities become masks, and which files are written besides the masks."""

    threshold: Fraction = 0.5
    """Probability above which a pixel is lesion; not used for several classes, where the most
    probable one is taken."""
    tta: bool = False
    """Average over flips (left-right, up-down, both); takes four times as long."""
    min_area: Amount = 0.0
    """Smallest lesion kept, per slice: in mm2 where the spacing is known, else in pixels."""
    smooth_slices: Annotated[float | None, Range(0)] = None
    """Average the probabilities of neighbouring slices of a volume, with Gaussian weights of this
    standard deviation in mm. By default 6 for runs trained with --crop lungs, else 0 (off)."""
    fill_holes: bool = False
    """Fill holes within the lesions of a slice."""
    format: Literal["nifti", "dicom-seg"] = "nifti"
    """File format of the masks; dicom-seg writes a DICOM segmentation for each DICOM series."""
    probabilities: bool = False
    """Also write probability maps and, with --tta, the share of flips that agree."""
    overlay: bool = False
    """Draw the masks' contours on the slices, and a contact sheet of a volume."""
    report: bool = False
    """Write a page to look at every slice with a threshold slider, and an index of all scans."""
    lungs: Path | None = None
    """Lung mask (if there is one scan), or a folder of lung masks with the names of the scans. Each
    label is summarised separately."""
    inside_lungs: bool | None = None
    """Remove predicted pixels outside the hull of the lungs; the default for runs trained with
    --crop lungs."""
    series: tuple[str, ...] = ()
    """SeriesInstanceUIDs to read from DICOM folders with several series."""
    runtime: Runtime = "jax"
    """Library that computes the network. auto: OpenVINO, if installed and if it gives the same
    masks as jax on the middle slices of the first scan."""
    batch_size: Annotated[int | None, Range(1)] = None
    """Slices computed at once; memory grows with it. By default 1 on a CPU, else 4."""

    def completed(self, lungs: bool) -> "PredictOptions":
        """With the defaults that depend on whether the run crops its slices to the lungs."""
        inside = lungs if self.inside_lungs is None else self.inside_lungs
        smooth = 6.0 * lungs if self.smooth_slices is None else self.smooth_slices
        return replace(self, inside_lungs=inside, smooth_slices=smooth)
