"""Random changes of slices and their masks: pure functions of keys, images and masks.

A slice is first put into one of eight orientations. Elastic deformation, flip, rotation, scale and
shift are then combined into one map of coordinates, so that the slice is interpolated only once.
Blur, gamma, the intensity curve, contrast, brightness and noise follow; noise comes last, so that
no other change amplifies it. All random numbers are drawn from the slice's own key, whether used or
not, so that switching one change off does not affect the others. A strength of 0 leaves its
transform out of the compiled program.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Key, Shaped

from covid_jax.transforms.augment_config import AugmentConfig as AugmentConfig

Image = Float[Array | np.ndarray, "h w c"]
Mask = Shaped[Array | np.ndarray, "h w m"]
Images = Float[Array | np.ndarray, "b h w c"]
Masks = Shaped[Array | np.ndarray, "b h w m"]
Plane = Float[Array, "h w"]
MOVEMENTS = ("flip", "rotation", "scale", "shift", "elastic")
CONTROL_POINTS = 5  # of the elastic grid, along each axis
BLUR_REACH = 3.0  # standard deviations of the widest blur, after which its kernel is cut off
REFERENCE_SIDE = 512  # the side of the slices in whose pixels a blur is given
CURVE_SEGMENTS = 6  # of the intensity curve
_LATER = 2  # folded into a slice's key for what was added later: 0 and 1 are what split() gives


class Draws(NamedTuple):
    """The random numbers of one slice, in [-1, 1), in units of the settings.

    Attributes:
      flip: rows (up-down) and columns (left-right); negative flips.
      rotation: positive turns the picture anticlockwise.
      scale: positive makes what is seen larger, by the factor 1 + scale.
      shift: positive moves the picture down and to the right.
      elastic: how far down and to the right of its place each control point reads.
      blur: -1 is none, 1 the widest.
      gamma: the exponent is exp(gamma); positive darkens the middle of the range.
      contrast: positive is more, by the factor 1 + contrast.
      brightness: positive is brighter.
      noise: -1 is none, 1 the strongest.
      grain: key of the noise's pixels.
      orientation: negative swaps rows and columns, flips rows, flips columns.
      curve: steepness of each segment of the intensity curve; positive is steeper.
    """

    flip: Float[Array, "2"]
    rotation: Float[Array, ""]
    scale: Float[Array, ""]
    shift: Float[Array, "2"]
    elastic: Float[Array, "points points 2"]
    blur: Float[Array, ""]
    gamma: Float[Array, ""]
    contrast: Float[Array, ""]
    brightness: Float[Array, ""]
    noise: Float[Array, ""]
    grain: Key[Array, ""]
    orientation: Float[Array, "3"]
    curve: Float[Array, " segments"]


def augment(
    keys: Key[Array, " b"], images: Images, masks: Masks, config: AugmentConfig
) -> tuple[Images, Masks]:
    """Changes each slice at random; image and mask get the same geometric transform.

    The result for a slice depends only on its key, not on the batch, its index in the batch, or the
    number of devices, up to rounding: each batch size is compiled separately, so that at a side of
    512 coordinates may differ by about 1e-4 pixels. A pixel of the mask can differ if it is read
    from the middle between two pixels.

    Args:
      keys: one for each slice.
      images: intensities as the network takes them, z-scored or windowed.
      masks: class ids or 0/1 maps; values are kept, never mixed.
      config: which changes, and how strong; decides what is compiled, so it is static under jit.

    Returns:
      The changed images and masks; with all changes off, exactly the inputs.

    Raises:
      ValueError: if keys, images and masks do not belong together.
    """
    if images.ndim != 4 or masks.ndim != 4 or images.shape[:3] != masks.shape[:3]:
        got = f"{images.shape} and {masks.shape}"
        raise ValueError(f"expected images (B, H, W, C) and masks (B, H, W, M), got {got}")
    if keys.shape != images.shape[:1]:
        raise ValueError(f"expected {images.shape[0]} keys, one a slice, got {keys.shape}")
    change = partial(transform, config=config)
    return jax.vmap(lambda key, *slices: change(draw(key), *slices))(keys, images, masks)


def draw(key: Key[Array, ""]) -> Draws:
    """Draws every number of one slice, each uniform and independent of the others."""
    number_key, grain = jax.random.split(key)
    # One call for all of them: each call of the generator is a loop to compile.
    uniform = partial(jax.random.uniform, dtype=jnp.float32, minval=-1.0, maxval=1.0)
    numbers = uniform(number_key, (11 + 2 * CONTROL_POINTS**2,))
    later = uniform(jax.random.fold_in(key, _LATER), (3 + CURVE_SEGMENTS,))
    flip, turn, shift, intensities, elastic = jnp.split(numbers, (2, 4, 6, 11))
    elastic = elastic.reshape(CONTROL_POINTS, CONTROL_POINTS, 2)
    return Draws._make((flip, *turn, shift, elastic, *intensities, grain, later[:3], later[3:]))


def transform(draws: Draws, image: Image, mask: Mask, config: AugmentConfig) -> tuple[Image, Mask]:
    """Changes one slice as drawn.

    Outside the slice, image and mask both repeat their edge, so that repeated tissue keeps its
    class.

    Raises:
      ValueError: if ``orientation`` is used and the slice is not square.
    """
    if config.orientation == "any":
        if image.shape[0] != image.shape[1]:
            raise ValueError(f"orientation: expected square slices, got {image.shape[:2]}")
        image, mask = _orient(draws.orientation, image), _orient(draws.orientation, mask)
    moved = image
    if any(getattr(config, name) for name in MOVEMENTS):
        rows, columns = read_from(draws, image.shape[0], image.shape[1], config)
        moved = _read(image, rows, columns, order=1)
        mask = _read(mask, rows, columns, order=0)
    return _intensities(draws, moved, config, source=image), mask


def read_from(draws: Draws, height: int, width: int, config: AugmentConfig) -> tuple[Plane, Plane]:
    """Rows and columns of the slice at which each pixel of the result is read.

    That is the way back through the movements: a pixel is shifted, scaled and turned back about
    the slice's centre, flipped, and displaced by a cubic surface through the control points, which
    lie at the centres of CONTROL_POINTS x CONTROL_POINTS equal cells. Between them the surface
    overshoots by up to (5/4)^2. With the named sets no slice can fold onto itself.
    """
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    if config.shift:
        y = y - config.shift * height * draws.shift[0]
        x = x - config.shift * width * draws.shift[1]
    if config.scale:
        factor = 1.0 + config.scale * draws.scale
        y, x = y / factor, x / factor
    if config.rotation:
        angle = math.radians(config.rotation) * draws.rotation
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        y, x = cos * y + sin * x, cos * x - sin * y
    if config.flip:
        y, x = jnp.where(draws.flip[0] < 0, -y, y), jnp.where(draws.flip[1] < 0, -x, x)
    rows, columns = jnp.broadcast_arrays(y + (height - 1) / 2, x + (width - 1) / 2)
    if config.elastic:
        field = jax.image.resize(draws.elastic, (height, width, 2), "cubic")
        rows = rows + config.elastic * height * field[..., 0]
        columns = columns + config.elastic * width * field[..., 1]
    return rows, columns


def _orient(signs, image):
    """Applies one of the eight symmetries of the square; pixels are moved without interpolation."""
    image = jnp.where(signs[0] < 0, image.swapaxes(0, 1), image)
    image = jnp.where(signs[1] < 0, image[::-1], image)
    return jnp.where(signs[2] < 0, image[:, ::-1], image)


def _read(channels, rows, columns, *, order):
    """Reads each channel at the coordinates, repeating the edge outside."""
    read = partial(map_coordinates, coordinates=[rows, columns], order=order, mode="nearest")
    values = channels.astype(jnp.float32)  # class ids too: under strict promotion nothing mixes
    moved = jnp.stack([read(values[..., c]) for c in range(channels.shape[-1])], axis=-1)
    return moved.astype(channels.dtype)


def _intensities(draws, image, config, source):
    """Changes of intensity, each by the statistics of the slice as it came."""
    if config.blur:
        image = _blur(image, config.blur * (1.0 + draws.blur) / 2, config.blur)
    if config.gamma_correction:
        # Reading and blurring average, so that all values still lie in the source's range.
        exponent = jnp.exp(config.gamma_correction * draws.gamma)
        image = _gamma(image, exponent, jnp.min(source), jnp.max(source))
    if config.intensity_curve:
        steepness = 1.0 + config.intensity_curve * draws.curve
        image = _curve(image, steepness, jnp.min(source), jnp.max(source))
    if config.contrast:
        # About the mean, so that contrast does not brighten slices whose mean is not 0.
        mean = jnp.mean(source)
        image = mean + (1.0 + config.contrast * draws.contrast) * (image - mean)
    if config.brightness:
        image = image + config.brightness * draws.brightness * jnp.std(source)
    if config.noise:
        grain = jax.random.normal(draws.grain, image.shape, image.dtype)
        image = image + config.noise * (1.0 + draws.noise) / 2 * jnp.std(source) * grain
    return image


def _blur(image, sigma, widest):
    """Gaussian blur along each axis, with the length of the widest kernel for a static shape."""
    for axis in (0, 1):
        scale = image.shape[axis] / REFERENCE_SIDE
        reach = math.ceil(BLUR_REACH * widest * scale)
        taps = jnp.arange(-reach, reach + 1, dtype=jnp.float32)
        kernel = jnp.exp(-0.5 * (taps / jnp.maximum(sigma * scale, 1e-3)) ** 2)
        image = _filter(image, kernel / jnp.sum(kernel), axis)
    return image


def _filter(image, kernel, axis):
    """Correlates with a kernel along one axis, repeating the edge."""

    def add_tap(i, total):
        places = jnp.arange(image.shape[axis]) + (i - len(kernel) // 2)
        return total + kernel[i] * jnp.take(image, places, axis, mode="clip")

    # Written out instead of looped, the sum is fused with the movement, which it repeats each tap.
    return jax.lax.fori_loop(0, len(kernel), add_tap, jnp.zeros_like(image))


def _gamma(image, exponent, low, high):
    """A power law within a range, whose ends it keeps; a constant slice is not changed."""
    extent = high - low
    part = jnp.clip((image - low) / jnp.where(extent > 0, extent, 1.0), 0.0, 1.0)
    # XLA vectorises exp and log on CPU, but not a power; log(0) gives exp(-inf) = 0 as it should.
    return low + extent * jnp.exp(exponent * jnp.log(part))


def _curve(image, steepness, low, high):
    """An increasing piecewise linear curve of equal segments that keeps the ends of the range.

    A sum of ramps, which XLA fuses into one pass; an interpolation would look up each pixel.
    """
    width = jnp.maximum((high - low) / len(steepness), jnp.finfo(jnp.float32).tiny)
    total = jnp.zeros_like(image)
    for i, slope in enumerate(steepness / jnp.mean(steepness)):
        total = total + slope * jnp.clip(image - (low + i * width), 0.0, width)
    return low + total
