"""NIfTI files to and from stacks of slices in display orientation (anterior up).

The only module that imports nibabel.

A file's array is (x, y, z); a stack is (slices, rows, columns), row 0 anterior and column 0 the
patient's right, slices from the feet up.
"""

import gzip
import io
import logging
import math
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Num
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Header, Nifti2Image
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError

from covid_jax.errors import DataError
from covid_jax.files import replacing, require_file
from covid_jax.io.formats import NIFTI, stem_of
from covid_jax.io.geometry import AnyStack, Geometry, Stack, as_displayed, has_directions

_CHUNK = 1 << 20
_DEFLATE_RATIO = 1032  # no gzip file holds more bytes than that many times its own
_MM = {1: 1000.0, 3: 0.001}  # by nifti1.h: metres, micrometres; all else counts as mm
_QUATERNION = ("quatern_b", "quatern_c", "quatern_d")
_LONGEST = 1.001  # that a unit quaternion may be by rounding
_MUTE = logging.Logger("nifti", logging.CRITICAL + 1)  # nibabel logs each field that it mends
_DAMAGED = (
    *(OSError, EOFError, ValueError, TypeError, MemoryError, OverflowError),
    *(zlib.error, HeaderDataError, WrapStructError),
)
# The fields of a header that say how the array lies in space; all others are about its values.
_PLACE = (
    *("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *(*_QUATERNION, "qoffset_x", "qoffset_y", "qoffset_z"),
)


def read_stack(source: Path | Nifti1Image, like: Geometry | None = None) -> tuple[Stack, Geometry]:
    """Reads a NIfTI-1 or NIfTI-2 volume or 2-D image, scl_slope and scl_inter applied.

    Args:
      source: ``.nii`` or ``.nii.gz`` (compression is detected from the first bytes), or an image in
        memory, which is read like the file it would be saved to.
      like: for a mask, its image's geometry (see ``as_displayed``).

    Returns:
      The stack, contiguous, in the file's number type (native byte order) unless scaling made it a
      float, and its geometry.

    Raises:
      DataError: if the file is missing, damaged, not 2-D or 3-D, complex or coloured, empty, with a
        degenerate affine, or a mask that has other axes than ``like`` and is placed elsewhere.
    """
    name = name_of(source)
    try:
        file, most = _open(source)
        with file, np.errstate(all="ignore"):
            header = _parse(file.read(Nifti2Header.sizeof_hdr))
            geometry = _geometry(header, name)
            array = _voxels(file, header, geometry.shape, most)
    except _DAMAGED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        cut = isinstance(error, EOFError | zlib.error)
        advice = "; it may be cut short: download it again" if cut else ""
        raise DataError(f"{name}: not a readable NIfTI file ({reason}){advice}") from error
    return as_displayed(array, geometry, name, like)


def name_of(source: Path | Nifti1Image) -> str:
    """The name of a scan in messages."""
    return str(source) if isinstance(source, Path) else source.get_filename() or "image in memory"


def _open(source: Path | Nifti1Image) -> tuple[io.BufferedIOBase, int]:
    """A stream of the uncompressed bytes of a NIfTI file, and an upper bound of their number."""
    if isinstance(source, Nifti1Image):
        content = source.to_bytes()
        return io.BytesIO(content), len(content)
    require_file(source)
    with source.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    size = source.stat().st_size
    return (gzip.open(source), size * _DEFLATE_RATIO) if packed else (source.open("rb"), size)


def write_stack(
    path: Path, stack: AnyStack, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> None:
    """Writes a stack as a new NIfTI file, oriented so that ``read_stack`` returns it unchanged.

    Args:
      path: as for ``write_like``.
      stack: slices as displayed.
      spacing: between slices, rows and columns, in mm.

    Raises:
      DataError: as ``write_like``.
    """
    dz, dy, dx = spacing
    affine = np.diag([-dx, -dy, dz, 1.0])  # nibabel counts to the right and to the front
    write_like(path, stack, Geometry(affine, stack.shape[::-1], oriented=True))


def write_like(path: Path, stack: AnyStack, geometry: Geometry) -> None:
    """Writes a stack on the voxel grid that an image was read from.

    If the image was a NIfTI file, the new one has its shape, affine, voxel sizes, units,
    orientation codes and NIfTI version, but not its scaling. Booleans are stored as uint8.

    Args:
      path: ending in ``.nii`` or ``.nii.gz``; replaced only once the new file is whole.
      stack: slices as displayed, such as a mask predicted on what ``read_stack`` returned.
      geometry: the image's; of a DICOM series it becomes an oriented file in scanner coordinates.

    Raises:
      DataError: if the name has another ending.
      ValueError: if the stack's shape is not the geometry's.
    """
    if stem_of(path, NIFTI) is None:
        raise DataError(f"{path}: a NIfTI file's name must end in .nii or .nii.gz")
    array = geometry.from_stack(stack.astype(np.uint8) if stack.dtype == bool else stack)
    if array.shape != geometry.shape:
        raise ValueError(f"stack of shape {stack.shape} for an array of shape {geometry.shape}")
    header = _header_of(geometry)
    header.set_data_dtype(array.dtype)
    kind = Nifti2Image if isinstance(header, Nifti2Header) else Nifti1Image
    with replacing(path) as partial:
        kind(array.reshape(header.get_data_shape()), None, header).to_filename(partial)


def _parse(block: bytes) -> Nifti1Header:
    """A header from a file's first bytes; nibabel repairs what it can."""
    if block[4:7] == Nifti2Header.single_magic:
        kind = Nifti2Header
    elif block[344:347] == Nifti1Header.single_magic:
        kind = Nifti1Header
    else:
        raise HeaderDataError("it has not the magic string of a NIfTI-1 or NIfTI-2 file")
    header = kind(block[: kind.sizeof_hdr], check=False)
    header.check_fix(logger=_MUTE)
    quaternion = {field: float(header[field]) for field in _QUATERNION}
    length = math.hypot(*quaternion.values())
    if 1 < length < _LONGEST:  # nibabel refuses what nifti1_io.c sets to unit length
        for field, value in quaternion.items():
            header[field] = value / length
    return header


def _geometry(header: Nifti1Header, name: str) -> Geometry:
    shape = header.get_data_shape()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) != 3 or min(shape) < 1:
        found = header.get_data_shape()
        raise DataError(f"{name}: expected a 2-D or 3-D image with voxels, found shape {found}")
    if (dtype := header.get_data_dtype()).kind not in "uif":
        raise DataError(f"{name}: expected grey values, found voxels of type {dtype}")
    affine = np.array(header.get_best_affine())
    affine[:3] *= _MM.get(int(header["xyzt_units"]) % 8, 1.0)
    if not has_directions(affine):
        raise DataError(f"{name}: its affine gives some axis no direction or size; mend its header")
    oriented = max(int(header["sform_code"]), int(header["qform_code"])) > 0
    return Geometry(affine, shape, oriented, header.binaryblock)


def _voxels(
    file: io.BufferedIOBase, header: Nifti1Header, shape: tuple[int, ...], most: int
) -> Num[np.ndarray, "x y z"]:
    """Reads the array; ``most`` bounds the bytes in the file, before memory is asked for them."""
    dtype = header.get_data_dtype()
    offset = max(header.get_data_offset(), header.single_vox_offset)  # some writers leave it 0
    content = math.prod(shape) * dtype.itemsize
    if offset + content > most:
        raise EOFError(f"its header claims {offset + content} bytes, more than it can hold")
    file.seek(offset)
    raw, filled = np.empty(content, np.uint8), 0
    while filled < content:
        if not (arrived := file.readinto(raw.data[filled : filled + _CHUNK])):
            raise EOFError(f"it ends {content - filled} bytes before its last voxel")
        filled += arrived
    if len(file.read(_CHUNK)) == _CHUNK:  # to the end, where gzip checks its sum
        raise ValueError("its header claims far fewer voxels than it holds")
    array = raw.view(dtype).reshape(shape, order="F").astype(dtype.newbyteorder("="), copy=False)
    return apply_read_scaling(array, *header.get_slope_inter())


def _header_of(geometry: Geometry) -> Nifti1Header:
    """A new header with the geometry (without shear) and nothing else."""
    if geometry.header:
        original = _parse(geometry.header)
        header = type(original)()
        for field in _PLACE:
            header[field] = original[field]
        return header
    header = Nifti1Header()
    header.set_data_shape(geometry.shape)
    affine = geometry.without_shear()  # ITK opens no other
    code = "scanner" if geometry.oriented else "unknown"
    header.set_sform(affine, code)
    header.set_qform(affine, code)
    header.set_xyzt_units("mm")
    return header
