"""NRRD and MetaImage (MHA, MHD) volumes; the only module that imports SimpleITK.

The header is also read here, since ITK does not check what it says: ITK makes other voxels of
damaged compressed ones without an error, and reads whatever file a header names.
"""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from covid_jax.errors import DataError, need
from covid_jax.files import reading, require_file
from covid_jax.io.geometry import Geometry, Stack, as_displayed

_TO_NIFTI = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK counts to the left and to the back
_LINES, _LONGEST = 1000, 100_000  # of a header; bytes of a line
_EITHER = 47  # for zlib: its own format or gzip's


def read_itk(path: Path, like: Geometry | None = None) -> tuple[Stack, Geometry]:
    """Reads a volume; argument and result are those of ``nifti.read_stack``.

    Raises:
      DataError: if SimpleITK is not installed, or the file is missing, damaged, coloured or not
        3-D, has its voxels in another folder, or is a mask that has other axes than ``like`` and
        is placed elsewhere.
    """
    sitk = need("SimpleITK", f"{path}: this format", "itk", DataError)
    require_file(path)
    with reading(path):
        header = read_itk_header(path)
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].rpartition("): ")[2]
        raise DataError(f"{path}: not a readable NRRD or MetaImage file ({reason})") from error
    axes, voxels = image.GetDimension(), image.GetPixelIDTypeAsString()
    if axes != 3 or voxels.startswith(("vector", "complex")):
        raise DataError(f"{path}: expected 3-D grey values, found {axes}-D, each voxel a {voxels}")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = sitk.GetArrayFromImage(image)
    with reading(path):
        _check_voxels(path, header, voxels)
    array = voxels.transpose(2, 1, 0)
    geometry = Geometry(_TO_NIFTI @ affine, array.shape, oriented=True)
    return as_displayed(array, geometry, str(path), like)


class ItkHeader(NamedTuple):
    """What a header says of the voxels.

    Attributes:
      file: that has them: its own, or one next to it.
      start: of them, in bytes.
      compressed: by zlib or gzip, from ``start`` to the end.
    """

    file: Path
    start: int
    compressed: bool


def read_itk_header(path: Path) -> ItkHeader:
    """Reads the header of an NRRD, MHA or MHD file; what is none has no voxels elsewhere.

    Raises:
      DataError: if the voxels are not in its own folder.
      OSError: if it cannot be read.
    """
    separator = b":" if path.name.lower().endswith(".nrrd") else b"="
    fields: dict[bytes, bytes] = {}
    with path.open("rb") as file:
        for line in (file.readline(_LONGEST) for _ in range(_LINES)):
            name, _, value = (part.strip() for part in line.partition(separator))
            fields[name.lower()] = value
            if name in (b"", b"ElementDataFile"):  # the last line of either kind
                break
        start = file.tell()
    names = (fields.get(name, b"") for name in (b"elementdatafile", b"data file", b"datafile"))
    named = next(filter(None, names), b"LOCAL").decode("utf-8", "surrogateescape")
    data = path if named.upper() == "LOCAL" else path.parent / named
    if data.parent != path.parent or "%" in named or named.upper().startswith("LIST"):
        raise DataError(f"{path}: its voxels are in {named}; expected one file in its own folder")
    skips = {b"byte skip", b"line skip", b"byteskip", b"lineskip", b"headersize"} & fields.keys()
    packed = b"gz" in fields.get(b"encoding", b"") or fields.get(b"compresseddata") == b"True"
    return ItkHeader(data, start if data == path else 0, packed and not skips)


def _check_voxels(path: Path, header: ItkHeader, voxels: np.ndarray) -> None:
    """Refuses voxels that are not those that were compressed.

    Raises:
      DataError: if the compressed data is damaged, or was read otherwise than it is stored.
      OSError: if it cannot be read.
    """
    if not header.compressed:
        return
    with header.file.open("rb") as file:
        file.seek(header.start)
        packed = file.read()
    unpacking = zlib.decompressobj(_EITHER)
    try:
        stored = np.frombuffer(unpacking.decompress(packed, voxels.nbytes + 1), np.uint8)
    except zlib.error:  # its checksum, too
        stored = np.zeros(0, np.uint8)
    orders = (one.reshape(-1).view(np.uint8) for one in (voxels, voxels.byteswap()))
    if not (unpacking.eof and any(np.array_equal(stored, one) for one in orders)):
        raise DataError(f"{path}: its compressed voxels are damaged; copy or download it again")
