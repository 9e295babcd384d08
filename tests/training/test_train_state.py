"""What a run has learned and counted; its rules once an epoch, against Keras' callbacks."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax.training import TrainState, make_optimizer
from covid_jax.training.optimizer import reduce_on_plateau

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


def fresh(patience: int | None = 2, ema: bool = False) -> TrainState:
    plateau = None if patience is None else reduce_on_plateau(0.5, patience)
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}
    return TrainState.create(
        apply_fn=lambda *_: None, params=params, tx=make_optimizer(), plateau=plateau, ema=ema
    )


def run(losses: tuple[float, ...], patience: int) -> list[TrainState]:
    """The states after each epoch, of a run with these validation losses."""
    step = jax.jit(TrainState.end_epoch)
    return list(itertools.accumulate(losses, step, initial=fresh(patience)))[1:]


@pytest.mark.parametrize("name", LOSSES)
def test_plateau_is_keras_on_recorded_losses(name: str) -> None:
    scales = [float(state.plateau_state.scale) for state in run(LOSSES[name], 2)]
    assert tuple(scales) == KERAS_SCALES[name]


@pytest.mark.parametrize("name", LOSSES)
def test_early_stop_is_keras_on_recorded_losses(name: str) -> None:
    stale = [int(state.epochs_without_improvement) for state in run(LOSSES[name], 2)]
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
    assert [float(state.plateau_state.scale) for state in run(losses, patience)] == expected
    assert min(expected) < 0.5  # the list does hold plateaus


def test_epochs_are_counted_and_the_lowest_loss_kept() -> None:
    state = run((0.5, 0.3, 0.4), 10)[-1]
    assert int(state.epoch) == 3
    assert float(state.best_loss) == np.float32(0.3)
    assert int(state.epochs_without_improvement) == 1


def test_without_a_plateau_rule_epochs_and_losses_are_counted_all_the_same() -> None:
    state = fresh(None)
    for _ in range(6):
        state = state.end_epoch(0.5)
    counted = int(state.epoch), int(state.epochs_without_improvement), float(state.best_loss)
    assert counted == (6, 5, 0.5)
    assert state.plateau_state is None


def test_the_average_is_evaluated_where_one_is_kept() -> None:
    """It begins as a copy: the parameters themselves are given away to the step."""
    plain, averaged = (fresh(ema=kept) for kept in (False, True))
    assert plain.ema_params is None
    assert plain.eval_params is plain.params
    chex.assert_trees_all_equal(averaged.ema_params, averaged.params)
    pointers = [p["bias"].unsafe_buffer_pointer() for p in (averaged.ema_params, averaged.params)]
    assert pointers[0] != pointers[1]
    assert averaged.eval_params is averaged.ema_params


@pytest.mark.parametrize("patience", [None, 2])
@pytest.mark.parametrize("ema", [False, True])
def test_weights_and_trainer_hold_the_whole_state(ema: bool, patience: int | None) -> None:
    """What neither held a resumed run would have lost."""
    state = fresh(patience, ema)
    blank = jax.tree.map(jnp.zeros_like, state)
    chex.assert_trees_all_equal(blank.restored(**state.items()), state)
    assert set(state.items()["weights"]) == ({"params", "average"} if ema else {"params"})


def types(state: TrainState) -> TrainState:
    return jax.tree.map(lambda leaf: (leaf.dtype, leaf.weak_type), state)


def test_a_checkpointed_state_has_the_types_of_a_fresh_one() -> None:
    """Else the step would compile once more after the first epoch or after a restore."""
    before = fresh()
    assert types(before) == types(before.end_epoch(0.5)) == types(before.end_epoch(0.5))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(before))
