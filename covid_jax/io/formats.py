"""What a path is, decided once: a NIfTI file, a picture, or DICOM (one file, or a series' folder).

Names decide, whatever their case; DICOM files often have none that tells, so their first bytes do.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from covid_jax.errors import DataError

Format = Literal["nifti", "picture", "dicom"]
NIFTI = (".nii.gz", ".nii")
JPEG = (".jpg", ".jpeg")
LOSSLESS = (".png", ".tif", ".tiff", ".bmp")  # pictures that keep a mask's values
PICTURES = (*LOSSLESS, *JPEG)
DICOM = (".dcm",)
SUFFIXES: dict[Format, tuple[str, ...]] = {"nifti": NIFTI, "picture": PICTURES, "dicom": DICOM}

# The first element of a DICOM data set without preamble: of the groups 0002 or 0008 in either byte
# order, then the two letters of its type, or the length of a short one.
_BARE = re.compile(
    rb"([\x02\x08]\0.\0|\0[\x02\x08]\0.)(AE|CS|DA|LO|OB|SH|TM|UI|UL)"
    rb"|\x08\0[\0-\x30]\0[\0-\x40]\0\0\0",
    re.DOTALL,
)


def stem_of(path: Path, suffixes: Iterable[str]) -> str | None:
    """The name without whichever of the suffixes it has, None where it has none."""
    for suffix in suffixes:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return None


def format_of(path: Path) -> Format | None:
    """How a path is to be read; None for a file of no known format.

    A folder is a DICOM series whatever its name. A file that is not there has the format that its
    name says: its reader refuses it.

    Raises:
      OSError: if a file whose name says nothing cannot be opened.
    """
    if path.is_dir():
        return "dicom"
    for kind, suffixes in SUFFIXES.items():
        if stem_of(path, suffixes) is not None:
            return kind
    return "dicom" if is_dicom(path) else None


def is_dicom(path: Path) -> bool:
    """Whether a file's first bytes are those of DICOM, with or without the 128-byte preamble.

    Raises:
      OSError: if it cannot be opened.
    """
    if path.name.upper() == "DICOMDIR" or not path.is_file():  # a CD's table of contents
        return False
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or _BARE.match(start) is not None


def require_file(path: Path) -> None:
    """Refuses what is not a file: to open a named pipe or a device could wait for ever.

    Raises:
      DataError: saying what the path is instead.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise DataError(f"{path}: a folder, not a file")
    if path.exists():
        raise DataError(f"{path}: a named pipe or a device; expected a file")
    raise DataError(f"{path}: no such file, or a link to nothing")
