"""3x3 convolutions on a CPU by Winograd's F(2x2, 3x3), with 4/9 of the multiplications.

Along one axis, two neighbouring outputs of a kernel (a, b, c) depend on four inputs p, q, r, s and
take six multiplications: ``ap + bq + cr`` and ``aq + br + cs``. Sums of inputs and of kernel taps
reduce them to four::

    m0 = (p - r) a    m1 = (q + r) (a + b + c) / 2    m2 = (r - q) (a - b + c) / 2    m3 = (q - s) c
    first = m0 + m1 + m2    second = m1 - m2 - m3

Along both axes that is 16 multiplications for four outputs instead of 36; summed over channels they
are 16 matrix products. The sums cost memory traffic, so that only layers of many channels gain.
XLA's own convolutions on a CPU do not use such an algorithm; cuDNN on a GPU does.

Reference: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016 (arXiv
1509.09308).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from covid_jax.models.cpu_bfloat16 import conv3x3_bfloat16

FEWEST_CHANNELS = 128  # input and output; with fewer a training step is no faster (benchmarks)

Parts = tuple[Array, ...]


def conv_general_dilated(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k l i f"],
    strides: Sequence[int],
    padding: Any,
    **options: Any,
) -> Float[Array, "b h2 w2 f"]:
    """``jax.lax.conv_general_dilated``, on a CPU computed otherwise where that is faster.

    For ``flax.linen.Conv(conv_general_dilated=...)``. 3x3 kernels of stride 1 and SAME padding are
    computed by ``conv3x3`` in float32, with at least ``FEWEST_CHANNELS`` channels, and by
    ``conv3x3_bfloat16`` in bfloat16; everything else is left to XLA.
    """
    xla = partial(jax.lax.conv_general_dilated, window_strides=strides, padding=padding, **options)
    dilation = options["rhs_dilation"][0]
    usual = {"lhs_dilation": (1, 1), "feature_group_count": 1, "precision": None}
    if (
        options != options | usual | {"rhs_dilation": (dilation, dilation)}
        or padding != "SAME"
        or tuple(strides) != (1, 1)
        or tuple(kernel.shape[:2]) != (3, 3)
    ):
        return xla(x, kernel)
    if x.dtype == jnp.bfloat16:
        special = partial(conv3x3_bfloat16, dilation=dilation)
    elif (
        x.dtype != jnp.float32
        or min(kernel.shape[2:]) < FEWEST_CHANNELS
        or any(side % (2 * dilation) for side in x.shape[1:3])
    ):
        return xla(x, kernel)
    else:
        special = partial(conv3x3, dilation=dilation)
    return jax.lax.platform_dependent(x, kernel, cpu=special, default=xla)


@partial(jax.jit, static_argnames="dilation")
def conv3x3(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c f"], *, dilation: int = 1
) -> Float[Array, "b h w f"]:
    """A 3x3 convolution (SAME, zero padding, stride 1) by Winograd's algorithm, in float32.

    Its rounding errors are up to three times those of the direct convolution. The backward pass
    recomputes the sixteen tile arrays (four times the size of x) instead of storing them.

    Args:
      x: features; height and width are multiples of ``2 * dilation``.
      kernel: 3x3 kernel (HWIO).
      dilation: distance between the kernel's taps.

    Returns:
      Features, in x's dtype.

    Raises:
      TypeError: if height or width is not such a multiple.
    """
    return jax.checkpoint(partial(_conv3x3, dilation=dilation))(x, kernel)


def _conv3x3(x: Array, kernel: Array, dilation: int) -> Array:
    b, h, w, c = x.shape
    d, f, dtype = dilation, kernel.shape[-1], x.dtype
    x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    x = jnp.pad(x, ((0, 0), (d, d), (d, d), (0, 0)))
    # With dilation d the kernel reads every d-th row and column: d x d separate images, each
    # convolved without dilation. Rows become (pair of an image's rows, row in the pair, image),
    # columns likewise.
    x = x.reshape(b, h // (2 * d) + 1, 2, d, w // (2 * d) + 1, 2, d, c)
    tiles, taps = _along_both(_tiles, x, (1, 3)), _along_both(_taps, kernel, (0, 0))
    products = [
        (tile.reshape(-1, c) @ tap).reshape(*tile.shape[:-1], f)
        for tile, tap in zip(tiles, taps, strict=True)
    ]
    rows = [_pair(*products[i : i + 4]) for i in range(0, 16, 4)]
    columns = [jnp.stack(_pair(*column), axis=2) for column in zip(*rows, strict=True)]
    return jnp.stack(columns, axis=5).reshape(b, h, w, f).astype(dtype)


def _along_both(split: Callable, array: Array, axes: tuple[int, int]) -> list[Array]:
    """Splits along the first axis, then each part along the second (numbered in the part)."""
    return [part for row in split(array, axes[0]) for part in split(row, axes[1])]


def _tiles(x: Array, axis: int) -> Parts:
    """The factors of m0 to m3 from the inputs; ``axis`` counts pairs, ``axis + 1`` is the pair."""
    pair = jax.lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)
    next_pair = jax.lax.slice_in_dim(x, 1, x.shape[axis], axis=axis)
    (p, q), (r, s) = jnp.unstack(pair, axis=axis + 1), jnp.unstack(next_pair, axis=axis + 1)
    return p - r, q + r, r - q, q - s


def _taps(kernel: Array, axis: int) -> Parts:
    """The factors of m0 to m3 from the kernel."""
    a, b, c = jnp.unstack(kernel, axis=axis)
    return a, (a + b + c) / 2, (a - b + c) / 2, c


def _pair(m0: Array, m1: Array, m2: Array, m3: Array) -> Parts:
    """Two neighbouring outputs."""
    return m0 + m1 + m2, m1 - m2 - m3
