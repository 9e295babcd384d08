"""The chain of the optimiser, each link on a closed form; what it does with a bad step."""

import functools
import math
from collections.abc import Iterable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from covid_jax.runs.config import OptimizerConfig
from covid_jax.training.optimizer import (
    BAD_STEPS,
    SkipState,
    moving_average,
    optimizer,
    schedule,
)

RATE = 0.5
PARAMS = {"kernel": jnp.zeros((3, 4)), "norm": {"scale": jnp.zeros(2), "bias": jnp.zeros(())}}
ONES = jax.tree.map(jnp.ones_like, PARAMS)


def random_gradients(count: int) -> list[Any]:
    """Of very different sizes, as those of different layers are."""
    rng = np.random.default_rng(0)

    def draw(leaf: jax.Array) -> jax.Array:
        sizes = 10.0 ** rng.uniform(-9, 2, leaf.shape)
        return jnp.asarray(sizes * rng.normal(size=leaf.shape), jnp.float32)

    return [jax.tree.map(draw, PARAMS) for _ in range(count)]


def run(
    chain: optax.GradientTransformation,
    gradients: Iterable[Any],
    losses: Iterable[float] | None = None,
    **extra: float,
) -> tuple[list[Any], Any]:
    """What each step adds to the parameters, and the state in the end."""

    @jax.jit
    def step(gradient, state, loss):
        return optax.with_extra_args_support(chain).update(
            gradient, state, PARAMS, loss=loss, **({"factor": 1.0} | extra)
        )

    gradients = list(gradients)
    state, updates = chain.init(PARAMS), []
    for gradient, loss in zip(gradients, losses or [0.5] * len(gradients), strict=True):
        update, state = step(gradient, state, loss)
        updates.append(update)
    return updates, state


def rates(chain: optax.GradientTransformation, count: int) -> list[float]:
    """The learning rate of each step: under a gradient of ones both of Adam's averages are one."""
    updates, _ = run(chain, [ONES] * count)
    for update in updates:
        spread = [float(leaf) for part in jax.tree.leaves(update) for leaf in part.ravel()]
        assert len(set(spread)) == 1
    return [-float(update["norm"]["bias"]) for update in updates]


def test_the_default_chain_is_adam_bit_by_bit() -> None:
    gradients = random_gradients(30)
    updates, _ = run(optimizer(OptimizerConfig(), steps=30), gradients)
    expected, _ = run(optax.adam(5e-5, b1=0.9, b2=0.999, eps=1e-7), gradients)
    chex.assert_trees_all_equal(updates, expected)
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(updates))


def test_adam_is_its_textbook_recursion() -> None:
    """In float64: m, v, their bias corrections, and Keras' 1e-7 beside the root."""
    gradients = random_gradients(30)
    updates, _ = run(optimizer(OptimizerConfig(learning_rate=RATE), steps=30), gradients)
    m = v = np.zeros((3, 4))
    for t, (gradient, update) in enumerate(zip(gradients, updates, strict=True), start=1):
        g = np.asarray(gradient["kernel"], np.float64)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        expected = -RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
        np.testing.assert_allclose(update["kernel"], expected, rtol=2e-4)


@pytest.mark.parametrize(
    ("clip_norm", "kept"), [(1.0, (0.6, -0.8)), (10.0, (3.0, -4.0)), (None, (3.0, -4.0))]
)
def test_a_gradient_longer_than_the_limit_is_shortened_to_it(clip_norm, kept) -> None:
    """3 and -4 in two leaves have norm 5; Adam's first moment is then a tenth of what it is fed."""
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    gradient = zeros | {
        "kernel": zeros["kernel"].at[1, 2].set(3.0),
        "norm": zeros["norm"] | {"bias": jnp.float32(-4.0)},
    }
    _, state = run(optimizer(OptimizerConfig(clip_norm=clip_norm), steps=9), [gradient])
    moment = state.inner[1].mu
    found = moment["kernel"][1, 2], moment["norm"]["bias"]
    np.testing.assert_allclose(found, np.multiply(0.1, kept), rtol=1e-6)
    assert sum(jnp.count_nonzero(leaf) for leaf in jax.tree.leaves(moment)) == 2


def cosine_by_hand(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return RATE * step / warmup
    return RATE * (1 + math.cos(math.pi * min(1.0, (step - warmup) / (steps - warmup)))) / 2


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_cosine_rises_in_a_line_and_falls_to_zero(warmup: int) -> None:
    config = OptimizerConfig(learning_rate=RATE, schedule="cosine")
    planned = schedule(config, 20, warmup)
    expected = [cosine_by_hand(step, 20, warmup) for step in range(25)]
    np.testing.assert_allclose([planned(t) for t in range(25)], expected, atol=1e-7)
    assert max(expected) == expected[warmup] == RATE
    middle = (20 + warmup) // 2
    assert float(planned(middle)) == pytest.approx(cosine_by_hand(middle, 20, warmup))
    assert [float(planned(t)) for t in range(20, 25)] == [0.0] * 5
    taken = rates(optimizer(config, 20, warmup), 25)
    np.testing.assert_allclose(taken, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_a_constant_rate_may_be_risen_to(warmup: int) -> None:
    config = OptimizerConfig(learning_rate=RATE)
    expected = [RATE * min(1.0, t / warmup) if warmup else RATE for t in range(12)]
    planned = schedule(config, 12, warmup)
    np.testing.assert_allclose([planned(t) for t in range(12)], expected, rtol=1e-6)
    np.testing.assert_allclose(rates(optimizer(config, 12, warmup), 12), expected, rtol=1e-4)


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_the_plateau_s_factor_multiplies_the_updates(schedule) -> None:
    """By a power of two, so that nothing is rounded; the moments know nothing of it."""
    chain = optimizer(OptimizerConfig(schedule=schedule, clip_norm=1.0), 9, 2)
    gradients = random_gradients(5)
    whole, state = run(chain, gradients)
    quarter, other = run(chain, gradients, factor=0.25)
    chex.assert_trees_all_equal(quarter, jax.tree.map(lambda u: 0.25 * u, whole))
    chex.assert_trees_all_equal(other, state)


FULL = optimizer(OptimizerConfig(schedule="cosine", clip_norm=1.0), 40, 5)
LARGE = 1e25  # finite, but its square is not
BAD = {
    "NaN loss": (None, math.nan),
    "infinite loss": (None, -math.inf),
    "NaN in one gradient": (math.nan, 0.5),
    "infinity in one gradient": (-math.inf, 0.5),
    "a square that overflows": (LARGE, 0.5),
}


def planted(kind: str, gradient: Any) -> tuple[Any, float]:
    """Gradient and loss of a step that must not be taken."""
    value, loss = BAD[kind]
    if value is None:
        return gradient, loss
    return gradient | {"kernel": gradient["kernel"].at[2, 0].set(value)}, loss


@pytest.mark.parametrize("config", [OptimizerConfig(), OptimizerConfig(clip_norm=1.0)])
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_step_changes_nothing_but_its_counters(kind: str, config: OptimizerConfig) -> None:
    chain, gradients = optimizer(config, 9), random_gradients(3)
    _, before = run(chain, gradients[:2])
    gradient, loss = planted(kind, gradients[2])
    updates, after = run(chain, [*gradients[:2], gradient], [0.5, 0.5, loss])
    chex.assert_trees_all_equal(updates[-1], jax.tree.map(jnp.zeros_like, PARAMS))
    chex.assert_trees_all_equal(after.inner, before.inner)
    chex.assert_tree_all_finite(after)
    assert (int(after.in_a_row), int(after.total)) == (1, 1)


STEP = jax.jit(FULL.update)
GRADIENTS = random_gradients(24)
FIVE = ["NaN loss", "infinite loss", "NaN in one gradient", "NaN loss", "a square that overflows"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["good", "good", *BAD]), max_size=len(GRADIENTS)))
@example([*FIVE, "good", "NaN loss", "good"])
@example(["good", *FIVE[:4], "good", *FIVE[1:], "good", "good"])
def test_bad_steps_in_between_leave_no_trace(kinds: list[str]) -> None:
    """The good ones go as if the bad had not been; after five bad in a row nothing goes."""
    state = alone = FULL.init(PARAMS)
    in_a_row = total = 0
    for kind, gradient in zip(kinds, GRADIENTS, strict=False):
        given_, loss = (gradient, 0.5) if kind == "good" else planted(kind, gradient)
        update, state = STEP(given_, state, PARAMS, loss=loss, factor=1.0)
        if kind == "good" and in_a_row < 5:
            expected, alone = STEP(gradient, alone, PARAMS, loss=0.5, factor=1.0)
            in_a_row = 0
        else:
            expected = jax.tree.map(jnp.zeros_like, PARAMS)
            in_a_row, total = in_a_row + (kind != "good"), total + 1
        chex.assert_trees_all_equal(update, expected)
        chex.assert_trees_all_equal(state.inner, alone.inner)
        assert (int(state.in_a_row), int(state.total)) == (in_a_row, total)


@pytest.mark.parametrize("config", [OptimizerConfig(), OptimizerConfig(clip_norm=1.0)])
def test_the_compiled_update_grows_with_the_parameters_not_their_square(
    config: OptimizerConfig,
) -> None:
    """The test of every gradient is one kernel's, not worked out anew in each parameter's."""

    def instructions(count: int) -> int:
        params = [jnp.zeros((2, place + 1)) for place in range(count)]
        chain = optimizer(config, steps=1)
        update = jax.jit(functools.partial(chain.update, loss=jnp.zeros(()), factor=jnp.ones(())))
        return update.lower(params, chain.init(params)).compile().as_text().count(" = ")

    assert instructions(40) < 2.5 * instructions(20)


def test_the_last_good_state_is_kept_for_ever() -> None:
    """Past the fifth bad step a hundred good ones change nothing."""
    assert BAD_STEPS == 5
    gradients = random_gradients(1) * 106
    losses = [0.5, *[math.nan] * 5, *[0.5] * 100]
    _, once = run(FULL, gradients[:1])
    updates, state = run(FULL, gradients, losses)
    chex.assert_trees_all_equal(state, SkipState(once.inner, jnp.int32(5), jnp.int32(105)))
    chex.assert_trees_all_equal(updates[1:], [jax.tree.map(jnp.zeros_like, PARAMS)] * 105)


def left(count: int, decay: float) -> float:
    """Of the first weight, which was 1 and is 0 after every step."""
    average = {"w": jnp.ones(())}
    for step in range(count):
        average = moving_average(average, {"w": jnp.zeros(())}, jnp.int32(step), decay)
    return float(average["w"])


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_a_young_average_soon_forgets_the_first_weights(count: int) -> None:
    """The product of (1 + t) / (10 + t) is one over C(count + 9, 9)."""
    assert left(count, decay=0.9999) == pytest.approx(1 / math.comb(count + 9, 9), rel=1e-5)


def test_an_average_settles_at_its_decay() -> None:
    """(1 + t) / (10 + t) is 1/4 at t = 2: from there on a quarter is kept at each step."""
    expected = [1 / 10, 2 / 110, 2 / 440, 2 / 1760, 2 / 7040]
    assert [left(n, 0.25) for n in range(1, 6)] == pytest.approx(expected, rel=1e-6)
    assert left(2000, 0.75) == 0.0


def test_the_average_is_its_recursion_on_random_weights() -> None:
    """In float64, on leaves of all shapes."""
    weights = random_gradients(25)
    average: Any = weights[0]
    expected = np.asarray(weights[0]["kernel"], np.float64)
    for t, params in enumerate(weights[1:]):
        average = moving_average(average, params, jnp.int32(t), 0.6)
        decay = min(0.6, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * np.asarray(params["kernel"], np.float64)
    scale = max(float(jnp.abs(params["kernel"]).max()) for params in weights)
    np.testing.assert_allclose(average["kernel"], expected, rtol=1e-5, atol=1e-6 * scale)
    chex.assert_trees_all_equal_shapes_and_dtypes(average, PARAMS)
