"""A slice in the report: its pixels at display size, compressed."""

import base64
import io
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import Num, UInt8

from covid_jax.reporting.drawing import Image, Map, Window, to_grey
from covid_jax.transforms.preprocessing import resize, resize_mask

DISPLAY_SIZE = 256  # pixels along the longer side
Display = UInt8[np.ndarray, "_ _"]  # at display size


class SlicePage(NamedTuple):
    """One scored slice.

    Attributes:
      id: unique in the dataset.
      source: file or scan of the slice.
      patient: None where unknown.
      grid: rows and columns of the slice's own grid.
      image, truth, probability: as ``display_arrays`` returns them.
      values: cells of the slice's table row, computed on its own grid, with ``dice``; None or NaN
        where undefined.
      note: a remark, such as its near-duplicate in the training part.
    """

    id: str
    source: str
    patient: str | None
    grid: tuple[int, int]
    image: Display
    truth: Display
    probability: Display
    values: Mapping[str, float | int | None]
    note: str = ""


def display_arrays(
    image: Image, truth: Num[np.ndarray, "h w"], probability: Map, window: Window | None = None
) -> tuple[Display, Display, Display]:
    """Shrinks the arrays of a slice to display size as the page states; never enlarges them.

    Args:
      image: raw intensities.
      truth: class ids.
      probability: of a lesion, in [0, 1].
      window: as in ``to_grey``.

    Returns:
      Grey values, truth as 0 or 1, and round(255 p).

    Raises:
      ValueError: if the shapes differ.
    """
    if not image.shape == truth.shape == probability.shape:
        shapes = f"truth {truth.shape} and probability {probability.shape}"
        raise ValueError(f"image {image.shape}, {shapes} differ")
    height, width = image.shape
    shrink = min(1.0, DISPLAY_SIZE / max(height, width))
    size = max(1, round(shrink * height)), max(1, round(shrink * width))
    return (
        np.rint(resize(to_grey(image, window), *size)).astype(np.uint8),
        resize_mask((truth > 0).astype(np.uint8), *size),
        np.rint(255 * np.clip(resize(probability, *size), 0, 1)).astype(np.uint8),
    )


def packed(page: SlicePage) -> str:
    """The pixels in the encoding of the page: two base64 strings separated by a comma.

    The first is the image as JPEG, for display only. The second is exact: the deflated bytes of the
    probabilities' differences down the columns, then along the rows (modulo 256, so that smooth
    maps become small numbers), followed by the truth in bits. The page inflates it itself, because
    browsers may alter pixels that are read back from a canvas.
    """
    picture = io.BytesIO()
    # CT noise does not compress losslessly: 500 lossless slices would take 37 MB.
    PIL.Image.fromarray(page.image).save(picture, "JPEG", quality=90)
    zero = np.uint8(0)
    steps = np.diff(np.diff(page.probability, axis=0, prepend=zero), axis=1, prepend=zero)
    maps = zlib.compress(steps.tobytes() + np.packbits(page.truth).tobytes())
    return ",".join(base64.b64encode(part).decode() for part in (picture.getvalue(), maps))
