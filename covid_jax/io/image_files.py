"""Picture files (PNG, JPEG, TIFF, BMP) to arrays; the only module that opens pictures.

Pictures are read in the orientation of the file's EXIF tag, as viewers show them.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int, Num, Shaped, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from covid_jax.errors import DataError
from covid_jax.files import require_file

Values = Shaped[np.ndarray, "h w"]
Ids = UInt8[np.ndarray, "h w"]
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # whatever the suffix; others may start programs
_DENSEST = 10_000  # most pixels per byte of a file, so that a small one cannot claim a huge picture
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339  # of TIFF
_TYPES = {(2, "L"): np.int8, (1, "I"): np.uint32}  # by sample format and mode


def read_picture(path: Path) -> Num[np.ndarray, "h w"]:
    """Reads a picture as one channel of grey values: 8-bit, or as deep as the file has them.

    Raises:
      DataError: if the file is missing, damaged, or holds several pages.
    """
    return _read(path, _grey_values)


def read_labels(path: Path) -> Values:
    """Reads a mask: the numbers as stored.

    With a palette of greys, the grey values are the class ids (black and white alone are 0 and 1);
    with a coloured palette that begins with black, as in PASCAL VOC, the positions in the palette
    are the class ids.

    Raises:
      DataError: if the file is missing, damaged, has several pages or colours, or has a coloured
        palette that does not begin with black.
    """
    return _read(path, _stored_values)


def _read(path: Path, values: Callable[[Image.Image], Values]) -> Values:
    require_file(path)
    try:
        # By its path Pillow would map a TIFF, and scramble one that its orientation transposes.
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as picture:
            _check(picture, path.stat().st_size)
            array = values(picture)
    except UnidentifiedImageError as error:
        known = ", ".join(_FORMATS)
        raise DataError(f"{path}: not a picture, or of a rare kind; expected {known}") from error
    except Exception as error:  # Pillow raises errors of any kind on damaged files
        raise DataError(f"{path}: not a readable picture ({error})") from error
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _check(picture: Image.Image, size: int) -> None:
    """Refuses, before decoding, files that Pillow would misread."""
    if picture.width * picture.height > _DENSEST * size:
        raise ValueError(f"it claims {picture.width} x {picture.height} pixels")
    if (pages := getattr(picture, "n_frames", 1)) > 1:
        raise ValueError(f"{pages} pages; expected one")
    if ";16" in str(getattr(picture, "tile", "")) and not _is_deep(picture):
        # Pillow would keep the upper 8 bits.
        raise ValueError("16 bits of colour or transparency; save it as 16-bit grey")
    if _is_deep(picture) and getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        raise ValueError("0 means white in this file; save it with 0 for black")


def _is_deep(picture: Image.Image) -> bool:
    return picture.mode.startswith(("I", "F"))


def _upright(picture: Image.Image) -> Image.Image:
    """In EXIF orientation; as stored if the EXIF data is damaged, as viewers show it."""
    picture.load()
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # Pillow raises errors of any kind
        return picture


def _pixels(picture: Image.Image) -> Shaped[np.ndarray, "h w *channels"]:
    """The stored numbers in EXIF orientation."""
    sample = getattr(picture, "tag_v2", {_SAMPLE_FORMAT: (0,)}).get(_SAMPLE_FORMAT, (1,))[0]
    array = np.asarray(_upright(picture))
    return array.view(_TYPES.get((sample, picture.mode), array.dtype))


def _grey_values(picture: Image.Image) -> Num[np.ndarray, "h w"]:
    if picture.mode == "L" or _is_deep(picture):
        return _pixels(picture)
    return np.asarray(_upright(picture).convert("L"))


def _stored_values(picture: Image.Image) -> Values:
    array = _pixels(picture)
    if picture.mode == "P":
        return _palette_values(array, np.reshape(picture.getpalette() or (), (-1, 3)))
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
    return array[..., 0]


def _palette_values(positions: Ids, palette: Int[np.ndarray, "k 3"]) -> Ids:
    """Class ids of a palette picture: grey levels, or positions where the palette has colours."""
    if (palette == palette[:, :1]).all():
        greys = palette[positions, 0].astype(np.uint8)
        two_levels = np.isin(greys, (0, 255)).all() and (greys != positions).any()
        return (greys // 255).astype(np.uint8) if two_levels else greys
    if palette[0].any():
        raise ValueError("its palette begins with a colour; save it with one class id a pixel")
    return positions
