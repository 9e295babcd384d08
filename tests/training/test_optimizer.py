"""The optimiser and its learning rate, on closed forms and against optax."""

import math
from collections.abc import Iterable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from covid_jax.training.optimizer import learning_rate_schedule, make_optimizer

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


def run(tx: optax.GradientTransformation, gradients: Iterable[Any]) -> tuple[list[Any], Any]:
    """What each step adds to the parameters, and the state in the end."""
    step = jax.jit(lambda gradient, state: tx.update(gradient, state, PARAMS))
    state, updates = tx.init(PARAMS), []
    for gradient in gradients:
        update, state = step(gradient, state)
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
    updates, _ = run(make_optimizer(), gradients)
    expected, _ = run(optax.adam(5e-5, b1=0.9, b2=0.999, eps=1e-7), gradients)
    chex.assert_trees_all_equal(updates, expected)
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(updates))


def test_adam_is_its_textbook_recursion() -> None:
    """In float64: m, v, their bias corrections, and Keras' 1e-7 beside the root."""
    gradients = random_gradients(30)
    updates, _ = run(make_optimizer(RATE), gradients)
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
    _, state = run(make_optimizer(clip_norm=clip_norm), [gradient])
    moment = optax.tree.get(state, "mu")
    found = moment["kernel"][1, 2], moment["norm"]["bias"]
    np.testing.assert_allclose(found, np.multiply(0.1, kept), rtol=1e-6)
    assert sum(jnp.count_nonzero(leaf) for leaf in jax.tree.leaves(moment)) == 2


def cosine_by_hand(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return RATE * step / warmup
    return RATE * (1 + math.cos(math.pi * min(1.0, (step - warmup) / (steps - warmup)))) / 2


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_cosine_rises_in_a_line_and_falls_to_zero(warmup: int) -> None:
    planned = learning_rate_schedule(RATE, "cosine", steps=20, warmup_steps=warmup)
    expected = [cosine_by_hand(step, 20, warmup) for step in range(25)]
    np.testing.assert_allclose([planned(t) for t in range(25)], expected, atol=1e-7)
    assert max(expected) == expected[warmup] == RATE
    middle = (20 + warmup) // 2
    assert float(planned(middle)) == pytest.approx(cosine_by_hand(middle, 20, warmup))
    assert [float(planned(t)) for t in range(20, 25)] == [0.0] * 5
    taken = rates(make_optimizer(planned), 25)
    np.testing.assert_allclose(taken, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("warmup", [0, 1, 4])
def test_a_constant_rate_may_be_risen_to(warmup: int) -> None:
    expected = [RATE * min(1.0, t / warmup) if warmup else RATE for t in range(12)]
    planned = learning_rate_schedule(RATE, steps=12, warmup_steps=warmup)
    np.testing.assert_allclose([planned(t) for t in range(12)], expected, rtol=1e-6)
    np.testing.assert_allclose(rates(make_optimizer(planned), 12), expected, rtol=1e-4)
