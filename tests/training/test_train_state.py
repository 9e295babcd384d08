"""What a run has learned and counted; its rules once an epoch, against Keras' callbacks."""

import dataclasses
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax.models import SCSEUNet
from covid_jax.runs.config import OptimizerConfig
from covid_jax.training import optimizer
from covid_jax.training.train_state import TrainState, end_epoch, init_state

LOSSES = {
    "positive": (0.9, 0.8, 0.8001, 0.79995, 0.79989, 0.8, 0.7, 0.71, 0.72, 0.69995, 0.73, 0.6),
    "negative": (-0.1, -0.2, -0.2, -0.20005, -0.3, -0.30009, -0.30011, -0.29, -0.28, -0.27, -0.4),
    "nan": (0.9, float("nan"), 0.8, float("nan"), float("nan"), 0.85, 0.7, 0.7),
}
# Learning-rate factor after each epoch by keras 3.15.1 (ReduceLROnPlateau, factor 0.5, patience
# 2, min_delta 1e-4, cooldown 0), and the epoch its EarlyStopping (patience 3, min_delta 0) ends.
KERAS_SCALES = {
    "positive": (1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125),
    "negative": (1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25),
    "nan": (1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5),
}
KERAS_STOPS = {"positive": None, "negative": 10, "nan": 6}


def fresh(config: OptimizerConfig, averaged: bool = False) -> TrainState:
    chain, plateau = optimizer.optimizer(config, steps=9), optimizer.plateau(config)
    init = functools.partial(init_state, SCSEUNet(features=(2, 2)), chain, plateau)
    return jax.jit(functools.partial(init, image_size=4, averaged=averaged))(jax.random.key(0))


def run(losses: tuple[float, ...], patience: int) -> list[TrainState]:
    """The states after each epoch, of a run with these validation losses."""
    config = OptimizerConfig(plateau_patience=patience)
    plateau = optimizer.plateau(config)
    step = jax.jit(lambda state, loss: end_epoch(state, plateau, loss))
    return list(itertools.accumulate(losses, step, initial=fresh(config)))[1:]


@pytest.mark.parametrize("name", LOSSES)
def test_plateau_is_keras_on_recorded_losses(name: str) -> None:
    scales = [float(state.plateau.scale) for state in run(LOSSES[name], 2)]
    assert tuple(scales) == KERAS_SCALES[name]


@pytest.mark.parametrize("name", LOSSES)
def test_early_stop_is_keras_on_recorded_losses(name: str) -> None:
    stale = [int(state.stale) for state in run(LOSSES[name], 2)]
    stops = [epoch for epoch, count in enumerate(stale, start=1) if count >= 3]
    assert (stops[0] if stops else None) == KERAS_STOPS[name]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from importing Keras
@pytest.mark.parametrize("patience", [1, 2, 5])
def test_plateau_is_keras_on_random_losses(patience: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="the plateau's oracle: pip install keras")
    losses = tuple(float(x) for x in np.cumsum(np.random.default_rng(patience).normal(0, 0.1, 60)))
    rule = keras.callbacks.ReduceLROnPlateau(
        monitor="val_loss", factor=0.5, patience=patience, min_delta=1e-4
    )
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
    rule.set_model(model)
    rule.on_train_begin()
    expected = []
    for epoch, loss in enumerate(losses):
        rule.on_epoch_end(epoch, {"val_loss": loss})
        expected.append(float(model.optimizer.learning_rate))
    assert [float(state.plateau.scale) for state in run(losses, patience)] == expected
    assert min(expected) < 0.5  # the list does hold plateaus


def test_epochs_are_counted_and_the_lowest_loss_kept() -> None:
    state = run((0.5, 0.3, 0.4), 10)[-1]
    assert int(state.epoch) == 3
    assert float(state.best_loss) == np.float32(0.3)
    assert int(state.stale) == 1


def test_without_a_plateau_rule_epochs_and_losses_are_counted_all_the_same() -> None:
    """A cosine's learning rate looks at no loss: five stale epochs leave the factor at 1."""
    state = fresh(OptimizerConfig(schedule="cosine", plateau_patience=1))
    for _ in range(6):
        state = end_epoch(state, None, 0.5)
    assert (int(state.epoch), int(state.stale), float(state.best_loss)) == (6, 5, 0.5)
    assert float(state.plateau.scale) == 1.0


def test_the_average_is_judged_where_one_is_kept() -> None:
    """It begins as a copy: the parameters themselves are given away to the step."""
    plain, averaged = (fresh(OptimizerConfig(), kept) for kept in (False, True))
    assert plain.average is None
    assert plain.judged is plain.params
    chex.assert_trees_all_equal(averaged.average, averaged.params)
    moved = averaged.replace(average=jax.tree.map(lambda x: x + 1.0, averaged.average))
    assert moved.judged is moved.average


@pytest.mark.parametrize("averaged", [False, True])
def test_weights_and_trainer_hold_the_whole_state(averaged: bool) -> None:
    """What neither held a resumed run would have lost."""
    state = fresh(OptimizerConfig(), averaged)
    parts = state.weights(), state.trainer()
    assert not parts[0].keys() & parts[1].keys()
    fields = {field.name for field in dataclasses.fields(state)} - {"average"}
    assert {*parts[0], *parts[1]} == fields | ({"average"} if averaged else set())
    blank = jax.tree.map(jnp.zeros_like, state)
    chex.assert_trees_all_equal(blank.replace(**parts[0], **parts[1]), state)


def types(state: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), state)


def test_a_checkpointed_state_has_the_types_of_a_fresh_one() -> None:
    """Else the step would compile once more after the first epoch or after a restore."""
    before, after = fresh(OptimizerConfig()), run((0.5, 0.4), 2)[-1]
    assert types(before) == types(after) == types(end_epoch(before, None, 0.5))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(before))
