"""The slices of an epoch: every one, so many, or each group equally often."""

from collections import Counter

import numpy as np
import pytest

from covid_jax.training.epochs import draw_epoch

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
