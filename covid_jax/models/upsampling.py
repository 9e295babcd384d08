"""Doubling the grid by repetition, alone and together with the convolution that follows it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def upsample(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Doubles the grid by repeating each pixel 2 x 2 (nearest neighbour)."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def conv_upsampled(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c f"]
) -> Float[Array, "b h2 w2 f"]:
    """A 3x3 convolution (SAME, zeros outside) of ``upsample(x)``, computed on the small grid.

    Of the nine pixels under the kernel several repeat one another: an output pixel sees 2 x 2
    pixels of x, which ones depends on whether its row and column are even or odd. So the result is
    four convolutions with 2x2 kernels, sums of the kernel's taps, interlaced: 4/9 of the
    multiplications, and the doubled features are never made.

    Args:
      x: features.
      kernel: of the convolution on the doubled grid, HWIO.

    Returns:
      Features on the doubled grid, in x's dtype.
    """
    b, h, w, _ = x.shape

    def phase(odd_row: bool, odd_column: bool) -> Float[Array, "b h w f"]:
        taps = _folded(_folded(kernel, odd_row, axis=0), odd_column, axis=1)
        return jax.lax.conv_general_dilated(
            x,
            taps.astype(x.dtype),
            window_strides=(1, 1),
            padding=((1 - odd_row, odd_row), (1 - odd_column, odd_column)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    rows = [jnp.stack([phase(row, False), phase(row, True)], axis=3) for row in (False, True)]
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, kernel.shape[-1])


def _folded(kernel: Float[Array, "..."], odd: bool, axis: int) -> Float[Array, "..."]:
    """Three taps along an axis, summed to the two pixels of the small grid that they fall on.

    Around an even output pixel the second and third tap see the same one, around an odd one the
    first and second. Written as sums: as a product with a matrix of ones and zeros, all of the
    full-width network's took XLA 53 ms a call on one CPU core.
    """
    first, second, third = jnp.split(kernel, 3, axis)
    pair = (first + second, third) if odd else (first, second + third)
    return jnp.concatenate(pair, axis)


class UpsampledConv(nn.Module):
    """``nn.Conv(features, (3, 3))(upsample(x))``, its parameters too, by ``conv_upsampled``.

    Attributes:
      features: output channels.
      dtype: of the convolution; parameters, and the sums of taps, stay float32.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 {self.features}"]:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        x = conv_upsampled(x.astype(self.dtype), kernel)
        return x + bias.reshape(1, 1, 1, -1).astype(self.dtype)
