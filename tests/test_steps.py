"""The pure steps: one Adam update, padding that does not count, one compilation."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax.config import LossConfig, OptimizerConfig
from covid_jax.data.batches import Batch, batches
from covid_jax.losses import dice_loss, focal_tversky_loss, tversky_loss
from covid_jax.models import SCSEUNet
from covid_jax.training import optimizer
from covid_jax.training.state import TrainState, end_epoch, init_state
from covid_jax.training.steps import eval_step, make_apply, make_loss, train_step
from tests.synthetic import SIZE, TINY, blob_dataset

CONFIG = OptimizerConfig(learning_rate=1e-2)
ADAM, PLATEAU = optimizer.adam(CONFIG), optimizer.plateau(CONFIG)
APPLY = make_apply(SCSEUNet(features=TINY))
STEP = functools.partial(train_step, apply=APPLY, loss=make_loss(LossConfig()), adam=ADAM)
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def state() -> TrainState:
    init = functools.partial(init_state, SCSEUNet(features=TINY), ADAM, PLATEAU)
    return jax.jit(functools.partial(init, image_size=SIZE))(jax.random.key(0))


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    dataset = blob_dataset()
    return dataset.network_images(), dataset.network_masks()


def test_first_adam_step_moves_each_weight_by_the_learning_rate(state, arrays) -> None:
    """At step one Adam's moments cancel to the sign: update = -lr scale g / (|g| + eps)."""
    batch = next(batches(*arrays, range(4), 4))
    halved = state.replace(plateau=state.plateau._replace(scale=jnp.float32(0.5)))
    after, total = jax.jit(functools.partial(STEP, augmented=False))(halved, batch, KEY)

    def mean_loss(params):
        return focal_tversky_loss(APPLY(params, jnp.asarray(batch.images)), batch.masks).mean()

    loss, gradients = jax.jit(jax.value_and_grad(mean_loss))(state.params)
    expected = jax.tree.map(
        lambda p, g: p - 0.5 * 1e-2 * g / (jnp.abs(g) + 1e-7), state.params, gradients
    )
    moved = jax.tree.map(lambda g: jnp.abs(g) > 1e-5, gradients)  # below, rounding decides the sign
    chex.assert_trees_all_close(
        jax.tree.map(jnp.where, moved, after.params, expected), expected, atol=1e-4
    )
    np.testing.assert_allclose(total, 4 * loss, rtol=1e-5)


def test_padding_does_not_count(state, arrays) -> None:
    """Two real slices in a batch of four: loss and step of the two alone."""
    images, masks = arrays
    padded = list(batches(images, masks, range(6), 4))[-1]
    padded = padded._replace(images=padded.images.copy())
    padded.images[2:] = np.nan  # whatever stands there
    padded.images[2:] = 1e6 * np.arange(SIZE)[:, None]
    exact = next(batches(images, masks, [4, 5], 2))
    step = jax.jit(functools.partial(STEP, augmented=True))
    after_padded, total_padded = step(state, padded, KEY)
    after_exact, total_exact = step(state, exact, KEY)
    np.testing.assert_allclose(total_padded, total_exact, rtol=1e-5)
    first_moment = lambda s: s.adam[0].mu  # noqa: E731
    chex.assert_trees_all_close(
        first_moment(after_padded), first_moment(after_exact), atol=1e-6, rtol=1e-4
    )


def test_the_step_compiles_once(state, arrays) -> None:
    """Over full and padded batches, epochs and the plateau's changes of state."""

    @chex.assert_max_traces(n=1)
    def traced(state, batch, key):
        return STEP(state, batch, key, augmented=True)

    step = jax.jit(traced)
    current = state
    for epoch in range(3):
        for batch in batches(*arrays, range(10), 4):
            current, _ = step(current, batch, jax.random.fold_in(KEY, epoch))
        current = end_epoch(current, PLATEAU, 1.0)
    assert int(current.epoch) == 3


def test_augmentation_depends_on_the_slice_and_the_key_only(state, arrays) -> None:
    """The same slices in another order and batch give the same summed loss."""
    step = jax.jit(functools.partial(STEP, augmented=True))
    order = np.array([0, 3, 5, 8])
    _, total = step(state, next(batches(*arrays, order, 4)), KEY)
    _, reversed_total = step(state, next(batches(*arrays, order[::-1], 4)), KEY)
    _, plain = jax.jit(functools.partial(STEP, augmented=False))(
        state, next(batches(*arrays, order, 4)), KEY
    )
    np.testing.assert_allclose(total, reversed_total, rtol=1e-5)
    assert abs(float(total - plain)) > 1e-4


def test_eval_step_counts_at_one_half() -> None:
    """Logits given by hand: a network that returns its input."""
    images = np.array([[5.0, -5.0], [0.1, -0.1]], np.float32).reshape(1, 2, 2, 1)
    masks = np.array([[1, 0], [0, 1]], np.uint8).reshape(1, 2, 2, 1)
    batch = Batch(images, masks, np.zeros(1, np.int32), np.ones(1, bool))
    _, counts = eval_step(None, batch, apply=lambda _, x: x, loss=make_loss(LossConfig()))
    assert [int(count[0]) for count in counts] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("config", "direct"),
    [
        (LossConfig("ftl", 0.6, 0.4, 2.0), (focal_tversky_loss, (0.6, 0.4, 2.0))),
        (LossConfig("tversky", 0.6, 0.4, 2.0), (tversky_loss, (0.6, 0.4))),
        (LossConfig("dice", 0.6, 0.4, 2.0), (dice_loss, ())),
    ],
)
def test_each_name_is_its_loss(config: LossConfig, direct) -> None:
    logits = jnp.array([1.0, -1.0, -1.0, 1.0]).reshape(1, 2, 2, 1)
    labels = jnp.array([1, 0, 1, 1]).reshape(1, 2, 2, 1)
    loss, values = direct
    names = dict(zip(("alpha", "beta", "gamma"), values, strict=False))
    np.testing.assert_array_equal(make_loss(config)(logits, labels), loss(logits, labels, **names))
