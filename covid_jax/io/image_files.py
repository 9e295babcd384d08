"""Picture files (PNG, JPEG, TIFF) to arrays. Only this file opens pictures."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Num
from PIL import Image

from covid_jax.errors import DataError
from covid_jax.io.quiet import suppress_warnings

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # whatever the name ends in; others may start programs
_DENSEST = (
    10_000  # pixels a byte: no slice shrinks as much, so a small file cannot claim a huge one
)
_UNREADABLE = (  # what Pillow's readers raise on damaged files
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    struct.error,
    Image.DecompressionBombError,
)


def read_picture(path: Path) -> Num[np.ndarray, "h w"]:
    """Reads a picture as one channel of grey values: 8-bit, or as deep as the file has them.

    Raises:
      DataError: if the file is missing, damaged, or holds several pages.
    """
    return _read(path, _grey_values)


def read_labels(path: Path) -> Num[np.ndarray, "h w"]:
    """Reads a mask: the numbers as stored, in a palette picture the positions in its palette.

    Raises:
      DataError: if the file is missing, damaged, holds several pages, or is coloured: a colour is
        no class id.
    """
    return _read(path, _stored_values)


def _read(
    path: Path, values: Callable[[Image.Image], Num[np.ndarray, "h w"]]
) -> Num[np.ndarray, "h w"]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with suppress_warnings("PIL"), Image.open(path, formats=_FORMATS) as picture:
            if picture.width * picture.height > _DENSEST * path.stat().st_size:
                raise ValueError(f"it claims {picture.width} x {picture.height} pixels")
            if (pages := getattr(picture, "n_frames", 1)) > 1:
                raise ValueError(f"{pages} pages; expected one")
            array = values(picture)
    except _UNREADABLE as error:
        raise DataError(f"{path}: not a readable picture ({error})") from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _grey_values(picture: Image.Image) -> Num[np.ndarray, "h w"]:
    deep = picture.mode.startswith(("I", "F"))
    return np.asarray(picture if deep else picture.convert("L"))


def _stored_values(picture: Image.Image) -> Num[np.ndarray, "h w"]:
    array = np.asarray(picture)
    if array.ndim == 2:
        return array.astype(np.uint8) if array.dtype == bool else array
    if picture.mode not in ("LA", "RGB", "RGBA"):
        raise ValueError(f"a mask of mode {picture.mode}; save it with one class id a pixel")
    if picture.mode.endswith("A"):
        array, opacity = array[..., :-1], array[..., -1]
        if (opacity < 255).any():
            raise ValueError("a transparent mask; save it with one class id a pixel")
    if (array != array[..., :1]).any():
        raise ValueError("a coloured mask; save it with one class id a pixel")
    return np.ascontiguousarray(array[..., 0])
