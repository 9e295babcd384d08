"""From a slice on its own grid to the network's input, and back.

``pack`` resizes a slice to the network's grid, once, on the host; ``on_grid`` takes probabilities
back to the slice's own grid. Training, evaluation and prediction go through these two alone. The
resized slice is stored as 16-bit codes, with a rounding error of at most 1/65535 of the slice's
range; normalization is part of the jitted step.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Num, Shaped, UInt16
from PIL import Image

from covid_jax.errors import DataError
from covid_jax.transforms.grey_scale import CLIP
from covid_jax.transforms.input_form import InputForm
from covid_jax.transforms.lungs import Box

Pixels = Shaped[np.ndarray, "h w"]
CODES = 65535  # the greatest


class QuantizedSlices(NamedTuple):
    """Slices at the network's size, raw intensities as codes.

    Attributes:
      codes: whole numbers from 0 to 65535.
      low: the intensity of code 0 in each slice.
      step: intensity difference between successive codes.
    """

    codes: UInt16[np.ndarray, "n h w"]
    low: Float32[np.ndarray, " n"]
    step: Float32[np.ndarray, " n"]

    def decode(self, dtype: Any = np.float32) -> Any:
        """Intensities, ``low + step * code``, shaped as ``codes``; NumPy or traced."""
        codes, low, step = (part.astype(dtype) for part in self)
        return low[:, None, None] + step[:, None, None] * codes

    def take(self, index: Any) -> "QuantizedSlices":
        """The slices at these positions (a slice, a list or an array of whole numbers)."""
        return QuantizedSlices(*(part[index] for part in self))


@dataclass(frozen=True)
class Normalization:
    """Normalization of raw intensities before the network.

    Attributes:
      mean, std: the input is (intensity - mean) / std; None: each slice's own (z-score per slice).
      clip: whether values outside one ``std`` of ``mean`` are cut off (a window: [-1, 1]).
    """

    mean: float | Float[Array, ""] | None = None
    std: float | Float[Array, ""] | None = None
    clip: bool = False


def choose_normalization(
    slices: QuantizedSlices,
    train: Sequence[int],
    *,
    intensity: Literal["slice", "dataset", "window", "lung"] = "slice",
    window: tuple[float, float] = (-600.0, 1500.0),
) -> Normalization:
    """The normalisation of a dataset.

    Args:
      slices: of the whole dataset.
      train: positions of the training part, the only ones a dataset z-score looks at.
      intensity: z-score of each slice, z-score by the training part, a fixed
        window, or (lung) the range of the common grey scale to [-1, 1].
      window: level and width of the window.
    """
    if intensity == "window":
        level, width = window
        return Normalization(level, width / 2, clip=True)
    if intensity == "lung":  # the form's grey scale was applied before
        return Normalization((CLIP[0] + CLIP[1]) / 2, (CLIP[1] - CLIP[0]) / 2)
    if intensity == "slice":
        return Normalization()
    sums = np.zeros(2)
    for i in train:
        values = slices.take([i]).decode(np.float64)
        sums += np.array([values.mean(), np.square(values).mean()])
    mean, square = (sums / len(train)).tolist()  # slices are of one size
    return Normalization(mean, math.sqrt(max(square - mean**2, 1e-12)))


def normalize(slices: QuantizedSlices, normalization: Normalization) -> Float[Array, "n h w 1"]:
    """The normalized input of the network, float32; works inside and outside of ``jax.jit``.

    A constant slice (its spread at the level of rounding) gives zeros in a z-score per slice.
    """
    slices = QuantizedSlices(*map(jnp.asarray, slices))  # pyright: ignore[reportArgumentType]
    if normalization.mean is not None and normalization.std is not None:
        # Subtracted before decoding: a small spread on a large offset keeps its digits.
        images = slices._replace(low=slices.low - normalization.mean).decode() / normalization.std
        images = jnp.clip(images, -1.0, 1.0) if normalization.clip else images
    else:
        images = jax.vmap(_standardize)(*map(jnp.asarray, slices))
    return images[..., None]


def _standardize(
    codes: Num[Array, "h w"], low: Float[Array, ""], step: Float[Array, ""]
) -> Float[Array, "h w"]:
    """The z-score of the codes is that of the intensities, without errors from large offsets."""
    codes = codes.astype(jnp.float32)
    magnitude = jnp.maximum(jnp.abs(low), jnp.abs(low + step * codes.max()))
    image = codes - codes.mean()
    spread = jnp.sqrt(jnp.square(image - image.mean()).mean())
    flat = step * spread <= 1e-5 * magnitude
    return jnp.where(flat, 0.0, image / jnp.where(flat, 1.0, spread))


def pack(
    images: Sequence[Num[np.ndarray, "_ _"]], size: int, forms: Sequence[InputForm] | None = None
) -> QuantizedSlices:
    """Crops each slice to its form's box, resizes it to (size, size), applies its grey scale."""
    forms = forms or [InputForm()] * len(images)
    codes = np.empty((len(images), size, size), np.uint16)
    low, step = np.empty((2, len(images)), np.float32)
    for i, (image, form) in enumerate(zip(images, forms, strict=True)):
        codes[i], low[i], step[i] = _encode(form.scaled(resize(form.cropped(image), size, size)))
    return QuantizedSlices(codes, low, step)


def _encode(image: Pixels) -> tuple[UInt16[np.ndarray, "h w"], np.float32, np.float32]:
    low = image.min()
    step = np.float32((np.float64(image.max()) - low) / CODES)
    if step == 0:
        return np.zeros(image.shape, np.uint16), low, step
    codes = np.rint((image.astype(np.float64) - low) / step)
    return np.minimum(codes, CODES).astype(np.uint16), low, step


def on_grid(
    scores: Float32[np.ndarray, "s s c"], height: int, width: int, box: Box | None = None
) -> Float32[np.ndarray, "{height} {width} c"]:
    """Probabilities at the network's size, resized linearly to a slice's own grid.

    Outside the ``box`` the probability of a lesion is 0.

    Raises:
      DataError: if one is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        reasons = "its weights are damaged, or the intensities are beyond what it computes with"
        raise DataError(f"the network's probabilities are NaN or infinite: {reasons}")
    box = box or (slice(0, height), slice(0, width))
    rows, columns = (side.stop - side.start for side in box)
    planes = [resize(scores[..., c], rows, columns) for c in range(scores.shape[-1])]
    inside = np.clip(np.stack(planes, axis=-1), 0.0, 1.0)
    if inside.shape[:2] == (height, width):
        return inside
    pasted = np.zeros((height, width, scores.shape[-1]), np.float32)
    if scores.shape[-1] > 1:
        pasted[..., 0] = 1.0  # background
    pasted[box] = inside
    return pasted


def resize(image: Pixels, height: int, width: int) -> Float32[np.ndarray, "{height} {width}"]:
    """Linear resize, antialiased where it shrinks, pixel centres aligned.

    The arithmetic of ``jax.image.resize(..., "linear")``, without a compilation for each size.
    """
    picture = Image.fromarray(np.ascontiguousarray(image, np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def resize_mask(mask: Pixels, height: int, width: int) -> Shaped[np.ndarray, "{height} {width}"]:
    """Nearest-neighbour resize: labels are never mixed."""
    # Whole numbers: in floating point, ties between two pixels fall to either side.
    rows, columns = (
        ((2 * np.arange(new) + 1) * old) // (2 * new)
        for new, old in zip((height, width), mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]
