"""Reads any scan by its path, and the mask of a scan.

A scan is slices as displayed, with a geometry, or a 2-D image without one. Masks are checked
against their scan here and nowhere else.
"""

import contextlib
import logging
import threading
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from covid_jax.errors import DataError
from covid_jax.files import reading, require_file
from covid_jax.io.dicom import read_series
from covid_jax.io.formats import format_of
from covid_jax.io.geometry import Geometry, Stack, offset_mm
from covid_jax.io.image_files import read_labels, read_picture
from covid_jax.io.itk_image import read_itk
from covid_jax.io.nifti import Nifti1Image, name_of, read_stack

Scan = tuple[Stack, Geometry | None]
Noted = tuple[Stack, tuple[str, ...]]  # with warnings
_ROUNDING = 0.01  # half a step of 8 bits that hold 0 to 5 through a scale factor
_NARROWEST = 8  # no slice of a chest is as many times longer than it is wide
_silence = contextlib.ExitStack()
_readers, _counting = 0, threading.Lock()


def read_scan(source: Path | Nifti1Image, series: Collection[str] = ()) -> Scan:
    """Reads a complete scan and checks its values.

    Args:
      source: a NIfTI, NRRD or MetaImage file, a picture, a DICOM file or the folder of a DICOM
        series; or a nibabel image in memory, which is read like the file it would be saved to.
      series: SeriesInstanceUIDs, one of which is taken where a folder holds several.

    Returns:
      Raw intensities, slices as displayed, of at most 32 bits; and their geometry, None for a
      picture.

    Raises:
      DataError: if it is unreadable, has values that are NaN or infinite in float32, or has no
        axial slices (for example a single coronal slice).
    """
    with suppress_warnings():
        stack, geometry = _read(source, series)
    if stack.dtype.itemsize > 4:
        whole = stack.dtype.kind in "ui" and stack.min() >= -(2**31) and stack.max() < 2**31
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite to the network
            stack = stack.astype(np.int32 if whole else np.float32)
    name = name_of(source)
    if stack.dtype.kind == "f" and (bad := sum(np.count_nonzero(~np.isfinite(s)) for s in stack)):
        raise DataError(f"{name}: {bad} pixels are NaN or infinite; mend or remove the file")
    sides = np.multiply(stack.shape[1:], geometry.spacing[1:] if geometry else 1)
    if sides.max() > _NARROWEST * sides.min():
        rows, columns = stack.shape[1:]
        found = f"{len(stack)} axial slices of {rows} x {columns} pixels by its orientation"
        guess = "is it a coronal or sagittal picture, or its affine wrong?"
        raise DataError(f"{name}: {found}, expected slices of a chest; {guess}")
    return stack, geometry


def _read(source: Path | Nifti1Image, series: Collection[str]) -> Scan:
    if not isinstance(source, Path) or (kind := _format(source)) == "nifti":
        return read_stack(source)
    if kind == "itk":
        return read_itk(source)
    return (read_picture(source)[None], None) if kind == "picture" else read_series(source, series)


def read_mask(path: Path, image: Path, shape: tuple[int, ...], geometry: Geometry | None) -> Noted:
    """Reads the mask of a scan and checks that it fits the scan.

    Values within 0.01 of a whole number are rounded: a header's scale factor makes them inexact.
    Arguments, result and errors are those of ``read_map``.
    """
    mask, notes = read_map(path, image, shape, geometry)
    return near_whole(mask), notes


def read_map(path: Path, image: Path, shape: tuple[int, ...], geometry: Geometry | None) -> Noted:
    """Reads values that a file has for each pixel of a scan, and checks that it fits the scan.

    Args:
      path: a volume or a picture.
      image: the scan's path, for messages.
      shape: of the scan: slices, rows, columns.
      geometry: the scan's, as ``read_scan`` returned both.

    Returns:
      The values, and warnings: that the headers place a NIfTI mask more than half a voxel from its
      scan (its origin was lost, or it belongs to another scan).

    Raises:
      DataError: if it is unreadable; if it has another shape than its scan; if it has other axes
        and its affine places it elsewhere; or if only one of the two has a geometry, and that one
        turns the stored slices.
    """
    with suppress_warnings():
        if _format(path) == "picture":
            mask, own = read_labels(path)[None], None
        else:
            read = read_itk if _format(path) == "itk" else read_stack
            mask, own = read(path, like=geometry)
    if mask.shape != shape:
        found = f"{mask.shape} (slices, rows, columns)"
        raise DataError(f"{path}: its shape {found} differs from its scan's, {shape} of {image}")
    lone = own if geometry is None else geometry if own is None else None
    if lone is not None and lone.turned:
        has, lacks = (path, image) if own is not None else (image, path)
        turned = f"{has} is turned to be displayed (axes {lone.directions()})"
        other = f"{lacks}, a 2-D image without a geometry, is not"
        raise DataError(f"{path}: {turned} and {other}; save both as pictures or both as NIfTI")
    apart = offset_mm(own, geometry) if own is not None and geometry is not None else 0.0
    note = f"by its header it is {apart:.3g} mm away from its scan; is it this scan's mask?"
    return mask, (note,) * bool(apart)


def _format(path: Path) -> str:
    with reading(path):
        if kind := format_of(path):
            return kind
    require_file(path)
    raise DataError(f"{path}: no volume, DICOM file or picture, by its name and its first bytes")


def near_whole(mask: Stack) -> Stack:
    """The values, those within 0.01 of a whole number rounded."""
    if mask.dtype.kind != "f":
        return mask
    with np.errstate(invalid="ignore"):
        whole = np.rint(mask)
        return np.where(np.abs(mask - whole) <= _ROUNDING, whole, mask)


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """Silences the warnings of Pillow, pydicom and highdicom, which may quote a patient's name.

    Serious faults raise an error.

    Filters and log levels are global to the process: of the readers in several threads, the first
    sets them and the last restores them.
    """
    global _readers
    with _counting:
        _readers += 1
        if _readers == 1:
            _silence.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"(pydicom|highdicom|PIL)\.")
            log = logging.getLogger("pydicom")
            _silence.callback(log.setLevel, log.level)
            log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        with _counting:
            _readers -= 1
            if not _readers:
                _silence.close()
