"""The two blocks the network is made of: a normalised convolution, and a dilated residual pair."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from covid_jax.models import cpu_conv as winograd
from covid_jax.models.upsampling import UpsampledConv


class ConvBlock(nn.Module):
    """3x3 convolution, instance norm, LeakyReLU: the paper's plain layer.

    The 1e-5 in the norm and the slope are inferred (the paper is silent). The norm's statistics
    are float32 and two-pass: ``E[x^2] - E[x]^2`` cancels where the mean is far from zero.

    Attributes:
      features: output channels.
      strides: 2 halves the grid; SAME padding then falls below and right only, as in Keras.
      dilation: distance between the kernel's taps.
      upsampled: doubles the grid by repetition first; neither strided nor dilated then.
      negative_slope: of the LeakyReLU (0.3 is Keras' default).
      dtype: of the convolution, its result at least (winograd.py); parameters stay float32.

    Raises (on call):
      ValueError: if upsampled with a stride or a dilation.
    """

    features: int
    strides: int = 1
    dilation: int = 1
    upsampled: bool = False
    negative_slope: float = 0.3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 {self.features}"]:
        if self.upsampled:
            if (self.strides, self.dilation) != (1, 1):
                raise ValueError("an upsampled ConvBlock has neither stride nor dilation")
            x = UpsampledConv(self.features, dtype=self.dtype, name="conv")(x)
        else:
            x = nn.Conv(
                self.features,
                (3, 3),
                strides=self.strides,
                kernel_dilation=self.dilation,
                padding="SAME",
                kernel_init=nn.initializers.glorot_uniform(),
                dtype=self.dtype,
                conv_general_dilated=winograd.conv_general_dilated,
                name="conv",
            )(x)
        x = nn.InstanceNorm(epsilon=1e-5, use_fast_variance=False, dtype=self.dtype, name="norm")(x)
        return jax.nn.leaky_relu(x, self.negative_slope)


class ResDil(nn.Module):
    """Residual block of two dilated layers (dilations 2 and 4), on as many channels as it is given.

    Together with the level's plain 3x3 convolution before it the receptive field is
    1 + 2 (1 + 2 + 4) = 15 pixels a side (the paper, Eq. 3 and Fig. 3). No activation follows the
    sum (post-activation order, inferred).
    """

    negative_slope: float = 0.3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        x = x.astype(self.dtype)
        y = x
        for name, dilation in (("first", 2), ("second", 4)):
            y = ConvBlock(
                x.shape[-1],
                dilation=dilation,
                negative_slope=self.negative_slope,
                dtype=self.dtype,
                name=name,
            )(y)
        return x + y
