"""What a prediction is asked for besides the mask."""

import math
from dataclasses import dataclass
from pathlib import Path

from covid_jax.errors import ConfigError


@dataclass(frozen=True)
class PredictOptions:
    """How masks are made of probabilities, and what is written beside them."""

    threshold: float = 0.5
    """Above which a probability is lesion; of several classes the most probable one is taken."""
    tta: bool = False
    """Average over flips (left-right, up-down, both): four times the work."""
    min_area: float = 0.0
    """Smaller lesions of a slice are dropped: mm2 where the spacing is known, else pixels."""
    fill_holes: bool = False
    """Fill holes within the lesions of a slice."""
    probabilities: bool = False
    """Write probabilities too, and with --tta how many of the flips agree."""
    overlay: bool = False
    """Draw the masks' contours on the slices, and a contact sheet of a volume."""
    lungs: Path | None = None
    """Lung mask of the one scan, or a folder of them, named as the scans are."""
    series: tuple[str, ...] = ()
    """SeriesInstanceUIDs to take from DICOM folders that hold several."""
    batch_size: int = 4
    """Slices computed at once; memory grows with it."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ConfigError(f"--threshold {self.threshold}: expected a value in (0, 1)")
        if not 0 <= self.min_area < math.inf:
            raise ConfigError(f"--min-area {self.min_area}: expected 0 or more")
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size {self.batch_size}: expected at least 1")
