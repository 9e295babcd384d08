"""Random changes of slices and their masks: pure functions of keys, images and masks."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

ROTATION = 20.0  # degrees, either way
SCALE = 0.2  # of the size, either way
BRIGHTNESS = 0.2  # standard deviations of the slice, either way
CONTRAST = 0.2  # relative, either way


def augment(
    keys: Key[Array, " b"], images: Float[Array, "b h w c"], masks: Num[Array, "b h w m"]
) -> tuple[Float[Array, "b h w c"], Num[Array, "b h w m"]]:
    """Flips, rotates, scales, brightens and stretches each slice at random.

    Image and mask are moved by one transform: the image linearly interpolated, the mask by nearest
    neighbour, both repeating their edge. A slice's result depends on its own key alone, whatever
    batch it is in.

    Args:
      keys: one for each slice.
      images: z-scored slices.
      masks: class ids or 0/1 maps; values are kept, never mixed.
    """
    return jax.vmap(_augment_slice)(keys, images, masks)


def _augment_slice(key, image, mask):
    geometry_key, intensity_key = jax.random.split(key)
    rows, columns = _coordinates(geometry_key, image.shape[0], image.shape[1])
    image = _sample(image, rows, columns, order=1)
    mask = _sample(mask, rows, columns, order=0)
    shift, stretch = jax.random.uniform(intensity_key, (2,), minval=-1.0, maxval=1.0)
    return image * (1.0 + CONTRAST * stretch) + BRIGHTNESS * shift, mask


def _coordinates(key, height, width):
    """Where each output pixel is read from: flips, rotation and scaling about the centre."""
    flip_key, angle_key, scale_key = jax.random.split(key, 3)
    flips = jax.random.rademacher(flip_key, (2,), jnp.float32)
    degrees = jax.random.uniform(angle_key, minval=-ROTATION, maxval=ROTATION)
    scale = 1.0 + jax.random.uniform(scale_key, minval=-SCALE, maxval=SCALE)
    cos, sin = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2
    rows = flips[0] * (cos * y - sin * x) / scale + (height - 1) / 2
    columns = flips[1] * (sin * y + cos * x) / scale + (width - 1) / 2
    return rows, columns


def _sample(channels, rows, columns, *, order):
    """Reads each channel at the coordinates, repeating the edge outside."""
    read = lambda plane: jax.scipy.ndimage.map_coordinates(  # noqa: E731
        plane, [rows, columns], order=order, mode="nearest"
    )
    return jnp.stack([read(channels[..., c]) for c in range(channels.shape[-1])], axis=-1)
