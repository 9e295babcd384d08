"""An epoch: the slices that are drawn, and the mean of its steps' losses, counted by hand."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covid_jax.training.epochs import draw_epoch, endless_skipping, mean_loss

SLICES = np.array([3, 4, 7, 8, 9, 20, 21, 30])
PATIENTS = ["a", "a", "a", "a", "a", "b", "b", "c"]


def test_by_default_an_epoch_is_numpys_permutation_by_seed_and_epoch() -> None:
    """The order that runs of earlier versions had."""
    found = draw_epoch(SLICES, seed=3, epoch=2)
    np.testing.assert_array_equal(found, np.random.default_rng([3, 2]).permutation(SLICES))


@pytest.mark.parametrize("count", [1, 5, 8, 9, 20])
def test_no_slice_comes_again_before_every_one_has_come(count: int) -> None:
    found = draw_epoch(SLICES, seed=0, epoch=1, count=count)
    times = Counter(found.tolist())
    assert len(found) == count
    assert max(times[i] for i in SLICES) - min(times[i] for i in SLICES) <= 1


@pytest.mark.parametrize("count", [2, 3, 9, 13])
def test_each_group_comes_equally_often(count: int) -> None:
    drawn = [
        draw_epoch(SLICES, seed=0, epoch=epoch, count=count, groups=PATIENTS) for epoch in range(60)
    ]
    of_slice = dict(zip(SLICES.tolist(), PATIENTS, strict=True))
    for found in drawn:
        times = Counter(of_slice[i] for i in found.tolist())
        assert len(found) == count
        assert {times[name] - count // 3 for name in "abc"} <= {0, 1}
        for name in "abc":  # inside a group, none again before every one has come
            own = [Counter(found.tolist())[i] for i in SLICES if of_slice[i] == name]
            assert max(own) - min(own) <= 1
    total = Counter(of_slice[i] for found in drawn for i in found.tolist())
    # Of 60 epochs, what is left over after equal shares falls on each group a third of the time.
    assert max(total.values()) - min(total.values()) < 30
    assert {i for found in drawn for i in found.tolist()} == set(SLICES.tolist())


def test_the_draw_is_decided_by_seed_and_epoch() -> None:
    def draw(seed: int, epoch: int) -> list[int]:
        return draw_epoch(SLICES, seed=seed, epoch=epoch, count=30, groups=PATIENTS).tolist()

    assert draw(1, 1) == draw(1, 1)
    assert draw(1, 1) != draw(1, 2)
    assert draw(1, 1) != draw(2, 1)


COUNT = 7  # in batches of three: the last has one


def mean(*losses: float | None, slices: int = COUNT, size: int = 3) -> float:
    """Of the means of each step; None where it was skipped."""
    skipped = np.array([loss is None for loss in losses])
    return mean_loss(np.array(losses, np.float32), skipped, slices, size)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((1.0, 2.0, 5.0), (3 + 6 + 5) / 7),
        ((None, 2.0, 5.0), (6 + 5) / 4),
        ((1.0, None, 5.0), (3 + 5) / 4),
        ((1.0, 2.0, None), (3 + 6) / 6),
        ((None, None, 5.0), 5.0),
    ],
)
def test_the_mean_weights_each_slice_of_a_taken_step_alike(losses, expected: float) -> None:
    assert mean(*losses) == pytest.approx(expected, rel=1e-12)


NONE = (None,) * 5


@pytest.mark.parametrize(
    ("losses", "first"),
    [
        ((1.0, 1.0, None), None),
        ((None, None, None), 0),  # the whole epoch
        ((1.0, *NONE[1:], 1.0), None),
        ((1.0, *NONE, 1.0), 1),
        ((None, 1.0, 1.0, *NONE), 3),
        ((*NONE, None, 1.0), 0),
    ],
)
def test_the_step_is_named_from_which_on_five_were_skipped(losses, first) -> None:
    assert endless_skipping(np.array([loss is None for loss in losses])) == first


def test_means_of_many_steps_lose_nothing() -> None:
    """In float32 2**24 + 1 is 2**24."""
    losses = [2.0**24, *[1.0] * 64]
    assert mean(*losses, slices=65, size=1) == (2**24 + 64) / 65


@given(
    per_slice=st.lists(st.integers(0, 1000), min_size=1, max_size=40),
    batch_size=st.integers(1, 9),
)
def test_it_is_the_mean_over_slices_whatever_the_batches(per_slice, batch_size) -> None:
    starts = range(0, len(per_slice), batch_size)
    means = [np.mean(per_slice[start : start + batch_size]) for start in starts]
    found = mean(*means, slices=len(per_slice), size=batch_size)
    assert found == pytest.approx(np.mean(per_slice), rel=1e-6)
