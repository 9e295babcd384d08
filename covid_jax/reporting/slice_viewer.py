"""One slice as the report shows it: shrunk to display size and packed small."""

import base64
import io
import math
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num, UInt8
from PIL import Image

from covid_jax.reporting.drawing import to_grey
from covid_jax.transforms.preprocessing import resize, resize_mask

DISPLAY_SIZE = 256  # pixels along the longer side
# Noise is what fills a CT picture's file: 500 lossless ones would alone make 37 MB.
_JPEG_QUALITY = 90
RESIZING = (
    f"Slices are shown with at most {DISPLAY_SIZE} pixels along a side: image and probability "
    "shrunk linearly with antialiasing, truth by nearest neighbour, probabilities rounded to 1/255."
)

Value = float | int | None


class SlicePage(NamedTuple):
    """One scored slice.

    Attributes:
      id: of the slice, unique in its dataset.
      source: the file or scan it is from.
      patient: None where unknown.
      grid: rows and columns of its own grid.
      image: grey, at display size.
      truth: 0 or 1, at display size.
      probability: round(255 p), at display size.
      values: what its row of the table shows, computed on its own grid; ``dice`` among them. None
        or NaN: undefined.
      note: what sets it apart, such as a near-duplicate in the training part.
    """

    id: str
    source: str
    patient: str | None
    grid: tuple[int, int]
    image: UInt8[np.ndarray, "h w"]
    truth: UInt8[np.ndarray, "h w"]
    probability: UInt8[np.ndarray, "h w"]
    values: Mapping[str, Value]
    note: str = ""


def slice_page(
    id: str,
    source: str,
    patient: str | None,
    image: Num[np.ndarray, "h w"],
    truth: Num[np.ndarray, "h w"],
    probability: Float[np.ndarray, "h w"],
    values: Mapping[str, Value],
    note: str = "",
) -> SlicePage:
    """Shrinks a slice for the report, as ``RESIZING`` says; small ones keep their size.

    Args:
      id: unique in its dataset.
      source: the file or scan it is from.
      patient: None where unknown.
      image: intensities on the slice's own grid, as ``to_grey`` takes them.
      truth: class ids; all but 0 are lesion.
      probability: of a lesion, in [0, 1].
      values: what its row of the table shows.
      note: what sets it apart.

    Raises:
      ValueError: if the shapes differ.
    """
    if not image.shape == truth.shape == probability.shape:
        raise ValueError(
            f"image {image.shape}, truth {truth.shape} and probability {probability.shape} differ"
        )
    height, width = image.shape
    shrink = min(1.0, DISPLAY_SIZE / max(height, width))
    size = max(1, round(shrink * height)), max(1, round(shrink * width))
    return SlicePage(
        *(id, source, patient, (height, width)),
        np.rint(resize(to_grey(image), *size)).astype(np.uint8),
        resize_mask((truth > 0).astype(np.uint8), *size),
        np.rint(255 * np.clip(resize(probability, *size), 0, 1)).astype(np.uint8),
        *(values, note),
    )


def packed(page: SlicePage) -> str:
    """The pixels as the page decodes them: two base64 texts with a comma between.

    The first is the image as JPEG, to be looked at only. The second is exact: deflated bytes, the
    probabilities' differences down the columns, then along the rows (modulo 256, smooth maps become
    small numbers), then the truth in bits. The page inflates it itself, as browsers may falsify
    pixels that are read back from a canvas.
    """
    picture = io.BytesIO()
    Image.fromarray(page.image).save(picture, "JPEG", quality=_JPEG_QUALITY)
    zero = np.uint8(0)
    steps = np.diff(np.diff(page.probability, axis=0, prepend=zero), axis=1, prepend=zero)
    maps = zlib.compress(steps.tobytes() + np.packbits(page.truth).tobytes())
    return f"{_base64(picture.getvalue())},{_base64(maps)}"


def plain_value(value: Value) -> Value:
    """As JSON can hold it: neither NaN, nor infinity, nor NumPy's numbers."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if isinstance(value, int | np.integer) else float(value)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
