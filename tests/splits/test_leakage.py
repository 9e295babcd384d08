"""What belongs together, and what stands on both sides, in datasets small enough to see it."""

import dataclasses

import numpy as np
import pytest

from covid_jax.data import SliceDataset
from covid_jax.splits.leakage import (
    Crossing,
    SimilarPairs,
    Subset,
    copies,
    crossings,
    shared_patients,
    split_groups,
)
from tests.support.hand_made import make_dataset


def groups(dataset: SliceDataset, similar: SimilarPairs = ()) -> list[list[int]]:
    """Positions that share a unit."""
    found = split_groups(dataset, similar)
    return sorted(np.flatnonzero(found == unit).tolist() for unit in set(found))


@pytest.mark.parametrize(
    ("patients", "pairs", "expected"),
    [
        ([*"abab"], [], [[0, 2], [1, 3]]),
        ([None, None, "a", "a"], [], [[0], [1], [2, 3]]),
        ([None] * 4, [(0, 2)], [[0, 2], [1], [3]]),
        ([None] * 4, [(0, 2), (2, 3)], [[0, 2, 3], [1]]),
        (["a", None, "a", "b"], [(1, 2)], [[0, 1, 2], [3]]),  # looks like a: goes with a
        (["a", None, "b"], [(0, 1), (1, 2)], [[0, 1, 2]]),
        (["a", "b", "c"], [(0, 1)], [[0], [1], [2]]),  # known patients say who is who
    ],
)
def test_units(
    patients: list[str | None], pairs: list[tuple[int, int]], expected: list[list[int]]
) -> None:
    similar = [(i, j, 0.97) for i, j in pairs]
    assert groups(make_dataset(patients), similar) == expected


@pytest.mark.parametrize("patients", [[None] * 4, [*"abcd"], ["a", None, "b", None]])
def test_copies_are_one_unit_whoever_they_are_said_to_be(patients: list[str | None]) -> None:
    dataset = make_dataset(patients, copies={3: 0})
    assert copies(dataset) == [(0, 3)]
    assert groups(dataset) == [[0, 3], [1], [2]]


def test_three_copies_are_three_pairs() -> None:
    assert copies(make_dataset([None] * 4, copies={2: 0, 3: 0})) == [(0, 2), (0, 3), (2, 3)]


def test_blank_slices_are_no_copies() -> None:
    """Empty ends of volumes are equal, and say nothing of whose they are."""
    dataset = make_dataset([*"abc"])
    blank = np.full((4, 4), -1024, np.int16)
    slices = [dataclasses.replace(item, image=blank) for item in dataset.slices]
    dataset = dataclasses.replace(dataset, slices=tuple(slices))
    assert len({item.digest for item in dataset.slices}) == 1
    assert copies(dataset) == []
    assert groups(dataset) == [[0], [1], [2]]


def test_crossings_are_pairs_of_different_subsets_the_most_alike_first() -> None:
    dataset = make_dataset([None] * 6, copies={5: 0})
    found = crossings(
        dataset,
        {"train": ["s00", "s01", "s02"], "val": ["s03"], "test": ["s04", "s05"]},
        [(0, 1, 0.99), (1, 3, 0.91), (2, 4, np.float32(0.96)), (0, 5, 0.98)],
    )
    assert found == (
        Crossing("s00", "s05", 1.0, "train", "test"),
        Crossing("s02", "s04", 0.96, "train", "test"),
        Crossing("s01", "s03", 0.91, "train", "val"),
    )


def test_two_known_patients_must_be_more_alike_to_be_listed() -> None:
    """0.94 may be two people (phantoms reach 0.92), 0.95 not; of one or unknown ones all count."""
    dataset = make_dataset(["a", "b", None, "a"])
    sides: dict[Subset, list[str]] = {"train": ["s00"], "test": ["s01", "s02", "s03"]}
    for correlation, expected in ((0.94, ["s02", "s03"]), (0.95, ["s01", "s02", "s03"])):
        found = crossings(dataset, sides, [(0, j, correlation) for j in (1, 2, 3)])
        assert [pair.second for pair in found] == expected


def test_shared_patients() -> None:
    patients = {"s0": "a", "s1": "a", "s2": "b", "s3": None, "s4": None, "s5": "b", "s6": "b"}
    found = shared_patients(
        patients, {"train": ["s0", "s1", "s2", "s3"], "val": ["s5"], "test": ["s4", "s6"]}
    )
    assert found == {"b": ("train", "val", "test")}


@pytest.mark.parametrize(
    ("patients", "correlation", "found"),
    [
        (("p1", "p2"), 0.94, False),  # two who look alike
        (("p1", "p2"), 0.96, True),  # one patient under two names?
        (("p1", None), 0.75, True),
        ((None, None), 0.75, True),
        (("p1", "p1"), 0.75, True),
    ],
)
def test_two_known_patients_may_look_alike(patients, correlation, found) -> None:
    dataset = make_dataset(patients)
    one, other = (item.id for item in dataset.slices)
    pairs = crossings(dataset, {"train": [one], "test": [other]}, [(0, 1, correlation)])
    assert bool(pairs) is found
