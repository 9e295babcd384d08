"""Parts by hand counts, and the promise about their sizes over random units."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covid_jax.data import open_dataset
from covid_jax.splits.stratify import partition, strata
from tests.support.hand_made import make_dataset

THREE = (0.2, 0.12, 0.68)


def deal(sizes: list[int], fractions: tuple[float, ...], seed: int = 0) -> list[int]:
    """Slices in each part, for units of these sizes and one stratum."""
    unit = np.repeat(np.arange(len(sizes)), sizes)
    part = partition(unit, np.zeros_like(unit), fractions, np.random.default_rng(seed))
    return np.bincount(part, minlength=len(fractions)).tolist()


@pytest.mark.parametrize(
    ("sizes", "fractions", "expected"),
    [
        ([1] * 100, THREE, [20, 12, 68]),
        ([1] * 473, (0.2, 0.8), [95, 378]),  # 94.6 and 378.4
        ([1] * 12, (1 / 3,) * 3, [4, 4, 4]),
        ([10] * 10, THREE, [20, 10, 70]),  # of ten patients, two and one and seven
        ([1] * 3, THREE, [1, 1, 1]),
        ([100, 1, 1], THREE, [1, 1, 100]),
        ([50, 50, 50, 1], (0.25,) * 4, [50, 50, 50, 1]),
        ([60, 20, 20], (0.4, 0.6), [40, 60]),  # the largest fits in one place only
    ],
)
def test_hand_counts(sizes: list[int], fractions: tuple[float, ...], expected: list[int]) -> None:
    for seed in range(3):
        found = deal(sizes, fractions, seed)
        if len(set(fractions)) == 1:  # parts of one kind: which is which does not matter
            found, expected = sorted(found), sorted(expected)
        assert found == expected


def test_every_stratum_is_shared_out() -> None:
    """Of four strata of 30, 30, 30 and 10 single slices, five parts take 6, 6, 6 and 2."""
    stratum = np.repeat([0, 1, 2, 3], [30, 30, 30, 10])
    for seed in range(5):
        part = partition(np.arange(100), stratum, [0.2] * 5, np.random.default_rng(seed))
        for k in range(5):
            assert np.bincount(stratum[part == k]).tolist() == [6, 6, 6, 2]


def test_patients_of_two_kinds_are_shared_out() -> None:
    """Ten patients of each of two strata, three slices each: every fifth holds two of each."""
    unit = np.repeat(np.arange(20), 3)
    stratum = unit % 2
    for seed in range(5):
        part = partition(unit, stratum, [0.2] * 5, np.random.default_rng(seed))
        for k in range(5):
            assert np.bincount(stratum[part == k]).tolist() == [6, 6]


def test_size_comes_before_mixture() -> None:
    """Half and half of 4, 3, 2, 1 is 4 + 1 and 3 + 2, though 2 and 1 are of one stratum."""
    sizes = [4, 3, 2, 1]
    unit, stratum = np.repeat(np.arange(4), sizes), np.repeat([0, 1, 2, 2], sizes)
    part = partition(unit, stratum, [0.5, 0.5], np.random.default_rng(0))
    assert np.bincount(part).tolist() == [5, 5]


def test_sizes_hold_where_no_mixture_can() -> None:
    """A stratum for each slice: none can be shared out, and each goes best to the largest part."""
    part = partition(np.arange(100), np.arange(100), THREE, np.random.default_rng(0))
    assert np.bincount(part).tolist() == [20, 12, 68]


units = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 3)), min_size=2, max_size=30
)  # slices and stratum of each unit


@given(
    units=units,
    weights=st.lists(st.floats(0.05, 1), min_size=2, max_size=6),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40, deadline=None)
def test_the_promise(units: list[tuple[int, int]], weights: list[float], seed: int) -> None:
    sizes = [size for size, _ in units]
    weights = weights[: len(units)]
    fractions = np.array(weights) / sum(weights)
    unit = np.repeat(np.arange(len(units)), sizes)
    stratum = np.repeat([kind for _, kind in units], sizes)
    part = partition(unit, stratum, fractions.tolist(), np.random.default_rng(seed))
    again = partition(unit, stratum, fractions.tolist(), np.random.default_rng(seed))
    np.testing.assert_array_equal(part, again)
    assert all(len(set(part[unit == u])) == 1 for u in range(len(units)))
    slices = np.bincount(part, minlength=len(fractions))
    assert slices.min() >= 1
    target = fractions * len(unit)
    if target.min() >= max(sizes) + 1:
        assert np.abs(slices - target).max() < max(sizes)


def test_names_of_units_and_strata_do_not_matter() -> None:
    unit, stratum = np.repeat(np.arange(12), 3), np.arange(36) % 4
    one = partition(unit, stratum, THREE, np.random.default_rng(4))
    other = partition(unit * 7 + 100, stratum * 5 - 3, THREE, np.random.default_rng(4))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("sizes", [[], [4], [2, 2]])
def test_too_few_units_are_refused(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=f"{len(sizes)} groups .* 3 parts"):
        deal(sizes, THREE)


def test_strata_are_sources_by_thirds_of_lesion_size() -> None:
    """Lesions of 1, ..., 6 pixels: thirds are 1-2, 3-4 and 5-6; 0 is a class of its own."""
    lesions = [0, 1, 2, 3, 4, 5, 6]
    found = strata(make_dataset(["p"] * 16, lesions=[*lesions, *[0] * 9]))[:7]
    assert [found.tolist().index(kind) for kind in found] == [0, 1, 1, 3, 3, 5, 5]
    sources = ["a", "b", "a", "b", "a", "a", "a"]
    found = strata(make_dataset(["p"] * 7, lesions=lesions, sources=sources))
    assert [found.tolist().index(kind) for kind in found] == [0, 1, 2, 3, 4, 5, 5]


@pytest.mark.parametrize("lesion", [0, 7])
def test_lesions_of_one_size_are_one_stratum(lesion: int) -> None:
    assert len(set(strata(make_dataset(["p"] * 5, lesions=[lesion] * 5)))) == 1


def test_a_few_large_patients(real_data: Path) -> None:
    """Eight patients of 129, 66, 55, 33, 27, 24, 22 and 11 slices: 250 of 367 is 68 %."""
    dataset = open_dataset(real_data / "radiopaedia", 64)
    _, unit = np.unique([item.patient for item in dataset.slices], return_inverse=True)
    assert sorted(np.bincount(unit)) == [11, 22, 24, 27, 33, 55, 66, 129]
    for seed in range(3):
        part = partition(unit, strata(dataset), THREE, np.random.default_rng(seed))
        np.testing.assert_allclose(np.bincount(part) / 367, THREE, atol=0.03)
        patients = [len(set(unit[part == k])) for k in range(3)]
        assert min(patients) >= 2  # none of the subsets speaks of one patient alone
