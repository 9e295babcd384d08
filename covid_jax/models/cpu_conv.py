"""3x3 convolutions with 4/9 of the multiplications, on a CPU: Winograd's F(2x2, 3x3).

Along one axis, two neighbouring outputs of a kernel (a, b, c) see four inputs p, q, r, s and take
six multiplications: ``ap + bq + cr`` and ``aq + br + cs``. Four do, once tiles and taps have been
added up::

    m0 = (p - r) a    m1 = (q + r) (a + b + c) / 2    m2 = (r - q) (a - b + c) / 2    m3 = (q - s) c
    first = m0 + m1 + m2    second = m1 - m2 - m3

Both axes of a picture together: 16 for four outputs instead of 36, and as channels are summed in
between, 16 plain matrix products. The sums cost memory traffic, which only wide layers repay.
XLA's convolutions on a CPU (YNNPACK) multiply by the definition; on a GPU they are left to cuDNN,
which has such algorithms too.

Reference: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016 (arXiv
1509.09308).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

FEWEST_CHANNELS = 128  # in and out; with fewer a training step gains nothing (benchmarks/NOTES.md)

Parts = tuple[Array, ...]


def conv_general_dilated(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k l c f"],
    strides: Sequence[int],
    padding: Any,
    **options: Any,
) -> Float[Array, "b h2 w2 f"]:
    """``jax.lax.conv_general_dilated``, faster on a CPU where ``conv3x3`` computes the same.

    For ``flax.linen.Conv(conv_general_dilated=...)``, whose arguments it takes. What is compiled
    for another platform is the convolution itself.
    """
    by_definition = functools.partial(
        jax.lax.conv_general_dilated, window_strides=strides, padding=padding, **options
    )
    dilation = options["rhs_dilation"][0]
    alike = {
        "rhs_dilation": (dilation, dilation),
        "lhs_dilation": (1, 1),
        "feature_group_count": 1,
        "precision": None,
    }
    computed = (
        padding == "SAME"
        and tuple(strides) == (1, 1)
        and all(options[name] == only for name, only in alike.items())
        and x.dtype != jnp.float64
    )
    if not computed or not _worthwhile(x.shape, kernel.shape, dilation):
        return by_definition(x, kernel)
    fast = functools.partial(conv3x3, dilation=dilation)
    return jax.lax.platform_dependent(x, kernel, cpu=fast, default=by_definition)


def _worthwhile(shape: Sequence[int], kernel: Sequence[int], dilation: int) -> bool:
    whole = not any(side % (2 * dilation) for side in shape[1:3])
    return whole and tuple(kernel[:2]) == (3, 3) and min(kernel[2:]) >= FEWEST_CHANNELS


@functools.partial(jax.jit, static_argnames="dilation")
def conv3x3(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c f"], *, dilation: int = 1
) -> Float[Array, "b h w f"]:
    """A 3x3 convolution (SAME, zeros outside, stride 1) by Winograd's algorithm, in float32.

    Rounds a little more than the definition. For gradients it keeps x and kernel alone, as the
    definition does, and makes the sixteen tile arrays (four times x together) again.

    Args:
      x: features; the sides are multiples of ``2 * dilation``.
      kernel: HWIO.
      dilation: distance between the kernel's taps.

    Returns:
      Features, in x's dtype.

    Raises:
      TypeError: if a side is no such multiple.
    """
    return jax.checkpoint(functools.partial(_conv3x3, dilation=dilation))(x, kernel)


def _conv3x3(x: Array, kernel: Array, dilation: int) -> Array:
    b, h, w, c = x.shape
    d, f, dtype = dilation, kernel.shape[-1], x.dtype
    x, kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    x = jnp.pad(x, ((0, 0), (d, d), (d, d), (0, 0)))
    # Dilated by d, the kernel meets every d-th row and column: d x d pictures, each convolved
    # plainly. An axis becomes (pairs of a picture's rows, which of the pair, which picture).
    x = x.reshape(b, h // (2 * d) + 1, 2, d, w // (2 * d) + 1, 2, d, c)
    tiles, taps = _along_both(_tiles, x, (1, 3)), _along_both(_taps, kernel, (0, 0))
    products = [
        (tile.reshape(-1, c) @ tap).reshape(*tile.shape[:-1], f)
        for tile, tap in zip(tiles, taps, strict=True)
    ]
    rows = [_pair(*products[i : i + 4]) for i in range(0, 16, 4)]
    columns = [jnp.stack(_pair(*column), axis=2) for column in zip(*rows, strict=True)]
    return jnp.stack(columns, axis=5).reshape(b, h, w, f).astype(dtype)


def _along_both(
    split: Callable[[Array, int], Parts], array: Array, axes: tuple[int, int]
) -> list[Array]:
    """Splits along one axis, each part then along another, numbered after the first is gone."""
    return [part for row in split(array, axes[0]) for part in split(row, axes[1])]


def _tiles(x: Array, axis: int) -> Parts:
    """What m0 to m3 take of the inputs; axis: of the pairs, the next one is which of the pair."""
    here = jax.lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)
    there = jax.lax.slice_in_dim(x, 1, x.shape[axis], axis=axis)
    (p, q), (r, s) = _unstacked(here, axis + 1), _unstacked(there, axis + 1)
    return p - r, q + r, r - q, q - s


def _taps(kernel: Array, axis: int) -> Parts:
    """What they take of the kernel."""
    a, b, c = _unstacked(kernel, axis)
    return a, (a + b + c) / 2, (a - b + c) / 2, c


def _pair(m0: Array, m1: Array, m2: Array, m3: Array) -> Parts:
    """Two neighbouring outputs."""
    return m0 + m1 + m2, m1 - m2 - m3


def _unstacked(array: Array, axis: int) -> Parts:
    return tuple(
        jax.lax.index_in_dim(array, at, axis, keepdims=False) for at in range(array.shape[axis])
    )
