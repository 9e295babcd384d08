"""From a slice on its own grid to what the network sees, and back.

Resizing happens once, on the host; its result is kept as 16-bit codes, ``value = low + step *
code``, which lose nothing that matters (1/65535 of the slice's range). Normalising happens inside
the jitted step. Training, evaluation and prediction all come through here.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Num, Shaped, UInt16
from PIL import Image

from covid_jax.runs.config import DataConfig

_CODES = 65535


class QuantizedSlices(NamedTuple):
    """Slices at the network's size, raw intensities as codes.

    Attributes:
      codes: whole numbers from 0 to 65535.
      low: the intensity of code 0 in each slice.
      step: between one code and the next.
    """

    codes: UInt16[np.ndarray, "n s s"]
    low: Float32[np.ndarray, " n"]
    step: Float32[np.ndarray, " n"]


@dataclass(frozen=True)
class Normalization:
    """What makes network inputs of raw intensities.

    Attributes:
      mean, std: subtracted, and divided by; None: each slice's own (z-score per slice).
      clip: whether values outside one ``std`` of ``mean`` are cut off (a window: [-1, 1]).
    """

    mean: float | None = None
    std: float | None = None
    clip: bool = False

    def record(self) -> dict[str, Any]:
        """As JSON can hold it; ``Normalization(**record)`` reads it."""
        return dataclasses.asdict(self)


def choose_normalization(
    config: DataConfig, slices: QuantizedSlices, train: Sequence[int]
) -> Normalization:
    """The normalisation a config asks for.

    Args:
      config: its ``intensity`` and ``window``.
      slices: of the whole dataset.
      train: positions of the training part, all that a dataset z-score may look at.
    """
    if config.intensity == "window":
        level, width = config.window
        return Normalization(level, width / 2, clip=True)
    if config.intensity == "slice":
        return Normalization()
    sums = np.zeros(2)
    for i in train:
        values = np.float64(slices.low[i]) + np.float64(slices.step[i]) * slices.codes[i]
        sums += np.array([values.mean(), np.square(values).mean()])
    mean, square = (sums / len(train)).tolist()  # slices are of one size
    return Normalization(mean, math.sqrt(max(square - mean**2, 1e-12)))


def normalize(slices: QuantizedSlices, normalization: Normalization) -> Float[Array, "n s s 1"]:
    """The network's input: float32, traced or not.

    A constant slice (its spread at the level of rounding) gives zeros in a z-score per slice.
    """
    codes = jnp.asarray(slices.codes).astype(jnp.float32)
    low, step = jnp.asarray(slices.low), jnp.asarray(slices.step)
    if normalization.mean is not None and normalization.std is not None:
        above = (low - normalization.mean)[:, None, None] + step[:, None, None] * codes
        images = above / normalization.std
        images = jnp.clip(images, -1.0, 1.0) if normalization.clip else images
    else:
        images = jax.vmap(_standardize)(codes, low, step)
    return images[..., None]


def _standardize(
    codes: Float[Array, "h w"], low: Float[Array, ""], step: Float[Array, ""]
) -> Float[Array, "h w"]:
    """Codes have the z-score of what they stand for; no offset or unit can spoil it."""
    magnitude = jnp.maximum(jnp.abs(low), jnp.abs(low + step * codes.max()))
    image = codes - codes.mean()
    spread = jnp.sqrt(jnp.square(image - image.mean()).mean())
    flat = step * spread <= 1e-5 * magnitude
    return jnp.where(flat, 0.0, image / jnp.where(flat, 1.0, spread))


def pack(images: Sequence[Num[np.ndarray, "h w"]], size: int) -> QuantizedSlices:
    """Resizes each slice to (size, size)."""
    codes = np.empty((len(images), size, size), np.uint16)
    low, step = np.empty((2, len(images)), np.float32)
    for i, image in enumerate(images):
        codes[i], low[i], step[i] = _encode(resize(image, size, size))
    return QuantizedSlices(codes, low, step)


def _encode(
    image: Float32[np.ndarray, "h w"],
) -> tuple[UInt16[np.ndarray, "h w"], np.float32, np.float32]:
    low = image.min()
    step = np.float32((np.float64(image.max()) - low) / _CODES)
    if step == 0:
        return np.zeros(image.shape, np.uint16), low, step
    codes = np.rint((image.astype(np.float64) - low) / step)
    return np.minimum(codes, _CODES).astype(np.uint16), low, step


def resize(
    image: Num[np.ndarray, "h w"], height: int, width: int
) -> Float32[np.ndarray, "{height} {width}"]:
    """Linear resize, antialiased where it shrinks, pixel centres aligned.

    The arithmetic of ``jax.image.resize(..., "linear")``, without a compilation for each size.
    """
    picture = Image.fromarray(np.ascontiguousarray(image, np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def resize_mask(
    mask: Shaped[np.ndarray, "h w"], height: int, width: int
) -> Shaped[np.ndarray, "{height} {width}"]:
    """Nearest-neighbour resize: labels are never mixed."""
    # Whole numbers: in floating point, ties between two pixels fall to either side.
    rows, columns = (
        ((2 * np.arange(new) + 1) * old) // (2 * new)
        for new, old in zip((height, width), mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]
