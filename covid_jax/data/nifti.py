"""NIfTI files to and from stacks of slices as a radiologist sees them. Only it knows nibabel.

A file's array is (x, y, z); a stack is (slices, rows, columns), row 0 anterior and column 0 the
patient's right, slices from the feet up.
"""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Num
from nibabel.filebasedimages import ImageFileError
from nibabel.loadsave import load, save
from nibabel.nifti1 import Nifti1Image
from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from covid_jax.errors import DataError

_RADIOLOGICAL = axcodes2ornt(("L", "P", "S"))
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    MemoryError,
    OverflowError,
    zlib.error,
    ImageFileError,
    HeaderDataError,
    WrapStructError,
)


@dataclass(frozen=True)
class Geometry:
    """How a file's (x, y, z) array lies in space.

    Attributes:
      affine: (4, 4), voxel indices to mm (nibabel's convention).
      shape: of the file's array, (x, y, z).
      oriented: whether the file says so itself (its sform or qform code is positive). Where it
        does not, a stored slice's transpose is the picture.
      spacing: of the stack (between slices, rows, columns), in mm as the file claims.
    """

    affine: np.ndarray
    shape: tuple[int, ...]
    oriented: bool
    spacing: tuple[float, float, float]

    def to_stack(self, array: Num[np.ndarray, "x y z"]) -> Num[np.ndarray, "n h w"]:
        """Turns and transposes the file's array into slices as displayed."""
        if self.oriented:
            array = apply_orientation(array, self._turn())
        return array.transpose(2, 1, 0)

    def grid(self) -> np.ndarray:
        """The affine the array has once turned: equal for files whose stacks cover each other."""
        return self.affine @ inv_ornt_aff(self._turn(), self.shape)

    def directions(self) -> str:
        """Where the file's axes run, such as ``L-P-S``."""
        return "-".join(map(str, aff2axcodes(self.affine)))

    def _turn(self) -> np.ndarray:
        return ornt_transform(io_orientation(self.affine), _RADIOLOGICAL)


def read_stack(
    path: Path, like: Geometry | None = None
) -> tuple[Num[np.ndarray, "n h w"], Geometry]:
    """Reads a NIfTI volume or 2-D image, scl_slope and scl_inter applied.

    Args:
      path: ``.nii`` or ``.nii.gz``.
      like: for a mask, its image's geometry: many masks are saved without one of their own.

    Returns:
      The stack, contiguous, in the file's own number type unless scaling made it a float, and its
      geometry.

    Raises:
      DataError: if the file is missing, damaged, not 2-D or 3-D, complex or coloured, empty,
        oriented by an affine without directions, or lying elsewhere than ``like``.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        image = load(path)
        if not isinstance(image, Nifti1Image):  # NIfTI-2 is a kind of it
            raise ImageFileError(f"it is a {type(image).__name__}")
        shape, affine = image.shape, np.asarray(image.affine)
        codes = int(image.header["sform_code"]), int(image.header["qform_code"])
        zooms = tuple(float(z) for z in image.header.get_zooms()[:3])
        array = np.asanyarray(image.dataobj)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: not a readable NIfTI file ({reason}); it may be cut short: download it again"
        ) from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim == 2:
        array, zooms = array[:, :, None], (*zooms[:2], 1.0)
    if array.ndim != 3 or array.size == 0:
        raise DataError(f"{path}: expected a 2-D or 3-D image with voxels, found shape {shape}")
    if array.dtype.kind not in "uif":
        raise DataError(f"{path}: expected grey values, found voxels of type {array.dtype}")

    oriented = max(codes) > 0
    if oriented and not _has_directions(affine):
        raise DataError(f"{path}: its affine gives no direction to some axis; mend its header")
    geometry = Geometry(affine, array.shape, oriented, _stack_spacing(affine, oriented, zooms))
    if like is not None:
        geometry = _beside(geometry, like, path)
    return np.ascontiguousarray(geometry.to_stack(array)), geometry


def write_stack(
    path: Path,
    stack: Num[np.ndarray, "n h w"],
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> None:
    """Writes a stack as a new NIfTI file, oriented so that ``read_stack`` returns it unchanged.

    Args:
      path: ending in ``.nii`` or ``.nii.gz``; replaced only once the new file is whole.
      stack: slices as displayed.
      spacing: between slices, rows and columns, in mm.
    """
    dz, dy, dx = spacing
    affine = np.diag(
        [-dx, -dy, dz, 1.0]
    )  # x to the left, y to the back: nibabel counts right, front
    image = Nifti1Image(stack.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("mm")
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    save(image, partial)
    partial.replace(path)


def _beside(mask: Geometry, image: Geometry, path: Path) -> Geometry:
    """A mask's geometry: its image's, unless it is turned another way and says truly how."""
    if not (mask.oriented and image.oriented) or mask.directions() == image.directions():
        return image
    if np.allclose(mask.grid(), image.grid(), atol=0.1 * min(image.spacing)):
        return mask
    raise DataError(
        f"{path}: by its affine it lies elsewhere than its image (axes {mask.directions()} against "
        f"{image.directions()}); save both with one affine"
    )


def _has_directions(affine: np.ndarray) -> bool:
    return bool(np.isfinite(affine).all() and np.isfinite(io_orientation(affine)).all())


def _stack_spacing(
    affine: np.ndarray, oriented: bool, zooms: tuple[float, ...]
) -> tuple[float, float, float]:
    axes = [0, 1, 2]
    if oriented:
        stored = io_orientation(affine)[:, 0]
        axes = [int(np.flatnonzero(stored == axis)[0]) for axis in range(3)]
    dx, dy, dz = (zooms[axis] for axis in axes)
    return dz, dy, dx
