"""From a slice on its own grid to what the network sees, and back."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float32, Num
from PIL import Image


def to_network(
    images: Iterable[Num[np.ndarray, "h w"]], size: int
) -> Float32[np.ndarray, "n s s 1"]:
    """Resizes each slice to (size, size) and z-scores it: the network's input.

    Training, evaluation and prediction all come through here.
    """
    return np.stack([standardize(resize(image, size, size)) for image in images])[..., None]


def standardize(image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Subtracts the slice's mean and divides by its standard deviation.

    A constant slice (its spread at the level of rounding) gives zeros.
    """
    centred = image - image.mean(dtype=np.float64)
    spread = centred.std()
    if spread <= 1e-5 * np.abs(image).max():
        return np.zeros_like(image)
    return (centred / spread).astype(np.float32)


def resize(
    image: Num[np.ndarray, "h w"], height: int, width: int
) -> Float32[np.ndarray, "{height} {width}"]:
    """Linear resize, antialiased where it shrinks, pixel centres aligned.

    The arithmetic of ``jax.image.resize(..., "linear")``, without a compilation for each size.
    """
    picture = Image.fromarray(np.ascontiguousarray(image, np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def resize_mask(mask: Bool[np.ndarray, "h w"], size: int) -> Bool[np.ndarray, "s s"]:
    """Nearest-neighbour resize to (size, size): labels are never mixed."""
    # Whole numbers: in floating point, ties between two pixels fall to either side.
    rows, columns = (((2 * np.arange(size) + 1) * side) // (2 * size) for side in mask.shape)
    return mask[np.ix_(rows, columns)]
