"""An epoch's losses from its steps' means, counted by hand and slice by slice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covid_jax.training.epochs import endless_skipping, mean_loss

SLICES = 7  # in batches of three: the last has one


def mean(*losses: float | None, slices: int = SLICES, size: int = 3) -> float:
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
