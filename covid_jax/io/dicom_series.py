"""Sorts the slices of a DICOM series by position; uneven series are refused, naming the file."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from covid_jax.errors import DataError

_TILT = 1.0  # degrees; what is less is rounding, and the affine keeps it


@dataclass(frozen=True)
class SeriesSlice:
    """One slice as its DICOM header describes it.

    Attributes:
      path, frame: of its pixels.
      series, description: of its series.
      lacks: name of a missing tag that is needed for its position; empty if there is none.
      size: rows and columns.
      spacing: of rows and columns, in mm.
      orientation: unit vectors along a row and down a column, to the left, the back and up.
      position: of the first pixel, in mm along the same axes.
      thickness: in mm.
      slope, intercept: from stored values to HU.
    """

    path: Path
    frame: int
    series: str
    description: str
    lacks: str
    size: tuple[int, int]
    spacing: tuple[float, ...]
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    thickness: float
    slope: float
    intercept: float

    def __str__(self) -> str:
        return f"{self.path} (frame {self.frame + 1})" if self.frame else str(self.path)


def arrange(slices: list[SeriesSlice]) -> tuple[list[SeriesSlice], Float[np.ndarray, "4 4"]]:
    """Sorts slices along their normal.

    Args:
      slices: of one series, in any order.

    Returns:
      The slices in order, and the affine of an array (column, row, slice), in mm as NIfTI counts.

    Raises:
      DataError: if they differ in size, spacing or orientation, lack a position, share one, miss a
        neighbour or are tilted.
    """
    first = slices[0]
    for ct_slice in slices:
        if ct_slice.lacks and len(slices) > 1:
            raise DataError(f"{ct_slice}: no {ct_slice.lacks}, so its position is unknown")
        for field in ("size", "spacing", "orientation"):
            value, expected = getattr(ct_slice, field), getattr(first, field)
            if not np.allclose(value, expected, rtol=0, atol=1e-3):
                found = f"its {field} is {value}, but {expected} in {first.path.name}"
                raise DataError(f"{ct_slice}: {found}; keep slices of one volume")
    along_row, along_column = np.reshape(first.orientation, (2, 3))
    normal = np.cross(along_row, along_column)
    slices = sorted(slices, key=lambda ct_slice: float(np.dot(ct_slice.position, normal)))
    positions = np.array([ct_slice.position for ct_slice in slices])
    step = _step(slices, positions, normal) if len(slices) > 1 else first.thickness * normal
    dy, dx = first.spacing
    affine = np.eye(4)
    affine[:3] = np.stack([along_row * dx, along_column * dy, step, positions[0]], axis=1)
    return slices, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # DICOM counts left and back


def _step(
    slices: list[SeriesSlice], positions: Float[np.ndarray, "n 3"], normal: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3"]:
    """The vector from one slice to the next, in mm; refuses uneven or tilted series."""
    gaps = np.diff(positions @ normal)
    near, far, usual = int(gaps.argmin()), int(gaps.argmax()), float(np.median(gaps))
    if gaps[near] < 0.01:
        raise DataError(f"{slices[near]}: has the position of {slices[near + 1]}; keep one of them")
    if gaps[far] > 1.5 * usual:
        gap = f"{slices[far + 1]}, {gaps[far]:.2f} mm apart where {usual:.2f} mm is usual"
        raise DataError(f"{slices[far]}: slices are missing before {gap}; copy the series again")
    counts = np.arange(len(slices))[:, None]
    step = (positions[-1] - positions[0]) / counts[-1]
    tilt = np.degrees(np.arccos(min(step @ normal / np.linalg.norm(step), 1.0)))
    if tilt > _TILT:
        found = f"gantry tilt, its series is shifted {tilt:.1f} degrees from the normal"
        raise DataError(f"{slices[0]}: {found}; straighten it (dcm2niix) and give the NIfTI file")
    residual = np.linalg.norm(positions - positions[0] - counts * step, axis=1)
    if residual.max() > 0.1 * usual:
        found = f"is {residual.max():.2f} mm off its series' even spacing of {usual:.2f} mm"
        raise DataError(f"{slices[int(residual.argmax())]}: {found}; keep slices of one volume")
    return step
