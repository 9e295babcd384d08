"""An epoch's losses from its steps' sums, counted by hand and slice by slice."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covid_jax.training.epoch_losses import EpochLosses

NAN = math.nan
ORDER = np.array([7, 3, 5, 1, 0, 6, 2])  # seven slices in batches of three: the last has one


def epoch(*totals: float) -> EpochLosses:
    return EpochLosses(np.array(totals, np.float32), ORDER, 3)


@pytest.mark.parametrize(
    ("totals", "mean"),
    [
        ((3.0, 6.0, 5.0), 14 / 7),
        ((NAN, 6.0, 5.0), 11 / 4),
        ((3.0, NAN, 5.0), 8 / 4),
        ((3.0, 6.0, NAN), 9 / 6),
        ((NAN, NAN, 5.0), 5 / 1),
    ],
)
def test_the_mean_weights_each_slice_of_a_taken_step_alike(totals, mean: float) -> None:
    assert epoch(*totals).mean == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize(
    ("totals", "first"),
    [
        ((1.0, 1.0, NAN), [2]),
        ((1.0, NAN, NAN), [1, 0, 6]),
        ((NAN, 1.0, NAN), [2]),
        ((NAN, NAN, NAN), [7, 3, 5]),
        ((NAN, NAN, 1.0), []),
    ],
)
def test_the_batch_is_named_from_which_on_nothing_was_taken(totals, first: list[int]) -> None:
    assert epoch(*totals).first_of_last_skipped.tolist() == first


def test_skipped_steps_are_counted() -> None:
    assert [epoch(*t).skipped for t in ((1, 2, 3), (NAN, 2, NAN), (NAN,) * 3)] == [0, 2, 3]
    assert [epoch(*t).none_taken for t in ((1, 2, 3), (NAN, 2, NAN), (NAN,) * 3)] == [0, 0, 1]


def test_sums_of_many_steps_lose_nothing() -> None:
    """In float32 2**24 + 1 is 2**24."""
    totals = np.array([2.0**24, *[1.0] * 64], np.float32)
    assert EpochLosses(totals, np.arange(65), 1).mean == (2**24 + 64) / 65


@given(
    per_slice=st.lists(st.integers(0, 1000), min_size=1, max_size=40),
    batch_size=st.integers(1, 9),
    data=st.data(),
)
def test_it_is_the_mean_over_slices_whatever_the_batches(per_slice, batch_size, data) -> None:
    starts = range(0, len(per_slice), batch_size)
    parts = [per_slice[start : start + batch_size] for start in starts]
    taken = data.draw(st.lists(st.booleans(), min_size=len(parts), max_size=len(parts)))
    totals = [sum(part) if kept else NAN for part, kept in zip(parts, taken, strict=True)]
    losses = EpochLosses(np.array(totals, np.float32), np.arange(len(per_slice)), batch_size)
    assert losses.skipped == taken.count(False)
    assert losses.none_taken == (not any(taken))
    counted = [x for part, kept in zip(parts, taken, strict=True) if kept for x in part]
    if counted:
        assert losses.mean == pytest.approx(np.mean(counted), rel=1e-12)
    after = [i for i in range(len(parts)) if not any(taken[i:])]
    expected = range(len(per_slice))[after[0] * batch_size :][:batch_size] if after else ()
    assert losses.first_of_last_skipped.tolist() == list(expected)
