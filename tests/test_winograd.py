"""Winograd's 3x3 convolution against the definition: values, every derivative, where it is used."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.test_util import check_grads

from covid_jax.models import ConvBlock, SCSEUNet, winograd
from covid_jax.models.winograd import FEWEST_CHANNELS, conv3x3

WIDE = FEWEST_CHANNELS


def by_definition(x: jax.Array, kernel: jax.Array, *, dilation: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def draw(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def assert_near(ours: jax.Array, theirs: jax.Array, share: float = 2e-6) -> None:
    """To a share of the largest value."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=share * float(jnp.abs(theirs).max()))


@pytest.mark.parametrize("tap", range(9))
@pytest.mark.parametrize("dilation", [1, 2])
def test_each_tap_alone_shifts_the_picture(tap: int, dilation: int) -> None:
    """Small whole numbers and halves are exact, so the result is."""
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

    for ours, theirs in zip(derivatives(conv3x3), derivatives(by_definition), strict=True):
        assert_near(ours, theirs, share=1e-5)


def test_its_gradients_are_those_of_finite_differences() -> None:
    arguments = (draw(0, 1, 2, 4, 2), draw(1, 3, 3, 2, 2))
    check_grads(conv3x3, arguments, order=1, modes=["fwd", "rev"], eps=0.5)


def test_it_maps_over_an_axis() -> None:
    x, kernels = draw(0, 1, 4, 4, 2), draw(1, 5, 3, 3, 2, 3)
    mapped = jax.vmap(conv3x3, (None, 0))(x, kernels)
    for ours, kernel in zip(mapped, kernels, strict=True):
        assert_near(ours, by_definition(x, kernel))


def test_far_from_zero_it_rounds_little_more_than_the_definition() -> None:
    """Against float64, on wide features with a mean of a hundred deviations."""
    x, kernel = draw(0, 1, 16, 16, 128) + 100, draw(1, 3, 3, 128, 128)
    with jax.enable_x64(True):
        exact = by_definition(jnp.asarray(x, jnp.float64), jnp.asarray(kernel, jnp.float64))
        largest = float(jnp.abs(exact).max())
        error = float(jnp.abs(conv3x3(x, kernel) - exact).max())
    assert error < 2e-6 * largest


def test_bfloat16_is_rounded_once_at_the_end() -> None:
    x, kernel = (a.astype(jnp.bfloat16) for a in (draw(0, 1, 4, 4, 64), draw(1, 3, 3, 64, 8)))
    ours = conv3x3(x, kernel)
    assert ours.dtype == jnp.bfloat16
    exact = by_definition(x.astype(jnp.float32), kernel.astype(jnp.float32))
    np.testing.assert_allclose(ours.astype(jnp.float32), exact, rtol=2**-8, atol=1e-4)


def test_gradients_keep_no_more_than_its_arguments() -> None:
    """Sixteen tiles, and as many taps, would be kept by plain differentiation."""
    x, kernel = draw(0, 1, 8, 8, 4), draw(1, 3, 3, 4, 4)
    _, back = jax.vjp(conv3x3, x, kernel)
    kept = sum(leaf.size for leaf in jax.tree.leaves(back) if hasattr(leaf, "size"))
    assert kept <= x.size + kernel.size


def kinds(block: ConvBlock, shape: tuple[int, ...], platform: str = "cpu") -> set[str]:
    """Which of the two the compiler is given."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(block.init, jax.random.key(0), x)
    lowered = jax.jit(block.apply).trace(variables, x).lower(lowering_platforms=(platform,))
    text = lowered.as_text()
    return {kind for kind in ("convolution", "dot_general") if f"stablehlo.{kind}" in text}


SQUARE = (1, 8, 8, WIDE)


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_wide_layers_on_a_cpu_are_products(dilation: int) -> None:
    assert kinds(ConvBlock(WIDE, dilation=dilation), SQUARE) == {"dot_general"}


@pytest.mark.parametrize(
    ("options", "shape", "platform"),
    [
        ({}, SQUARE, "cuda"),
        ({"strides": 2}, SQUARE, "cpu"),
        ({}, (1, 8, 8, WIDE - 1), "cpu"),
        ({}, (1, 8, 7, WIDE), "cpu"),
        ({"dilation": 4}, (1, 4, 8, WIDE), "cpu"),
    ],
)
def test_all_else_is_a_convolution(
    options: dict[str, Any], shape: tuple[int, ...], platform: str
) -> None:
    assert kinds(ConvBlock(WIDE, **options), shape, platform) == {"convolution"}


def test_the_network_is_the_same_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits and gradients, at widths that use both; a bias before a norm has none but rounding."""
    model, x = SCSEUNet(features=(32, 64, 128)), draw(0, 2, 32, 32, 1)
    variables = jax.jit(model.init)(jax.random.key(1), x)

    def found() -> Any:
        def total(variables: Any) -> tuple[jax.Array, jax.Array]:
            logits = jnp.asarray(model.apply(variables, x))
            return jnp.tanh(logits).mean(), logits

        return jax.jit(jax.grad(total, has_aux=True))(variables)

    gradients, logits = found()
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", 10**6)
    jax.clear_caches()
    other_gradients, other_logits = found()
    assert_near(logits, other_logits, share=1e-5)
    assert_near(*(ravel_pytree(tree)[0] for tree in (gradients, other_gradients)), share=1e-3)
