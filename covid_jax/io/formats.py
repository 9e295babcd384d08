"""The format of a path: a volume, a picture, or DICOM (one file, or the folder of a series).

The suffix (upper or lower case) decides; DICOM files often have none and are recognised by their
first bytes.
"""

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from covid_jax.errors import DataError
from covid_jax.io.itk_image import read_itk_header

Format = Literal["nifti", "itk", "picture", "dicom"]
NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".mha", ".mhd")
VOLUMES = (*NIFTI, *ITK)
JPEG = (".jpg", ".jpeg")
LOSSLESS = (".png", ".tif", ".tiff", ".bmp")  # pictures that keep a mask's values
PICTURES = (*LOSSLESS, *JPEG)
DICOM = (".dcm",)
SUFFIXES: dict[Format, tuple] = {"nifti": NIFTI, "itk": ITK, "picture": PICTURES, "dicom": DICOM}

# The first element of a DICOM data set without preamble: of the groups 0002 or 0008 in either byte
# order, then the two letters of its type, or the length of a short one.
_BARE = re.compile(
    rb"([\x02\x08]\0.\0|\0[\x02\x08]\0.)(AE|CS|DA|LO|OB|SH|TM|UI|UL)"
    rb"|\x08\0[\0-\x30]\0[\0-\x40]\0\0\0",
    re.DOTALL,
)


def stem_of(path: Path, suffixes: Iterable[str]) -> str | None:
    """The file name without its suffix; None if it has none of these."""
    for suffix in suffixes:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return None


def format_of(path: Path) -> Format | None:
    """The format of a path; None for a file of no known format.

    A folder is a DICOM series whatever its name. A missing file also has the format of its suffix;
    the reader then raises the error.

    Raises:
      OSError: if a file without a known suffix cannot be opened.
    """
    if path.is_dir():
        return "dicom"
    for kind, suffixes in SUFFIXES.items():
        if stem_of(path, suffixes) is not None:
            return kind
    return "dicom" if is_dicom(path) else None


def files_of(path: Path) -> list[Path]:
    """All files of a scan: a folder's visible ones; a file, and the one an ITK header points to."""
    if path.is_dir():
        return sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith("."))
    found = [path]
    if path.is_file() and stem_of(path, ITK) is not None:
        with contextlib.suppress(DataError):  # its reader says more
            found.append(read_itk_header(path).file)
    return [*filter(Path.is_file, dict.fromkeys(found))]  # never a pipe, which would be waited for


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
