"""The pure steps: one update, padding that does not count, skipped batches, one compilation."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from covid_jax.losses import focal_tversky_loss
from covid_jax.models import SCSEUNet
from covid_jax.training import TrainState, make_eval_step, make_optimizer, make_train_step
from covid_jax.training.optimizer import learning_rate_schedule, reduce_on_plateau
from covid_jax.training.train_step import moving_average
from covid_jax.transforms.augmentation import AugmentConfig

SIZE, RATE = 16, 1e-2
KEY = jax.random.key(7)
STEP = jax.jit(make_train_step(loss=focal_tversky_loss))
MILD = AugmentConfig(flip=True, brightness=0.3)  # compiles in a third of the standard's time
AUGMENTED = jax.jit(make_train_step(loss=focal_tversky_loss, augment=MILD))


def pixelwise(variables: Any, images: jax.Array) -> jax.Array:
    """A network that compiles at once: a weight and a bias a channel."""
    return variables["params"]["weight"] * images + variables["params"]["bias"]


def start(tx: optax.GradientTransformation | None = None, **options: Any) -> TrainState:
    params = {"weight": jnp.float32([[[[0.5]]]]), "bias": jnp.float32([[[[-0.2]]]])}
    options = {"apply_fn": pixelwise} | options
    return TrainState.create(params=params, tx=tx or make_optimizer(RATE), **options)


def make_batch(count: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Noise with a bright disc in each slice, which its label marks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    centres = rng.uniform(4, SIZE - 4, (count, 2, 1, 1))
    discs = (y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2 < 9
    images = rng.normal(size=discs.shape) + 2 * discs
    return {"image": images.astype(np.float32)[..., None], "label": discs[..., None]}


def part(batch: dict[str, np.ndarray], chosen: Any) -> dict[str, np.ndarray]:
    """Some examples of a batch, which keep their position."""
    chosen = np.asarray(chosen)
    return {name: array[chosen] for name, array in batch.items()} | {"position": chosen}


def spoilt(batch: dict[str, np.ndarray], value: float = np.nan) -> dict[str, np.ndarray]:
    images = batch["image"].copy()
    images[2, 3, 3] = value
    return batch | {"image": images}


def mean_loss(params: Any, batch: dict[str, np.ndarray]) -> jax.Array:
    logits = pixelwise({"params": params}, jnp.asarray(batch["image"]))
    return focal_tversky_loss(logits, jnp.asarray(batch["label"])).mean()


@pytest.mark.parametrize(
    "tx",
    [
        optax.sgd(0.1, momentum=0.9),
        optax.adam(1e-3),
        optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(1e-3)),
        optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1)),
    ],
    ids=["sgd", "adam", "adamw", "with extra arguments"],
)
def test_any_optax_transformation_takes_its_own_steps(tx: optax.GradientTransformation) -> None:
    """Three steps against optax alone, on the gradient of the mean loss."""
    state, batch = start(tx), make_batch()
    params, opt_state = state.params, tx.init(state.params)
    for _ in range(3):
        loss, gradients = jax.value_and_grad(mean_loss)(params, batch)
        update = optax.with_extra_args_support(tx).update
        updates, opt_state = update(gradients, opt_state, params, value=loss)
        params = optax.apply_updates(params, updates)
        state, metrics = STEP(state, batch, KEY)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
        assert not metrics["skipped"]
    chex.assert_trees_all_close(state.params, params, rtol=1e-4)
    assert int(state.step) == 3


def test_the_first_adam_step_moves_each_weight_by_the_learning_rate() -> None:
    """At step one Adam's moments cancel to the sign; a plateau's scale halves the move."""
    state = start(plateau=reduce_on_plateau(0.5, 1))
    for loss in (0.5, 0.5):
        state = state.end_epoch(loss)
    after, _ = STEP(state, make_batch(), KEY)
    gradients = jax.grad(mean_loss)(state.params, make_batch())
    moved = jax.tree.map(lambda p, g: p - 0.5 * RATE * jnp.sign(g), state.params, gradients)
    chex.assert_trees_all_close(after.params, moved, rtol=1e-4)


def test_a_network_of_the_package_learns_to_mark_bright_discs() -> None:
    """Above 0.5 Dice after thirty steps; a network that marks nothing or all has less than 0.3."""
    model, batch = SCSEUNet(features=(4, 8)), make_batch(8)
    params = jax.jit(model.init)(KEY, jnp.asarray(batch["image"]))["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(3e-2))
    for _ in range(30):
        state, metrics = STEP(state, batch, KEY)
    found = model.apply({"params": state.params}, jnp.asarray(batch["image"])) > 0
    hits = np.sum(np.asarray(found) & batch["label"])
    assert 2 * hits / (np.sum(found) + batch["label"].sum()) > 0.5
    assert metrics["loss"] < 0.5


def test_padding_does_not_count() -> None:
    """Two real slices in a batch of four: loss and step of the two alone."""
    padded = spoilt(make_batch(), 1e6)
    padded["label"][2:] = True
    padded |= {"where": np.array([True, True, False, False])}
    exact = part(make_batch(), [0, 1])
    after_padded, padded_metrics = AUGMENTED(start(), padded, KEY)
    after_exact, exact_metrics = AUGMENTED(start(), exact, KEY)
    np.testing.assert_allclose(padded_metrics["loss"], exact_metrics["loss"], rtol=1e-5)
    chex.assert_trees_all_close(after_padded.params, after_exact.params, rtol=1e-5)


def test_a_loss_of_the_whole_batch_is_its_own_mean() -> None:
    """Pooled: as if the real slices of the batch were one."""
    pooled = functools.partial(focal_tversky_loss, axis=(0, 1, 2))
    batch = make_batch() | {"where": np.array([True, True, True, False])}
    _, metrics = make_train_step(loss=pooled)(start(), batch, KEY)
    long = {name: array[:3].reshape(1, -1, SIZE, 1) for name, array in make_batch().items()}
    np.testing.assert_allclose(metrics["loss"], mean_loss(start().params, long), rtol=1e-5)


def test_the_step_compiles_once() -> None:
    """Over full and padded batches, epochs and the plateau's changes of state, given away."""
    tx = make_optimizer(learning_rate_schedule(RATE, "cosine", steps=9), clip_norm=1.0)
    step = make_train_step(loss=focal_tversky_loss, ema_decay=0.5)
    step = jax.jit(chex.assert_max_traces(step, n=1), donate_argnums=0)
    state = jax.jit(lambda: start(tx, plateau=reduce_on_plateau(0.5, 1), ema=True))()
    for epoch in range(3):
        for real in (4, 4, 2):
            batch = make_batch() | {"where": np.arange(4) < real}
            state, _ = step(state, batch, jax.random.fold_in(KEY, epoch))
        state = state.end_epoch(1.0)
    assert (int(state.epoch), int(state.step)) == (3, 9)


def test_augmentation_depends_on_the_position_and_the_key_only() -> None:
    """The same slices in another order and batch have the same mean loss."""
    batch, order = make_batch(9), np.array([0, 3, 5, 8])

    def loss(chosen: Any, key: jax.Array = KEY) -> float:
        return float(AUGMENTED(start(), part(batch, chosen), key)[1]["loss"])

    assert loss(order) == pytest.approx(loss(order[::-1]), rel=1e-5)
    halves = np.mean([loss(half) for half in ([5, 0], [8, 3])])
    assert loss(order) == pytest.approx(halves, rel=1e-5)
    assert abs(loss(order) - loss(order, jax.random.key(8))) > 1e-4
    assert abs(loss(order) - float(STEP(start(), part(batch, order), KEY)[1]["loss"])) > 1e-4


def test_two_copies_of_a_slice_are_augmented_apart() -> None:
    batch = part(make_batch(), [3, 3])
    _, alike = AUGMENTED(start(), batch, KEY)
    _, apart = AUGMENTED(start(), batch | {"position": np.array([3, 4])}, KEY)
    _, unnamed = AUGMENTED(start(), {n: batch[n] for n in ("image", "label")}, KEY)
    assert abs(float(alike["loss"] - apart["loss"])) > 1e-5
    assert abs(float(alike["loss"] - unnamed["loss"])) > 1e-5


GUARDED = jax.jit(make_train_step(loss=focal_tversky_loss, ema_decay=0.5))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_batch_without_a_finite_loss_or_gradient_changes_nothing(value: float) -> None:
    """Not the average either; the next good step is the one that would have been."""
    tx = make_optimizer(learning_rate_schedule(RATE, "cosine", steps=9), clip_norm=1.0)
    before, first = GUARDED(start(tx, ema=True), make_batch(), KEY)
    skipped, metrics = GUARDED(before, spoilt(make_batch(), value), KEY)
    chex.assert_trees_all_equal(skipped, before)
    assert (bool(first["skipped"]), bool(metrics["skipped"])) == (False, True)
    chex.assert_trees_all_equal(
        GUARDED(skipped, make_batch(), KEY), GUARDED(before, make_batch(), KEY)
    )


def test_a_finite_loss_with_a_nan_in_its_gradient_is_skipped() -> None:
    """The root of a zero: its slope is infinite, and the chain rule makes it zero times that."""

    def apply_fn(variables, images):
        return pixelwise(variables, images) + jnp.sqrt(0.0 * variables["params"]["bias"])

    state = start(apply_fn=apply_fn)
    state = state.replace(params=state.params | {"bias": jnp.ones((1, 1, 1, 1))})
    after, metrics = STEP(state, make_batch(), KEY)
    assert np.isfinite(metrics["loss"])
    assert metrics["skipped"]
    chex.assert_trees_all_equal(after, state)


def test_a_gradient_whose_square_overflows_is_skipped() -> None:
    """Else Adam's second moment would be infinite ever after."""
    step = make_train_step(loss=lambda *given: 1e25 * focal_tversky_loss(*given))
    state = start()
    after, metrics = jax.jit(step)(state, make_batch(), KEY)
    assert np.isfinite(metrics["loss"])
    assert metrics["skipped"]
    chex.assert_trees_all_equal(after, state)


def test_the_average_follows_the_parameters() -> None:
    """Its recursion in float64: decays of 1/10, 2/11, ... up to the run's own."""
    state = start(ema=True)
    expected = np.asarray(state.params["weight"], np.float64)
    for t in range(11):
        state, _ = GUARDED(state, make_batch(seed=t), KEY)
        decay = min(0.5, (1 + t) / (10 + t))
        expected = decay * expected + (1 - decay) * np.asarray(state.params["weight"], np.float64)
    assert decay == 0.5
    np.testing.assert_allclose(state.ema_params["weight"], expected, rtol=1e-5)
    assert state.eval_params is state.ema_params


@pytest.mark.parametrize(("ema", "decay"), [(True, None), (False, 0.9)])
def test_a_decay_without_an_average_is_refused(ema: bool, decay: float | None) -> None:
    with pytest.raises(ValueError, match="ema"):
        make_train_step(loss=focal_tversky_loss, ema_decay=decay)(start(ema=ema), make_batch(), KEY)


ACCUMULATED = optax.MultiSteps(make_optimizer(RATE, clip_norm=0.1), 2).gradient_transformation()


def test_accumulated_batches_are_one_large_batch() -> None:
    step, batch = jax.jit(make_train_step(loss=focal_tversky_loss, ema_decay=0.5)), make_batch()
    one, _ = step(start(make_optimizer(RATE, clip_norm=0.1), ema=True), batch, KEY)
    before = start(ACCUMULATED, ema=True)
    half, _ = step(before, part(batch, [0, 1]), KEY)
    chex.assert_trees_all_equal(half.items()["weights"], before.items()["weights"])
    assert int(half.step) == 0
    both, _ = step(half, part(batch, [2, 3]), KEY)
    chex.assert_trees_all_close(both.items()["weights"], one.items()["weights"], rtol=1e-5)
    assert int(both.step) == int(one.step) == 1
    assert float(jnp.abs(both.params["bias"] - before.params["bias"]).max()) > RATE / 2


def test_a_skipped_step_counts_towards_no_accumulated_update() -> None:
    batch = make_batch()
    expected = state = start(ACCUMULATED)
    for chosen in ([0, 1], [2, 3]):
        expected, _ = STEP(expected, part(batch, chosen), KEY)
    for chosen, content in (([0, 1], batch), ([2, 3], spoilt(batch)), ([2, 3], batch)):
        state, metrics = STEP(state, part(content, chosen), KEY)
        assert bool(metrics["skipped"]) == (content is not batch)
    chex.assert_trees_all_equal(state.items()["weights"], expected.items()["weights"])
    assert int(state.step) == 1


def left(count: int, decay: float) -> float:
    """Of the first weight, which was 1 and is 0 after every step."""
    average = {"w": jnp.ones(())}
    for step in range(count):
        average = moving_average(average, {"w": jnp.zeros(())}, jnp.int32(step), decay)
    return float(average["w"])


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_a_young_average_soon_forgets_the_first_weights(count: int) -> None:
    """The product of (1 + t) / (10 + t) is one over C(count + 9, 9)."""
    binomial = np.prod([(count + 9 - k) / (9 - k) for k in range(9)])
    assert left(count, decay=0.9999) == pytest.approx(1 / binomial, rel=1e-5)


def test_an_average_settles_at_its_decay() -> None:
    """(1 + t) / (10 + t) is 1/4 at t = 2: from there on a quarter is kept at each step."""
    expected = [1 / 10, 2 / 110, 2 / 440, 2 / 1760, 2 / 7040]
    assert [left(n, 0.25) for n in range(1, 6)] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("label", [False, True])
def test_slices_all_or_nothing_of_which_is_lesion_can_be_learned(label: bool) -> None:
    """The loss by hand; the step is taken, and all stays finite."""
    batch = make_batch() | {"label": np.full((4, SIZE, SIZE, 1), label)}
    after, metrics = STEP(start(), batch, KEY)
    chex.assert_tree_all_finite(after.params)
    assert not metrics["skipped"]
    p = (1 / (1 + np.exp(0.2 - 0.5 * batch["image"].astype(np.float64)))).sum((1, 2, 3))
    hit, missed, false = (p, SIZE**2 - p, 0 * p) if label else (0 * p, 0 * p, p)
    wrong = 0.7 * missed + 0.3 * false
    expected = ((wrong / (hit + wrong + 1e-6)) ** 0.75).mean()
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_eval_step_uses_the_average_and_reduces_nothing() -> None:
    state, batch = start(ema=True), make_batch()
    state = state.replace(ema_params=jax.tree.map(lambda p: p + 1, state.params))
    metrics = jax.jit(make_eval_step(loss=focal_tversky_loss))(state, batch)
    logits = 1.5 * batch["image"] + 0.8
    np.testing.assert_allclose(metrics["logits"], logits, atol=1e-6)
    expected = focal_tversky_loss(jnp.asarray(logits), jnp.asarray(batch["label"]))
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    padded = make_eval_step(loss=focal_tversky_loss)(state, batch | {"where": np.arange(4) < 3})
    np.testing.assert_allclose(padded["loss"][:3], expected[:3], rtol=1e-5)


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


def test_bfloat16_stops_at_the_convolutions() -> None:
    """Parameters, moments, norms' statistics and losses are float32."""
    model, batch = SCSEUNet(features=(4, 8), dtype="bfloat16"), make_batch(2)
    variables = jax.eval_shape(model.init, KEY, batch["image"])
    forward = jax.make_jaxpr(model.apply)(variables, batch["image"]).jaxpr
    assert dtypes(forward, "conv_general_dilated") == {"bfloat16", "float32"}  # float32: the head
    assert dtypes(forward, "reduce_sum") == dtypes(forward, "rsqrt") == {"float32"}
    create = functools.partial(TrainState.create, apply_fn=model.apply, tx=make_optimizer())
    state = jax.eval_shape(lambda params: create(params=params, ema=True), variables["params"])
    step = make_train_step(loss=focal_tversky_loss, ema_decay=0.9)
    after, metrics = jax.eval_shape(step, state, batch, KEY)
    floats = [leaf.dtype for leaf in jax.tree.leaves(after) if leaf.dtype != jnp.int32]
    assert {*floats, metrics["loss"].dtype} == {jnp.dtype(jnp.float32)}
    assert len(floats) > 4 * len(jax.tree.leaves(state.params))


def test_the_compiled_step_grows_with_the_parameters_not_their_square() -> None:
    """The test of every gradient is one kernel's, not worked out again in each parameter's."""

    def instructions(count: int) -> int:
        params = [jnp.zeros((2, place + 1)) for place in range(count)]

        def apply_fn(variables, images):
            return images + sum(p.sum() for p in variables["params"])

        state = TrainState.create(apply_fn=apply_fn, params=params, tx=make_optimizer())
        return STEP.lower(state, make_batch(), KEY).compile().as_text().count(" = ")

    assert instructions(24) < 2.5 * instructions(12)


STRICT = """
import jax
from covid_jax.losses import focal_tversky_loss, with_cross_entropy
from covid_jax.training import make_train_step
from covid_jax.training.optimizer import reduce_on_plateau
from covid_jax.transforms.augmentation import AugmentConfig
from tests.training.test_train_step import KEY, make_batch, start

loss = with_cross_entropy(focal_tversky_loss, 0.5)
step = make_train_step(loss=loss, augment=AugmentConfig.named("strong"), ema_decay=0.9)
state = start(plateau=reduce_on_plateau(0.5, 1), ema=True)
after, metrics = jax.jit(step)(state, make_batch() | {"where": jax.numpy.ones(4, bool)}, KEY)
after = after.end_epoch(0.5)
types = [jax.tree.map(lambda leaf: (leaf.dtype.name, leaf.weak_type), s) for s in (state, after)]
assert types[0] == types[1], types
assert {leaf.dtype.name for leaf in jax.tree.leaves(after)} == {"float32", "int32"}
assert not metrics["skipped"]
"""


def test_the_step_runs_in_double_precision_and_under_strict_promotion() -> None:
    settings = {"JAX_ENABLE_X64": "1", "JAX_NUMPY_DTYPE_PROMOTION": "strict"}
    subprocess.run(
        [sys.executable, "-c", STRICT],
        cwd=Path(__file__).parents[2],
        env=os.environ | settings | {"JAX_PLATFORMS": "cpu"},
        check=True,
    )


LIGHT = """
import sys
import covid_jax.training
heavy = {"matplotlib", "orbax", "tensorboardX", "torch", "resource"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert callable(covid_jax.training.train)
assert not {"tensorboardX", "torch"} & set(sys.modules)
"""


def test_importing_the_pieces_loads_nothing_of_a_run() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], cwd=Path(__file__).parents[2], check=True)
