"""The rules that look at the validation loss once an epoch, against Keras' callbacks."""

import functools
import itertools

import jax
import numpy as np
import pytest

from covid_jax.config import OptimizerConfig
from covid_jax.models import SCSEUNet
from covid_jax.training import optimizer
from covid_jax.training.state import TrainState, end_epoch, init_state

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


def run(losses: tuple[float, ...], patience: int) -> list[TrainState]:
    """The states after each epoch, of a run with these validation losses."""
    config = OptimizerConfig(plateau_patience=patience)
    adam, plateau = optimizer.adam(config), optimizer.plateau(config)
    init = functools.partial(init_state, SCSEUNet(features=(2, 2)), adam, plateau)
    state = jax.jit(functools.partial(init, image_size=4))(jax.random.key(0))
    step = jax.jit(lambda state, loss: end_epoch(state, plateau, loss))
    return list(itertools.accumulate(losses, step, initial=state))[1:]


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


def test_a_checkpointed_state_has_the_types_of_a_fresh_one() -> None:
    """Else the step would compile once more after the first epoch or after a restore."""
    fresh, later = run((0.5, 0.4), 2)
    types = lambda state: jax.tree.map(lambda x: (x.dtype, x.weak_type), state)  # noqa: E731
    assert types(fresh) == types(later)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(fresh))
