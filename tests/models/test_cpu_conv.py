"""Winograd's 3x3 convolution against the definition: values, every derivative, where it is used."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.test_util import check_grads

from benchmarks.speed.layers import by_definition
from covid_jax.models import ConvBlock, SCSEUNet, cpu_conv
from covid_jax.models.cpu_conv import FEWEST_CHANNELS, conv3x3

WIDE = FEWEST_CHANNELS
WideBlock = functools.partial(ConvBlock, WIDE)


def draw(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def assert_near(ours: jax.Array, theirs: jax.Array, share: float = 2e-6) -> None:
    """To a share of the largest value."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=share * float(jnp.abs(theirs).max()))


@pytest.mark.parametrize("tap", range(9))
@pytest.mark.parametrize("dilation", [1, 2])
def test_each_tap_alone_shifts_the_picture(tap: int, dilation: int) -> None:
    """Small whole numbers, their halves and quarters are exact, so the result is."""
    picture = np.arange(1.0, 33.0, dtype=np.float32).reshape(4, 8)
    row, column = (dilation * place for place in divmod(tap, 3))
    kernel = jnp.zeros((3, 3, 1, 1)).at[divmod(tap, 3)].set(1.0)
    out = conv3x3(jnp.asarray(picture)[None, :, :, None], kernel, dilation=dilation)
    shifted = np.pad(picture, dilation)[row : row + 4, column : column + 8]
    np.testing.assert_array_equal(out[0, :, :, 0], shifted)


@pytest.mark.parametrize(
    ("shape", "dilation"),
    [((2, 4, 6, 3), 1), ((1, 2, 2, 1), 1), ((2, 8, 4, 3), 2), ((1, 8, 16, 2), 4)],
)
def test_values_and_derivatives_are_the_definitions(shape: tuple[int, ...], dilation: int) -> None:
    x, kernel = draw(0, *shape), draw(1, 3, 3, shape[-1], 5)
    moves, weights = (draw(2, *shape), draw(3, 3, 3, shape[-1], 5)), draw(4, *shape[:3], 5)

    def derivatives(convolve: Callable[..., jax.Array]) -> list[jax.Array]:
        def of(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return convolve(x, kernel, dilation=dilation)

        def weighted(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return (of(x, kernel) ** 2 * weights).sum()

        forward = jax.jvp(of, (x, kernel), moves)
        backward = jax.grad(weighted, argnums=(0, 1))(x, kernel)
        second = jax.grad(lambda k: (jax.grad(weighted)(x, k) * moves[0]).sum())(kernel)
        return [*forward, *backward, second]

    winograd, direct = jax.jit(lambda: (derivatives(conv3x3), derivatives(by_definition)))()
    for ours, theirs in zip(winograd, direct, strict=True):
        assert_near(ours, theirs, share=1e-5)


def test_its_gradients_are_those_of_finite_differences() -> None:
    arguments = (draw(0, 1, 2, 4, 2), draw(1, 3, 3, 2, 2))
    check_grads(jax.jit(conv3x3), arguments, order=1, modes=["fwd", "rev"], eps=0.5)


def test_it_maps_over_an_axis() -> None:
    x, kernels = draw(0, 1, 4, 4, 2), draw(1, 5, 3, 3, 2, 3)
    mapped = jax.vmap(conv3x3, (None, 0))(x, kernels)
    for ours, kernel in zip(mapped, kernels, strict=True):
        assert_near(ours, by_definition(x, kernel))


def test_far_from_zero_it_rounds_at_most_three_times_as_coarsely() -> None:
    """Against float64, on wide features with a mean of a hundred deviations."""
    x, kernel = draw(0, 1, 16, 16, 128) + 100, draw(1, 3, 3, 128, 128)
    with jax.enable_x64(True):
        exact = by_definition(jnp.asarray(x, jnp.float64), jnp.asarray(kernel, jnp.float64))
        ours, theirs = (
            float(jnp.abs(way(x, kernel) - exact).max()) for way in (conv3x3, by_definition)
        )
    assert 0 < ours < 3 * theirs


def test_bfloat16_is_rounded_once_at_the_end() -> None:
    x, kernel = (a.astype(jnp.bfloat16) for a in (draw(0, 1, 4, 4, 64), draw(1, 3, 3, 64, 8)))
    ours = conv3x3(x, kernel)
    assert ours.dtype == jnp.bfloat16
    exact = by_definition(x.astype(jnp.float32), kernel.astype(jnp.float32))
    np.testing.assert_allclose(ours.astype(jnp.float32), exact, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_keep_its_arguments_and_nothing_else(dtype: Any) -> None:
    """Sixteen tiles, and as many taps, would be kept by plain differentiation."""
    x, kernel = draw(0, 1, 8, 8, 4).astype(dtype), draw(1, 3, 3, 4, 4).astype(dtype)
    residuals = jax.tree.leaves(jax.eval_shape(lambda *a: jax.vjp(conv3x3, *a)[1], x, kernel))
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in residuals) == x.nbytes + kernel.nbytes


def kinds(block: ConvBlock, shape: tuple[int, ...], platform: str = "cpu") -> set[str]:
    """Which of the two the compiler is given."""
    x = jax.ShapeDtypeStruct(shape, block.dtype)
    variables = jax.eval_shape(block.init, jax.random.key(0), x)
    lowered = jax.jit(block.apply).trace(variables, x).lower(lowering_platforms=(platform,))
    text = lowered.as_text()
    return {kind for kind in ("convolution", "dot_general") if f"stablehlo.{kind}" in text}


SQUARE = (1, 8, 8, WIDE)


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_wide_layers_on_a_cpu_are_products(dilation: int) -> None:
    assert kinds(WideBlock(dilation=dilation), SQUARE) == {"dot_general"}


@pytest.mark.parametrize(
    ("options", "shape", "platform"),
    [
        ({}, SQUARE, "cuda"),
        ({"strides": 2}, SQUARE, "cpu"),
        ({"dtype": jnp.bfloat16}, SQUARE, "cpu"),  # which cpu_bfloat16 takes care of
        ({}, (1, 8, 8, WIDE - 1), "cpu"),
        ({}, (1, 8, 7, WIDE), "cpu"),
        ({}, (1, 7, 8, WIDE), "cpu"),
        ({"dilation": 4}, (1, 4, 8, WIDE), "cpu"),
    ],
)
def test_all_else_is_a_convolution(
    options: dict[str, Any], shape: tuple[int, ...], platform: str
) -> None:
    assert kinds(WideBlock(**options), shape, platform) == {"convolution"}


def traced(x: jax.Array, **changed: Any) -> str:
    """What the gate makes of a wide convolution with one argument changed, traced."""
    options: dict[str, Any] = {
        "lhs_dilation": (1, 1),
        "rhs_dilation": (1, 1),
        "feature_group_count": 1,
        "precision": None,
        "strides": (1, 1),
        "padding": "SAME",
        "features": WIDE,
    } | changed
    kernel = jnp.zeros(
        (3, 3, x.shape[-1] // options["feature_group_count"], options.pop("features")), x.dtype
    )
    convolve = functools.partial(
        cpu_conv.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )
    return str(jax.make_jaxpr(convolve)(x, kernel))


@pytest.mark.parametrize(
    "changed",
    [
        {"lhs_dilation": (2, 2), "padding": [(1, 1), (1, 1)]},
        {"rhs_dilation": (1, 2)},
        {"feature_group_count": 2},
        {"precision": jax.lax.Precision.HIGHEST},
        {"padding": "VALID"},
        {"strides": (1, 2)},
        {"features": WIDE - 2},
    ],
    ids=str,
)
def test_arguments_it_does_not_compute_go_to_the_definition(changed: dict[str, Any]) -> None:
    x = jnp.zeros((1, 8, 8, 2 * WIDE))
    assert "dot_general" in traced(x)
    assert "dot_general" not in traced(x, **changed)


def test_float64_goes_to_the_definition() -> None:
    with jax.enable_x64(True):
        assert "dot_general" not in traced(jnp.zeros((1, 8, 8, WIDE), jnp.float64))


@pytest.mark.slow
def test_the_network_is_the_same_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits and each parameter's gradient, all 3x3 layers at stride 1 by one way or the other.

    Without kinks: slopes are one, and no gate sees a mean of zero. The gradients of biases before
    norms are rounding alone: a millionth of the largest.
    """
    model, x = (
        SCSEUNet(features=(4, 6), negative_slope=1.0, attention="none"),
        draw(0, 1, 16, 16, 1),
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: jnp.float32(0.3 * rng.normal(size=leaf.shape)), shapes)

    def logits_and_gradients(fewest: int) -> Any:
        monkeypatch.setattr(cpu_conv, "FEWEST_CHANNELS", fewest)

        def total(variables: Any) -> tuple[jax.Array, jax.Array]:
            logits = jnp.asarray(model.apply(variables, x))
            return jnp.tanh(logits).mean(), logits

        gradients, logits = jax.jit(jax.grad(total, has_aux=True))(variables)
        return logits, traverse_util.flatten_dict(gradients["params"], sep="/")

    logits, ours = logits_and_gradients(fewest=1)
    other_logits, theirs = logits_and_gradients(fewest=10**6)
    assert (logits != other_logits).any()  # two ways of rounding: both were taken
    assert_near(logits, other_logits, share=1e-5)
    largest = max(float(jnp.abs(gradient).max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        size = float(jnp.abs(gradient).max())
        assert size > 1e-3 * largest or not name.endswith("conv/kernel")
        atol = max(1e-3 * size, 1e-6 * largest)
        np.testing.assert_allclose(ours[name], gradient, rtol=0, atol=atol, err_msg=name)


def test_a_program_for_two_platforms_and_any_batch_has_both() -> None:
    """As ``covid-jax export`` writes it."""
    block = WideBlock()
    variables = jax.jit(block.init)(jax.random.key(0), jnp.zeros(SQUARE))
    shape = jax.export.symbolic_shape(f"b, 8, 8, {WIDE}")
    exported = jax.export.export(
        jax.jit(functools.partial(block.apply, variables)), platforms=("cpu", "cuda")
    )(jax.ShapeDtypeStruct(shape, jnp.float32))
    program = exported.mlir_module()
    assert "stablehlo.dot_general" in program
    assert "stablehlo.convolution" in program
    for batch in (1, 3):
        x = draw(batch, batch, *SQUARE[1:])
        assert_near(exported.call(x), jnp.asarray(block.apply(variables, x)))
