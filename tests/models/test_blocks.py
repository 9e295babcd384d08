"""The blocks against closed forms; the receptive field, measured from gradients; upsampling."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from covid_jax.models import ConvBlock, ResDil, SCSEUNet
from covid_jax.models.blocks import conv_upsampled, upsample

EPSILON = 1e-5  # added to the norm's variance


@pytest.fixture(autouse=True)
def plain_float32():
    """No TF32 where the tests run on a GPU."""
    with jax.default_matmul_precision("highest"):
        yield


def without_norms(next_fun: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext):
    """Interceptor: an instance norm returns its input."""
    return args[0] if isinstance(context.module, nn.InstanceNorm) else next_fun(*args, **kwargs)


def delta(shape: tuple[int, ...]) -> jax.Array:
    """Kernel that copies each channel's centre pixel."""
    return jnp.zeros(shape).at[shape[0] // 2, shape[1] // 2].set(jnp.eye(*shape[2:]))


def norm_alone(channels: int, scale: Any = 1.0, bias: Any = 0.0) -> dict[str, Any]:
    """Variables of a ConvBlock whose convolution copies its input."""
    conv = {"kernel": delta((3, 3, channels, channels)), "bias": jnp.zeros(channels)}
    norm = {
        name: jnp.broadcast_to(jnp.float32(value), channels)
        for name, value in (("scale", scale), ("bias", bias))
    }
    return {"params": {"conv": conv, "norm": norm}}


@pytest.mark.parametrize(
    ("strides", "dilation", "expected"),
    [
        # Taps of a 3x3 kernel of ones inside a 4x4 image of ones: 3 or 2 rows times 3 or 2 columns.
        (1, 1, np.outer([2, 3, 3, 2], [2, 3, 3, 2])),
        # Stride 2: windows of rows 0-2 and 2-4, of which row 4 is padding. Padding above instead,
        # as torch's padding=1 does, would give rows -1-1 and 1-3: np.outer([2, 3], [2, 3]).
        (2, 1, np.outer([3, 2], [3, 2])),
        # Dilation 2: rows i - 2, i, i + 2, of which two are inside 0-3 for every i.
        (1, 2, np.outer([2, 2, 2, 2], [2, 2, 2, 2])),
    ],
)
def test_same_padding(strides: int, dilation: int, expected: np.ndarray) -> None:
    """SAME as in Keras: at stride 2 it falls below and right only."""
    block = ConvBlock(1, strides=strides, dilation=dilation)
    conv = {"kernel": jnp.ones((3, 3, 1, 1)), "bias": jnp.zeros(1)}
    with nn.intercept_methods(without_norms):
        out = block.apply({"params": {"conv": conv}}, jnp.ones((1, 4, 4, 1)))
    np.testing.assert_array_equal(out[0, :, :, 0], expected)


def test_norm_is_over_each_slice_and_channel() -> None:
    """(x - mean) / sqrt(var + eps) * scale + bias, mean and var of one slice's one channel."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 6, 8, 3)) * [1.0, 5.0, 0.1] + np.reshape([2.0, -3.0], (2, 1, 1, 1))
    scale, bias = np.array([1.0, 2.0, -0.5]), np.array([0.0, 1.0, -2.0])
    out = ConvBlock(3, negative_slope=1.0).apply(norm_alone(3, scale, bias), jnp.float32(x))
    mean, var = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    expected = (x - mean) / np.sqrt(var + EPSILON) * scale + bias
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-5)


def test_norm_adds_1e_5_to_the_variance() -> None:
    """A variance of 1e-6 does not hide it: 1e-3 / sqrt(1e-6 + 1e-5) = 0.3015."""
    x = 1e-3 * np.array([[1.0, -1.0], [-1.0, 1.0]]).reshape(1, 2, 2, 1)
    out = ConvBlock(1, negative_slope=1.0).apply(norm_alone(1), jnp.float32(x))
    np.testing.assert_allclose(out, x / np.sqrt(1e-6 + 1e-5), rtol=1e-4)


def test_norm_is_stable_where_the_mean_is_far_from_zero() -> None:
    """Mean 1e4, deviation 1: in float32 the mean has steps of 1e-3, E[x^2] - E[x]^2 steps of 8."""
    x = np.float32(1e4 + np.random.default_rng(0).normal(size=(1, 32, 32, 1)))
    out = ConvBlock(1, negative_slope=1.0).apply(norm_alone(1), jnp.asarray(x))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(out, (exact - exact.mean()) / exact.std(), rtol=0, atol=0.02)


def test_bfloat16_keeps_the_norm_statistics_in_float32() -> None:
    """Half the pixels 100, half 100.5: the mean, 100.25, has no bfloat16; the output is -1 and 1.

    With a rounded mean one half of the pixels would come out as zero.
    """
    x = jnp.array([[100.0, 100.5], [100.5, 100.0]], jnp.bfloat16).reshape(1, 2, 2, 1)
    block = ConvBlock(1, negative_slope=1.0, dtype=jnp.bfloat16)
    out = block.apply(norm_alone(1), x)
    assert out.dtype == jnp.bfloat16
    expected = np.reshape([-1, 1, 1, -1], x.shape)
    np.testing.assert_allclose(out.astype(jnp.float32), expected, rtol=2**-8)
    params = jax.eval_shape(block.init, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("options", "slope"),
    [({}, 0.3), ({"negative_slope": 0.01}, 0.01), ({"negative_slope": 0.0}, 0.0)],
)
def test_leaky_relu(options: dict[str, float], slope: float) -> None:
    """Pixels 1 and -1 (mean 0, variance 1) become 1 and -slope, over sqrt(1 + eps); default 0.3."""
    x = np.array([[1.0, -1.0], [-1.0, 1.0]]).reshape(1, 2, 2, 1)
    out = ConvBlock(1, **options).apply(norm_alone(1), jnp.float32(x))
    expected = np.where(x > 0, 1.0, -slope) / np.sqrt(1 + EPSILON)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)


def test_resdil_adds_its_input_and_applies_nothing_after_the_sum() -> None:
    """With a second norm that puts out zeros it returns its input, negative pixels included."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 8, 8, 4)), jnp.float32)
    shapes = jax.eval_shape(ResDil().init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: jnp.float32(rng.normal(size=leaf.shape)), shapes)
    variables["params"]["second"]["norm"] = {"scale": jnp.zeros(4), "bias": jnp.zeros(4)}
    assert x.min() < -1
    np.testing.assert_array_equal(ResDil().apply(variables, x), x)


SIZE = 32  # of the images on which receptive fields are measured


def averaging(module: nn.Module) -> dict[str, Any]:
    """Variables that make every convolution the mean of its taps."""
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 1), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), image)
    return jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1 / np.prod(leaf.shape[:-1])), shapes)


def seen(features: Callable[[jax.Array], jax.Array]) -> np.ndarray:
    """Pixels of the image on which the features of its centre pixel depend.

    Norms are taken out, as each sees the whole slice. Image and kernels are positive: no
    LeakyReLU is on its slope, no two paths cancel.
    """

    def centre(image: jax.Array) -> jax.Array:
        with nn.intercept_methods(without_norms):
            return features(image)[0, SIZE // 2, SIZE // 2].sum()

    return np.asarray(jax.jit(jax.grad(centre))(jnp.ones((1, SIZE, SIZE, 1)))[0, :, :, 0]) != 0


def square(side: int, step: int = 1) -> np.ndarray:
    """A square of pixels around the centre, filled, or every ``step``-th pixel of it."""
    pixels = np.zeros((SIZE, SIZE), bool)
    taps = slice(SIZE // 2 - side // 2, SIZE // 2 + side // 2 + 1, step)
    pixels[taps, taps] = True
    return pixels


def test_a_level_sees_15_by_15() -> None:
    """Fig. 3: 1 + 2 (1 + 2 + 4) = 15, without holes; the network's own first level."""
    network = SCSEUNet(features=(4, 8))
    variables = averaging(network)

    def first_level(image: jax.Array) -> jax.Array:
        _, state = network.apply(
            variables,
            image,
            capture_intermediates=lambda module, _: module.name == "encoder1_resdil",
        )
        return state["intermediates"]["encoder1_resdil"]["__call__"][0]

    np.testing.assert_array_equal(seen(first_level), square(15))


def test_resdil_alone_sees_13_by_13_with_holes() -> None:
    """1 + 2 (2 + 4) = 13, every second pixel; its identity is taken off."""
    variables = averaging(ResDil())
    np.testing.assert_array_equal(
        seen(lambda image: ResDil().apply(variables, image) - image), square(13, step=2)
    )


def test_three_plain_layers_see_7_by_7() -> None:
    """Fig. 3's comparison: 1 + 2 (1 + 1 + 1) = 7."""
    plain = nn.Sequential([ConvBlock(1), ConvBlock(1), ConvBlock(1)])
    variables = averaging(plain)
    np.testing.assert_array_equal(seen(lambda image: plain.apply(variables, image)), square(7))


@pytest.mark.parametrize(
    ("layer", "other", "dilation"), [("first", "second", 2), ("second", "first", 4)]
)
def test_resdil_dilates_by_2_then_4(layer: str, other: str, dilation: int) -> None:
    """With the other layer a copy, what is left are one 3x3 kernel's taps."""
    variables = averaging(ResDil())
    variables["params"][other]["conv"]["kernel"] = delta((3, 3, 1, 1))
    np.testing.assert_array_equal(
        seen(lambda image: ResDil().apply(variables, image) - image),
        square(1 + 2 * dilation, step=dilation),
    )


def test_upsample_repeats_each_pixel_2_by_2() -> None:
    x = np.float32([[1, 2, 3], [4, 5, 6]])
    expected = [
        [1, 1, 2, 2, 3, 3],
        [1, 1, 2, 2, 3, 3],
        [4, 4, 5, 5, 6, 6],
        [4, 4, 5, 5, 6, 6],
    ]
    batch = jnp.stack([jnp.stack([x, -x], axis=-1), jnp.stack([10 * x, x], axis=-1)])
    out = upsample(batch)
    np.testing.assert_array_equal(out[0, :, :, 0], expected)
    np.testing.assert_array_equal(out[1, :, :, 0], 10 * np.array(expected))
    np.testing.assert_array_equal(out[:, :, :, 1], np.multiply([[[-1]], [[1]]], expected))


def upsample_then_convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
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
    np.testing.assert_allclose(
        conv_upsampled(x, kernel), upsample_then_convolve(x, kernel), atol=2e-5
    )

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=(1, 2))
    def gradients(convolve: Any, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return (convolve(x, kernel) * weights).sum()

    folded = gradients(conv_upsampled, x, kernel)
    direct = gradients(upsample_then_convolve, x, kernel)
    for ours, theirs in zip(folded, direct, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_its_gradients_are_those_of_finite_differences() -> None:
    check_grads(
        jax.jit(conv_upsampled), (draw(0, 1, 2, 3, 2), draw(1, 3, 3, 2, 2)), order=1, modes=["rev"]
    )


def test_parameters_are_those_of_the_plain_convolution() -> None:
    """In name, shape and value, so that weights stored before the folding still load."""
    x = draw(0, 1, 4, 4, 3)
    plain, upsampled = ConvBlock(5), ConvBlock(5, upsampled=True)
    theirs = plain.init(jax.random.key(7), upsample(x))
    ours = upsampled.init(jax.random.key(7), x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    moved = jax.tree.map(lambda leaf: leaf + 0.25, ours)
    np.testing.assert_allclose(
        upsampled.apply(moved, x), plain.apply(moved, upsample(x)), atol=2e-5
    )


def test_taps_are_summed_before_they_are_rounded_to_bfloat16() -> None:
    """1 + 2^-8, and 2^-8 beside it, are 1 + 2^-7 together; rounded first, the former would be 1."""
    block = ConvBlock(1, upsampled=True, dtype=jnp.bfloat16)
    x = jnp.ones((1, 1, 1, 1), jnp.bfloat16)
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1 + 2.0**-8).at[1, 2].set(2.0**-8)
    params: Any = block.init(jax.random.key(0), x)["params"]
    params["conv"]["kernel"] = kernel
    _, seen = block.apply({"params": params}, x, capture_intermediates=True)
    (out,) = seen["intermediates"]["conv"]["__call__"]
    assert out.dtype == jnp.bfloat16
    assert float(out[0, 0, 0, 0]) == 1 + 2.0**-7
