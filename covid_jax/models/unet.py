"""The network: a U-Net of dilated residual blocks with scSE attention and summed heads."""

import functools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from covid_jax.models.blocks import ConvBlock, ResDil, upsample
from covid_jax.models.scse import SCSE

Attention = Literal["encoder_decoder", "skip", "none"]


class SCSEUNet(nn.Module):
    """U-Net with dilated residual blocks, scSE attention and deep supervision.

    Each level is a 3x3 layer (stride 2 below the first), a ``ResDil`` and an ``SCSE``. The decoder
    upsamples by nearest neighbour, convolves, concatenates the encoder's features of that level
    (skip first) and convolves again (inferred: the paper's channel counts need this convolution).
    The logits of 1x1 heads on the finest ``min(3, levels - 1)`` decoder levels are upsampled and
    summed, so that one loss supervises all heads.

    Attributes:
      num_classes: lesion classes K. One gives one channel (for a sigmoid); K > 1 gives K + 1
        channels (for a softmax), background first.
      features: channels of each level, finest first.
      attention: position of the scSE blocks. ``"encoder_decoder"``: after each level of encoder
        and decoder, feeding the skip and the next level (the paper's figure); ``"skip"``: on the
        skips only; ``"none"``: no scSE (the paper's baseline).
      negative_slope: LeakyReLU negative slope.
      dtype: computation dtype. Parameters, norm statistics and logits are always float32.

    Raises (on call):
      ValueError: on images that are not (B, H, W, C), or whose sides are not multiples of
        ``2 ** (levels - 1)`` with at least 2 pixels left at the deepest level.

    Example:
      >>> import jax
      >>> model = SCSEUNet(features=(4, 8))
      >>> images = jnp.zeros((2, 32, 48, 1))
      >>> logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
      >>> logits.shape
      (2, 32, 48, 1)

    References:
      Zhou, Canu, Ruan, "An automatic COVID-19 CT segmentation network using spatial and channel
      attention mechanism", IJIST 2020 (arXiv 2004.06673), Fig. 2.
    """

    num_classes: int = 1
    features: Sequence[int] = (32, 64, 128, 256, 512)
    attention: Attention = "encoder_decoder"
    negative_slope: float = 0.3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array | np.ndarray, "b h w c"]) -> Float[Array, "b h w k"]:
        self._check(images.shape)
        settings: dict[str, Any] = {"negative_slope": self.negative_slope, "dtype": self.dtype}
        conv = functools.partial(ConvBlock, **settings)
        resdil = functools.partial(ResDil, **settings)
        channels = 1 if self.num_classes == 1 else self.num_classes + 1
        glorot = nn.initializers.glorot_uniform()
        head = functools.partial(nn.Conv, channels, (1, 1), kernel_init=glorot, dtype=jnp.float32)
        scse = functools.partial(SCSE, dtype=self.dtype)
        levels = len(self.features)

        skips = []
        x = jnp.asarray(images).astype(self.dtype)
        for level, features in enumerate(self.features, start=1):
            x = conv(features, strides=1 if level == 1 else 2, name=f"encoder{level}_conv")(x)
            x = skip = resdil(name=f"encoder{level}_resdil")(x)
            if self.attention == "encoder_decoder":
                x = skip = scse(name=f"encoder{level}_scse")(x)
            elif self.attention == "skip" and level < levels:
                skip = scse(name=f"encoder{level}_scse")(x)
            skips.append(skip)

        logits: Any = None
        for level in range(levels - 1, 0, -1):
            features = self.features[level - 1]
            x = conv(features, upsampled=True, name=f"decoder{level}_up")(x)
            x = jnp.concatenate([skips[level - 1], x], axis=-1)
            x = conv(features, name=f"decoder{level}_merge")(x)
            x = resdil(name=f"decoder{level}_resdil")(x)
            if self.attention == "encoder_decoder":
                x = scse(name=f"decoder{level}_scse")(x)
            if level <= 3:
                output = head(name=f"head{level}")(x)
                logits = output if logits is None else upsample(logits) + output
        return logits

    def _check(self, shape: tuple[Any, ...]) -> None:  # a size is symbolic in an export
        levels = len(self.features)
        if levels < 2:
            raise ValueError(f"features needs at least two levels, got {tuple(self.features)}")
        if self.num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {self.num_classes}")
        if self.attention not in (known := get_args(Attention)):
            raise ValueError(f"attention must be one of {known}, got {self.attention!r}")
        if min(self.features) < 2:
            raise ValueError(f"each level needs 2 channels or more, got {tuple(self.features)}")
        if len(shape) != 4 or not shape[-1]:
            raise ValueError(f"images must be (B, H, W, C), got shape {shape}")
        multiple = 2 ** (levels - 1)
        if any(side % multiple or side < 2 * multiple for side in shape[1:3]):
            sides = f"multiples of {multiple}, and at least {2 * multiple}, for {levels} levels"
            raise ValueError(f"image sides must be {sides}; got {shape[1]} x {shape[2]}")
