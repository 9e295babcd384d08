"""The network's layers: a normalised convolution, of upsampled features too; a residual block."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from covid_jax.models import cpu_conv

Features = Float[Array, "b h w c"]
CONVOLVED = "convolved"  # the outputs of 3x3 convolutions, for policies of jax.checkpoint


class ConvBlock(nn.Module):
    """3x3 convolution, instance norm, LeakyReLU.

    On a CPU wide convolutions are computed by Winograd's algorithm (``cpu_conv``).
    The norm's epsilon (1e-5) and the LeakyReLU's slope are inferred: the paper gives neither.
    The norm's statistics are computed in float32 and in two passes, since ``E[x^2] - E[x]^2``
    loses all digits where the mean is much larger than the standard deviation.

    Attributes:
      features: output channels.
      strides: 2 halves the height and width; SAME padding is then added below and right only, as
        in Keras.
      dilation: distance between the kernel's taps, in pixels.
      upsampled: whether the convolution sees features of twice the height and width, as by
        ``upsample``; the parameters are the same. Strides and dilation do not apply.
      negative_slope: LeakyReLU negative slope (0.3 is the default of Keras).
      dtype: computation dtype; parameters stay float32.
    """

    features: int
    strides: int = 1
    dilation: int = 1
    upsampled: bool = False
    negative_slope: float = 0.3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Float[Array, "b h2 w2 {self.features}"]:
        glorot = nn.initializers.glorot_uniform()
        conv = functools.partial(
            nn.Conv, self.features, (3, 3), kernel_init=glorot, dtype=self.dtype, name="conv"
        )
        if self.upsampled:
            x = conv(promote_dtype=_keep_kernel, conv_general_dilated=_conv_upsampled)(x)
        else:
            x = conv(
                strides=self.strides,
                kernel_dilation=self.dilation,
                conv_general_dilated=cpu_conv.conv_general_dilated,
            )(x)
        x = checkpoint_name(x, CONVOLVED)
        norm = nn.InstanceNorm(epsilon=1e-5, use_fast_variance=False, dtype=self.dtype, name="norm")
        with jax.numpy_dtype_promotion("standard"):  # Flax's norm mixes bfloat16 and float32
            x = norm(x)
        return jax.nn.leaky_relu(x, self.negative_slope)


class ResDil(nn.Module):
    """Residual block of two dilated layers (dilations 2 and 4) that keeps the number of channels.

    With the 3x3 convolution that precedes it in each level of the network, its receptive field is
    1 + 2 (1 + 2 + 4) = 15 pixels a side (the paper, Eq. 3 and Fig. 3). No activation follows the
    sum (post-activation order, inferred).

    Attributes:
      negative_slope: LeakyReLU negative slope.
      dtype: computation dtype; parameters stay float32.
    """

    negative_slope: float = 0.3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Features) -> Features:
        x = x.astype(self.dtype)
        settings: dict[str, Any] = {"negative_slope": self.negative_slope, "dtype": self.dtype}
        conv = functools.partial(ConvBlock, x.shape[-1], **settings)
        y = conv(dilation=2, name="first")(x)
        return x + conv(dilation=4, name="second")(y)


def upsample(x: Features) -> Float[Array, "b 2*h 2*w c"]:
    """Doubles height and width by repeating each pixel 2 x 2 (nearest neighbour)."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def conv_upsampled(x: Features, kernel: Float[Array, "3 3 c f"]) -> Float[Array, "b 2*h 2*w f"]:
    """A 3x3 convolution (SAME, zero padding) of ``upsample(x)``, computed without upsampling.

    Each output pixel depends on only 2 x 2 pixels of x; which ones depends on whether its row and
    column are even or odd. The result is therefore four interleaved convolutions of x with 2x2
    kernels, whose taps are sums of the 3x3 kernel's: 4/9 of the multiplications.

    Args:
      x: features.
      kernel: 3x3 kernel (HWIO) of the convolution after upsampling.

    Returns:
      Features of twice the height and width, in x's dtype.
    """
    b, h, w, _ = x.shape

    def phase(odd_row: bool, odd_column: bool) -> Float[Array, "b h w f"]:
        taps = _fold_taps(_fold_taps(kernel, odd_row, axis=0), odd_column, axis=1).astype(x.dtype)
        padding = (1 - odd_row, odd_row), (1 - odd_column, odd_column)
        axes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, taps, (1, 1), padding, dimension_numbers=axes)

    rows = [jnp.stack([phase(row, False), phase(row, True)], axis=3) for row in (False, True)]
    return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, kernel.shape[-1])


def _fold_taps(kernel: Float[Array, "..."], odd: bool, axis: int) -> Float[Array, "..."]:
    """Sums the three taps along an axis to two, one for each pixel of x that they read.

    For an even output pixel the second and third tap read the same pixel of x, for an odd one the
    first and second. Slices are added because multiplying by a matrix of ones and zeros took XLA
    53 ms a call for the full-width network on one CPU core.
    """
    first, second, third = jnp.split(kernel, 3, axis)
    return jnp.concatenate((first + second, third) if odd else (first, second + third), axis)


def _conv_upsampled(x: Array, kernel: Array, *same: Any, **convolution: Any) -> Array:
    """``conv_upsampled`` as ``nn.Conv`` calls it for stride 1 and SAME padding."""
    return conv_upsampled(x, kernel)


def _keep_kernel(*values: Any, dtype: Any = None, **rules: Any) -> Any:
    """Casts all but the kernel, whose taps are added in float32."""
    x, kernel, bias = values
    return x.astype(dtype), kernel, bias.astype(dtype)
