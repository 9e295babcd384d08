"""The pure steps: one update, padding that does not count, bad batches, one compilation."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from covid_jax.data import SliceDataset
from covid_jax.data.batches import Batch, batches
from covid_jax.losses import dice_loss, focal_tversky_loss, tversky_loss
from covid_jax.metrics.confusion import Counts
from covid_jax.models import SCSEUNet
from covid_jax.runs.config import LossConfig, OptimizerConfig
from covid_jax.training import optimizer
from covid_jax.training.train_state import TrainState, end_epoch, init_state
from covid_jax.training.train_step import Inputs, eval_step, make_apply, make_loss, train_step
from covid_jax.transforms.augmentation import AugmentConfig
from covid_jax.transforms.preprocessing import Normalization, QuantizedSlices
from tests.support.synthetic import SIZE, TINY, blob_dataset

CONFIG = OptimizerConfig(learning_rate=1e-2)
ALL = OptimizerConfig(learning_rate=1e-2, schedule="cosine", clip_norm=1.0, ema=0.5)
PLAIN_CHAIN, ALL_CHAIN = (optimizer.optimizer(config, 50) for config in (CONFIG, ALL))
PLATEAU = optimizer.plateau(CONFIG)
APPLY = make_apply(SCSEUNet(features=TINY))
INPUTS = Inputs(Normalization(), classes=1)
LOSS = make_loss(LossConfig())
STILL, STANDARD = AugmentConfig(), AugmentConfig.standard()
STEP = functools.partial(train_step, apply=APPLY, loss=LOSS, optimizer=PLAIN_CHAIN, inputs=INPUTS)
PLAIN = jax.jit(functools.partial(STEP, strengths=STILL))
AUGMENTED = jax.jit(functools.partial(STEP, strengths=STANDARD))
KEY = jax.random.key(7)


def start(
    model: SCSEUNet, chain: optax.GradientTransformation = PLAIN_CHAIN, averaged: bool = False
) -> TrainState:
    init = functools.partial(init_state, model, chain, PLATEAU, image_size=SIZE, averaged=averaged)
    return jax.jit(init)(jax.random.key(0))


@pytest.fixture(scope="module")
def state() -> TrainState:
    return start(SCSEUNet(features=TINY))


@pytest.fixture(scope="module")
def dataset() -> SliceDataset:
    return blob_dataset()


def z_scored(batch: Batch) -> np.ndarray:
    """Images as the network should see them, by NumPy in float64."""
    parts = (batch.images.low, batch.images.step)
    low, step = (part.astype(np.float64)[:, None, None] for part in parts)
    values = low + step * batch.images.codes
    mean, std = (part((1, 2), keepdims=True) for part in (values.mean, values.std))
    return ((values - mean) / std)[..., None].astype(np.float32)


def moved_by_the_sign(state: TrainState, gradients, rate: float):
    """Parameters after Adam's first step, whose moments cancel to the gradient's sign."""
    return jax.tree.map(lambda p, g: p - rate * g / (jnp.abs(g) + 1e-7), state.params, gradients)


def assert_moved(after: TrainState, expected, gradients) -> None:
    clear = jax.tree.map(lambda g: jnp.abs(g) > 1e-5, gradients)  # below, rounding decides the sign
    assert any(jnp.any(part) for part in jax.tree.leaves(clear))
    chex.assert_trees_all_close(
        jax.tree.map(jnp.where, clear, after.params, expected), expected, atol=1e-4
    )


def adam(state: TrainState) -> optax.ScaleByAdamState:
    return state.optimizer.inner[1]


def test_first_adam_step_moves_each_weight_by_the_learning_rate(state, dataset) -> None:
    """At step one Adam's moments cancel to the sign: update = -lr scale g / (|g| + eps)."""
    batch = next(batches(dataset, range(4), 4))
    halved = state.replace(plateau=state.plateau._replace(scale=jnp.float32(0.5)))
    after, total = PLAIN(halved, batch, KEY)

    def mean_loss(params):
        logits = APPLY(params, jnp.asarray(z_scored(batch)))
        return focal_tversky_loss(logits, jnp.asarray(batch.masks)[..., None]).mean()

    loss, gradients = jax.jit(jax.value_and_grad(mean_loss))(state.params)
    assert_moved(after, moved_by_the_sign(state, gradients, 0.5 * 1e-2), gradients)
    np.testing.assert_allclose(total, 4 * loss, rtol=1e-5)
    moments = adam(after)
    assert int(moments.count) == int(after.step) == 1
    means = jax.tree.map(lambda g: 0.1 * g, gradients)  # (1 - b1) g
    chex.assert_trees_all_close(moments.mu, means, atol=1e-6, rtol=1e-3)


def test_padding_does_not_count(state, dataset) -> None:
    """Two real slices in a batch of four: loss and step of the two alone."""
    padded = list(batches(dataset, range(6), 4))[-1]
    padded.images.codes[2:] = 60_000 * (np.arange(SIZE) % 2)[:, None]  # whatever stands there
    padded.images.low[2:], padded.masks[2:] = 1e6, 1
    exact = next(batches(dataset, [4, 5], 2))
    after_padded, total_padded = AUGMENTED(state, padded, KEY)
    after_exact, total_exact = AUGMENTED(state, exact, KEY)
    np.testing.assert_allclose(total_padded, total_exact, rtol=1e-5)
    moments = adam(after_padded).mu, adam(after_exact).mu
    chex.assert_trees_all_close(*moments, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("config", [CONFIG, ALL])
def test_the_step_compiles_once(config: OptimizerConfig, dataset) -> None:
    """Over full and padded batches, epochs and the plateau's changes of state, given away."""
    chain, averaged = optimizer.optimizer(config, 9, 2), config.ema is not None
    chex.clear_trace_counter()  # it counts both cases as one function

    @chex.assert_max_traces(n=1)
    def traced(state, batch, key):
        return STEP(state, batch, key, optimizer=chain, strengths=STILL, decay=config.ema)

    step = jax.jit(traced, donate_argnums=0)
    current = start(SCSEUNet(features=TINY), chain, averaged)
    for epoch in range(3):
        for batch in batches(dataset, range(10), 4):
            current, _ = step(current, batch, jax.random.fold_in(KEY, epoch))
        current = end_epoch(current, None if averaged else PLATEAU, 1.0)
    assert (int(current.epoch), int(current.step)) == (3, 9)


def test_augmentation_depends_on_the_slice_and_the_key_only(state, dataset) -> None:
    """The same slices in another order and batch give the same summed loss."""
    order = np.array([0, 3, 5, 8])
    _, total = AUGMENTED(state, next(batches(dataset, order, 4)), KEY)
    _, reversed_total = AUGMENTED(state, next(batches(dataset, order[::-1], 4)), KEY)
    _, plain = PLAIN(state, next(batches(dataset, order, 4)), KEY)
    _, other_key = AUGMENTED(state, next(batches(dataset, order, 4)), jax.random.key(8))
    halves = [
        AUGMENTED(state, next(batches(dataset, half, 4)), KEY)[1] for half in ([5, 0], [8, 3])
    ]
    np.testing.assert_allclose(total, reversed_total, rtol=1e-5)
    np.testing.assert_allclose(total, sum(halves), rtol=1e-5)
    assert abs(float(total - plain)) > 1e-4
    assert abs(float(total - other_key)) > 1e-4


def test_two_copies_of_a_slice_are_augmented_apart(state, dataset) -> None:
    """Their positions differ: a slice of its own each."""
    batch = next(batches(dataset, [3, 3], 2))
    _, alike = AUGMENTED(state, batch, KEY)
    _, apart = AUGMENTED(state, batch._replace(position=np.array([3, 4], np.int32)), KEY)
    assert abs(float(alike - apart)) > 1e-5


BY_DATASET = Inputs(Normalization(-700.0, 300.0), classes=1)
GUARDED = jax.jit(
    functools.partial(STEP, optimizer=ALL_CHAIN, inputs=BY_DATASET, strengths=STILL, decay=ALL.ema)
)


@pytest.fixture(scope="module")
def averaged() -> TrainState:
    return start(SCSEUNet(features=TINY), ALL_CHAIN, averaged=True)


@pytest.fixture
def good(dataset) -> Batch:
    return next(batches(dataset, range(4), 4))


def spoilt(batch: Batch) -> Batch:
    """A NaN in the intensities of one of its slices."""
    low = batch.images.low.copy()
    low[2] = np.nan
    return batch._replace(images=batch.images._replace(low=low))


def counters(state: TrainState) -> tuple[int, int]:
    return int(state.optimizer.in_a_row), int(state.optimizer.total)


def without_counters(state: TrainState) -> TrainState:
    return state.replace(optimizer=state.optimizer.inner)


def test_a_batch_with_nan_changes_nothing_but_the_count_of_such(averaged, good) -> None:
    """Not the average either; the next good step is the one that would have been."""
    before, first = GUARDED(averaged, good, KEY)
    skipped, none = GUARDED(before, spoilt(good), KEY)
    chex.assert_trees_all_equal(without_counters(skipped), without_counters(before))
    assert counters(skipped) == (1, 1)
    assert np.isfinite(first)
    assert np.isnan(none)
    after, total = GUARDED(skipped, good, KEY)
    expected, expected_total = GUARDED(before, good, KEY)
    chex.assert_trees_all_equal(without_counters(after), without_counters(expected))
    assert total == expected_total
    assert counters(after) == (0, 1)
    assert int(after.step) == adam(after).count == after.optimizer.inner[2].count == 2


def test_after_five_such_batches_no_step_is_taken(averaged, good) -> None:
    state, totals = averaged, []
    for batch in [*[spoilt(good)] * 5, good, good]:
        state, total = GUARDED(state, batch, KEY)
        totals.append(float(total))
    assert np.isnan(totals).all()
    chex.assert_trees_all_equal(without_counters(state), without_counters(averaged))
    assert counters(state) == (5, 7)


def pixelwise(params, images: jax.Array) -> jax.Array:
    """A network that compiles at once: a weight and a bias a channel."""
    return params["weight"] * images + params["bias"]


def pixelwise_state(state: TrainState, channels: int = 1) -> TrainState:
    params = {name: jnp.ones((1, 1, 1, channels)) for name in ("weight", "bias")}
    return state.replace(params=params, optimizer=PLAIN_CHAIN.init(params))


def test_a_finite_loss_with_a_nan_in_its_gradient_is_skipped(state, good) -> None:
    """The root of a zero: its slope is infinite, and the chain rule makes it zero times that."""

    def apply(params, images):
        return pixelwise(params, images) + jnp.sqrt(0.0 * params["bias"])

    state = pixelwise_state(state)
    after, total = jax.jit(functools.partial(STEP, apply=apply, strengths=STILL))(state, good, KEY)
    labels = jnp.asarray(good.masks, jnp.float32)[..., None]
    assert np.isfinite(LOSS(apply(state.params, INPUTS.images(good)), labels)).all()
    assert np.isnan(total)
    chex.assert_trees_all_equal(without_counters(after), without_counters(state))


def test_the_average_follows_the_parameters(averaged, dataset) -> None:
    """Its recursion in float64: decays of 1/10, 2/11, ... up to the run's own."""
    state = averaged
    expected = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(averaged.params)]
    for t, batch in enumerate(batches(dataset, np.arange(44) % 12, 4)):
        state, _ = GUARDED(state, batch, KEY)
        decay = min(0.5, (1 + t) / (10 + t))
        params = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(state.params)]
        parts = zip(expected, params, strict=True)
        expected = [decay * old + (1 - decay) * new for old, new in parts]
    assert decay == 0.5
    for found, leaf in zip(jax.tree.leaves(state.average), expected, strict=True):
        np.testing.assert_allclose(found, leaf, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("label", [0, 1])
def test_slices_all_or_nothing_of_which_is_lesion_can_be_learned(state, good, label, flat) -> None:
    """The loss by hand; the step is taken, and all stays finite, of blank images too."""
    codes = np.zeros_like(good.images.codes) if flat else good.images.codes
    batch = good._replace(
        images=good.images._replace(codes=codes), masks=np.full_like(good.masks, label)
    )
    after, total = PLAIN(state, batch, KEY)
    chex.assert_tree_all_finite((after.params, after.optimizer))
    assert counters(after) == (0, 0)
    logits = np.asarray(APPLY(state.params, INPUTS.images(batch)), np.float64)
    p = (1 / (1 + np.exp(-logits))).sum((1, 2, 3))
    hit, missed, false = (p, SIZE**2 - p, 0 * p) if label else (0 * p, 0 * p, p)
    wrong = 0.7 * missed + 0.3 * false
    expected = ((wrong / (hit + wrong + 1e-6)) ** 0.75).sum()
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def equations(jaxpr):
    """All of a traced function's, those of the functions it calls among them."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def dtypes(jaxpr, primitive: str) -> set[str]:
    found = (e for e in equations(jaxpr) if e.primitive.name == primitive)
    return {str(variable.aval.dtype) for equation in found for variable in equation.invars}


def test_bfloat16_stops_at_the_convolutions(dataset) -> None:
    """Parameters, moments, norms' statistics and losses are float32."""
    model = SCSEUNet(features=TINY, dtype="bfloat16")
    state = start(model, ALL_CHAIN, averaged=True)
    batch = next(batches(dataset, range(2), 2))
    forward = jax.make_jaxpr(make_apply(model))(state.params, INPUTS.images(batch)).jaxpr
    assert dtypes(forward, "conv_general_dilated") == {"bfloat16", "float32"}  # float32: the head
    assert dtypes(forward, "reduce_sum") == dtypes(forward, "rsqrt") == {"float32"}
    step = functools.partial(
        STEP, apply=make_apply(model), optimizer=ALL_CHAIN, strengths=STILL, decay=ALL.ema
    )
    after, total = jax.eval_shape(step, state, batch, KEY)
    floats = [leaf.dtype for leaf in jax.tree.leaves((after, total)) if leaf.dtype != jnp.int32]
    assert set(floats) == {jnp.dtype(jnp.float32)}
    assert len(floats) > 4 * len(jax.tree.leaves(state.params))
    judged = jax.eval_shape(
        functools.partial(eval_step, apply=make_apply(model), loss=LOSS, inputs=INPUTS),
        state.params,
        batch,
    )
    assert judged.loss.dtype == jnp.float32


def by_hand(images, masks, classes: int) -> tuple[Batch, Inputs]:
    """Slices of whole numbers that reach the network as they are."""
    count = len(images)
    low = int(np.min(images))
    packed = QuantizedSlices(
        np.asarray(np.subtract(images, low), np.uint16),
        np.full(count, low, np.float32),
        np.ones(count, np.float32),
    )
    position, real = np.arange(count, dtype=np.int32), np.ones(count, bool)
    batch = Batch(packed, np.asarray(masks, np.uint8), position, real)
    return batch, Inputs(Normalization(0.0, 1.0), classes)


def as_numbers(counts: Counts) -> list[list[int]]:
    return np.stack([np.asarray(part) for part in counts], axis=-1).tolist()


def test_eval_step_counts_at_one_half() -> None:
    """Logits given by hand: a network that returns its input. A logit of 0 is not above 0.5."""
    batch, inputs = by_hand([[[5, -5, 0], [1, -1, 0]]], [[[1, 0, 1], [0, 1, 0]]], classes=1)
    judged = eval_step(None, batch, apply=lambda _, x: x, loss=LOSS, inputs=inputs)
    (lesion,) = judged.counts
    assert as_numbers(lesion) == [[1, 1, 2, 2]]  # hit 5; false alarm 1; missed -1 and 0
    assert judged.predicted.tolist() == [[[1, 0, 0], [1, 0, 0]]]
    logits = jnp.array([[[5.0, -5.0, 0.0], [1.0, -1.0, 0.0]]])[..., None]
    labels = jnp.array([[[1, 0, 1], [0, 1, 0]]])[..., None]
    np.testing.assert_allclose(judged.loss, focal_tversky_loss(logits, labels), rtol=1e-6)


def one_hot_by_hand(masks: np.ndarray) -> np.ndarray:
    return np.stack([masks == k for k in range(3)], axis=-1).astype(np.float32)


CHANNELS = 10 * np.eye(3, dtype=np.float32)  # pixel value k becomes a logit of 10 in channel k


def read_off(_, images: jax.Array) -> jax.Array:
    """A network whose answer is the pixel's own value."""
    return jnp.asarray(CHANNELS)[images[..., 0].astype(int)]


def test_eval_step_counts_each_region_by_hand() -> None:
    """The lesion of either class, then each class alone; a wrong class is a hit of the lesion."""
    predicted = [[[0, 1, 2], [2, 1, 0]], [[0, 0, 0], [0, 0, 0]]]
    masks = [[[0, 1, 1], [2, 2, 1]], [[0, 0, 2], [0, 0, 0]]]
    batch, inputs = by_hand(predicted, masks, classes=2)
    batch = batch._replace(real=np.array([True, False]))
    judged = eval_step(None, batch, apply=read_off, loss=LOSS, inputs=inputs)
    labels = one_hot_by_hand(np.asarray(masks))
    logits = 10.0 * one_hot_by_hand(np.asarray(predicted))
    expected = focal_tversky_loss(*map(jnp.asarray, (logits, labels)))
    np.testing.assert_allclose(judged.loss, expected)
    assert judged.predicted.tolist() == predicted
    assert judged.real.tolist() == [True, False]
    lesion, first, second = (as_numbers(counts) for counts in judged.counts)
    assert lesion == [[4, 0, 1, 1], [0, 0, 1, 5]]  # tp, fp, fn, tn
    assert first == [[1, 1, 2, 2], [0, 0, 0, 6]]
    assert second == [[1, 1, 1, 3], [0, 0, 1, 5]]


def test_a_step_on_two_classes(dataset) -> None:
    """Its loss and move are those of the focal Tversky loss on labels made by hand."""
    model = SCSEUNet(num_classes=2, features=TINY)
    state, apply = start(model), make_apply(model)
    batch = next(batches(dataset, range(3), 3))
    batch.masks[:, ::2] *= 2  # every other row of the lesions becomes class 2
    assert set(np.unique(batch.masks)) == {0, 1, 2}
    inputs = INPUTS._replace(classes=2)
    step = functools.partial(
        train_step,
        apply=apply,
        loss=LOSS,
        optimizer=PLAIN_CHAIN,
        inputs=inputs,
        strengths=STILL,
    )
    after, total = jax.jit(step)(state, batch, KEY)

    def mean_loss(params):
        logits = apply(params, jnp.asarray(z_scored(batch)))
        assert logits.shape == (3, SIZE, SIZE, 3)
        return focal_tversky_loss(logits, jnp.asarray(one_hot_by_hand(batch.masks))).mean()

    loss, gradients = jax.jit(jax.value_and_grad(mean_loss))(state.params)
    chex.assert_tree_all_finite((gradients, after.params))
    np.testing.assert_allclose(total, 3 * loss, rtol=1e-5)
    assert_moved(after, moved_by_the_sign(state, gradients, 1e-2), gradients)


def test_augmented_classes_stay_class_ids(state, dataset) -> None:
    """What the loss is given is one-hot in every pixel, and both classes are still there."""
    seen: list[np.ndarray] = []
    batch = next(batches(dataset, range(3), 3))
    batch.masks[:, ::2] *= 2

    def loss(logits, labels):
        jax.debug.callback(lambda array: seen.append(np.asarray(array)), labels)
        return LOSS(logits, labels)

    inputs = INPUTS._replace(classes=2)
    step = functools.partial(STEP, apply=pixelwise, loss=loss, inputs=inputs, strengths=STANDARD)
    jax.block_until_ready(jax.jit(step)(pixelwise_state(state, channels=3), batch, KEY))
    jax.effects_barrier()
    (labels, *_) = seen
    assert labels.shape == (3, SIZE, SIZE, 3)
    np.testing.assert_array_equal(labels.sum(-1), np.ones((3, SIZE, SIZE)))
    assert set(np.unique(labels)) == {0.0, 1.0}
    assert (labels.sum((0, 1, 2)) > 0).all()
    assert not np.array_equal(labels, one_hot_by_hand(batch.masks))


def test_what_the_network_sees_is_normalised_as_the_run_says(state, dataset) -> None:
    """A window's numbers reach it clipped."""
    batch, _ = by_hand([[[-2000, -1350], [-600, 3000]]], np.zeros((1, 2, 2)), classes=1)
    window = Inputs(Normalization(-600.0, 750.0, clip=True), classes=1)
    np.testing.assert_array_equal(window.images(batch)[0, ..., 0], [[-1, -1], [0, 1]])
    own = next(batches(dataset, [0], 1))
    np.testing.assert_allclose(INPUTS.images(own), z_scored(own), atol=1e-5)


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
