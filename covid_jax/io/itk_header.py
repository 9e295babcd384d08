"""Headers of NRRD and MetaImage files: where the voxels are, and whether they are whole.

ITK verifies neither: from damaged compressed voxels it makes others without an error, and reads
whatever file a header names.
"""

import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from covid_jax.errors import DataError

_LINES, _LONGEST = 1000, 100_000  # of a header; bytes of a line
_EITHER = 47  # for zlib: its own format or gzip's


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
    if data.parent != path.parent:
        raise DataError(f"{path}: its voxels are in {named}; expected one file in its own folder")
    skips = {b"byte skip", b"line skip", b"byteskip", b"lineskip", b"headersize"} & fields.keys()
    packed = b"gz" in fields.get(b"encoding", b"") or fields.get(b"compresseddata") == b"True"
    return ItkHeader(data, start if data == path else 0, packed and not skips)


def check_voxels(path: Path, header: ItkHeader, voxels: np.ndarray) -> None:
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
    orders = (voxels, voxels.byteswap())
    if not any(np.array_equal(stored, one.reshape(-1).view(np.uint8)) for one in orders) or (
        not unpacking.eof
    ):
        raise DataError(f"{path}: its compressed voxels are damaged; copy or download it again")
