"""Concurrent spatial and channel squeeze and excitation (scSE)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def channel_se(
    z: Float[Array, "b h w c"], squeeze: Float[Array, "c r"], excite: Float[Array, "r c"]
) -> Float[Array, "b h w c"]:
    """Scales each channel by a gate computed from the means of all channels (the paper, Eqs. 4-5).

    ``Zc = z * sigmoid(W1 relu(W2 gap(z)))``, with gap the mean over the slice, taken in float32.

    Args:
      z: features.
      squeeze: W2, from C channels to a bottleneck (C/2 in the paper).
      excite: W1, back to C channels.

    Returns:
      Gated features, in z's dtype.
    """
    mean = jnp.mean(z, axis=(1, 2), dtype=jnp.float32)
    gate = jax.nn.sigmoid(jax.nn.relu(mean @ squeeze) @ excite)
    return z * gate[:, None, None, :].astype(z.dtype)


def spatial_se(z: Float[Array, "b h w c"], spatial: Float[Array, "c 1"]) -> Float[Array, "b h w c"]:
    """Scales each pixel by a gate computed from the channels of that pixel (the paper, Eq. 6).

    ``Zs = z * sigmoid(Ws z)``, with Ws a 1x1 convolution to one channel, without bias.

    Args:
      z: features.
      spatial: Ws.

    Returns:
      Gated features, in z's dtype.
    """
    return z * jax.nn.sigmoid(z @ spatial.astype(z.dtype))


class SCSE(nn.Module):
    """scSE block: the sum ``Zc + Zs`` of both gated features (the paper, Eq. 7; not a maximum).

    With all weights zero both gates are 1/2 and the block returns its input.

    Attributes:
      reduction: the bottleneck of the channel gate has C // reduction channels.
      dtype: computation dtype; parameters and channel means stay float32.

    Raises (on call):
      ValueError: if reduction is not between 1 and the number of channels: a bottleneck without
        channels would make the channel gate 1/2 everywhere.

    References:
      Roy, Navab, Wachinger, "Concurrent Spatial and Channel Squeeze & Excitation", MICCAI 2018;
      Zhou, Canu, Ruan, IJIST 2020, section 2.3.
    """

    reduction: int = 2
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channels = z.shape[-1]
        if not 1 <= self.reduction <= channels:
            raise ValueError(f"reduction={self.reduction} is not from 1 to the {channels} channels")
        bottleneck = channels // self.reduction
        glorot = nn.initializers.glorot_uniform()
        squeeze = self.param("squeeze", glorot, (channels, bottleneck), jnp.float32)
        excite = self.param("excite", glorot, (bottleneck, channels), jnp.float32)
        spatial = self.param("spatial", glorot, (channels, 1), jnp.float32)
        z = z.astype(self.dtype)
        return channel_se(z, squeeze, excite) + spatial_se(z, spatial)
