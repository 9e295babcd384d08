"""Upsampling folded into the convolution after it: the same values, gradients and parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from covid_jax.models import ConvBlock
from covid_jax.models.upsampling import UpsampledConv, conv_upsampled, upsample


def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The definition: doubled, then convolved."""
    return jax.lax.conv_general_dilated(
        upsample(x), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def draw(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def test_a_lone_pixel_under_a_kernel_of_digits() -> None:
    """One pixel, doubled to 2 x 2: each output is the sum of the four taps that fall on it."""
    digits = jnp.arange(1.0, 10.0).reshape(3, 3, 1, 1)
    out = conv_upsampled(jnp.ones((1, 1, 1, 1)), digits)
    expected = [[5 + 6 + 8 + 9, 4 + 5 + 7 + 8], [2 + 3 + 5 + 6, 1 + 2 + 4 + 5]]
    np.testing.assert_array_equal(out[0, :, :, 0], expected)


@pytest.mark.parametrize("tap", range(9))
def test_each_tap_alone_shifts_the_doubled_picture(tap: int) -> None:
    picture = np.arange(1.0, 13.0, dtype=np.float32).reshape(3, 4)
    doubled = np.pad(picture.repeat(2, 0).repeat(2, 1), 1)
    row, column = divmod(tap, 3)
    kernel = jnp.zeros((3, 3, 1, 1)).at[row, column].set(1.0)
    out = conv_upsampled(jnp.asarray(picture)[None, :, :, None], kernel)
    np.testing.assert_array_equal(out[0, :, :, 0], doubled[row : row + 6, column : column + 8])


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 1, 5, 2), (3, 7, 2, 1)])
def test_values_and_gradients_are_those_of_doubling_then_convolving(shape: tuple[int, ...]) -> None:
    x, kernel = draw(0, *shape), draw(1, 3, 3, shape[-1], 5)
    weights = draw(2, shape[0], 2 * shape[1], 2 * shape[2], 5)
    np.testing.assert_allclose(conv_upsampled(x, kernel), plain(x, kernel), atol=2e-5)
    folded = jax.grad(lambda *a: (conv_upsampled(*a) * weights).sum(), argnums=(0, 1))(x, kernel)
    direct = jax.grad(lambda *a: (plain(*a) * weights).sum(), argnums=(0, 1))(x, kernel)
    for ours, theirs in zip(folded, direct, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_its_gradients_are_those_of_finite_differences() -> None:
    check_grads(conv_upsampled, (draw(0, 1, 2, 3, 2), draw(1, 3, 3, 2, 2)), order=1, modes=["rev"])


def test_parameters_are_those_of_the_plain_convolution() -> None:
    """In name, shape and value, so that weights stored before the folding still load."""
    x = draw(0, 1, 4, 4, 3)
    plain_conv = nn.Conv(5, (3, 3), kernel_init=nn.initializers.glorot_uniform())
    theirs = plain_conv.init(jax.random.key(7), upsample(x))
    ours = UpsampledConv(5).init(jax.random.key(7), x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    moved = jax.tree.map(lambda leaf: leaf + 0.25, ours)
    np.testing.assert_allclose(
        UpsampledConv(5).apply(moved, x), plain_conv.apply(moved, upsample(x)), atol=2e-5
    )


def test_taps_are_summed_before_they_are_rounded_to_bfloat16() -> None:
    """1 + 2^-8, and 2^-8 beside it, are 1 + 2^-7 together; rounded first, the former would be 1."""
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1 + 2.0**-8).at[1, 2].set(2.0**-8)
    out = conv_upsampled(jnp.ones((1, 1, 1, 1), jnp.bfloat16), kernel)
    assert out.dtype == jnp.bfloat16
    assert float(out[0, 0, 0, 0]) == 1 + 2.0**-7


@pytest.mark.parametrize("options", [{"strides": 2}, {"dilation": 2}])
def test_a_stride_or_a_dilation_besides_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="neither stride nor dilation"):
        ConvBlock(4, upsampled=True, **options).init(jax.random.key(0), draw(0, 1, 4, 4, 3))
