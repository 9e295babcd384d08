"""Finds patients, copies and near-duplicates that are in several subsets of a split."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from covid_jax.data.dataset import Slice, SliceDataset
from covid_jax.schema import Range, Settings

Subset = Literal["train", "val", "test"]
SimilarPairs = Sequence[tuple[int, int, float]]  # positions, the smaller one first; correlation
SURE = 0.95  # correlation that two patients do not reach (phantoms reach 0.92)


@dataclass(frozen=True)
class Crossing(Settings):
    """Two slices that show nearly the same and are in different subsets.

    Attributes:
      first, second: ids of the slices.
      correlation: of their pixels after alignment; 1 for copies.
      first_subset, second_subset: their subsets.
    """

    first: str
    second: str
    correlation: Annotated[float, Range(-1, 1)]
    first_subset: Subset
    second_subset: Subset


def is_blank(item: Slice) -> bool:
    """Whether all pixels are equal; two such slices match without showing the same thing."""
    low, high = item.range
    return low == high


def copies(dataset: SliceDataset) -> list[tuple[int, int]]:
    """Positions of slices with the same pixels, in pairs; blank slices do not count."""
    same: defaultdict[str, list[int]] = defaultdict(list)
    for i, item in enumerate(dataset.slices):
        if not is_blank(item):
            same[item.digest].append(i)
    return [pair for group in same.values() for pair in itertools.combinations(group, 2)]


def split_groups(dataset: SliceDataset, similar: SimilarPairs = ()) -> Int[np.ndarray, " n"]:
    """A group number for each slice; slices of one group belong in the same subset.

    Slices are in one group if they are of one patient or copies of each other. Near-duplicates are
    in one group, too, unless the patients of both are known.
    """
    patients = [item.patient for item in dataset.slices]
    first: dict[str, int] = {}
    edges = [(first.setdefault(p, i), i) for i, p in enumerate(patients) if p is not None]
    edges += copies(dataset)
    edges += [(i, j) for i, j, _ in similar if patients[i] is None or patients[j] is None]
    rows, columns = np.array(edges, np.int32).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(len(dataset), len(dataset)))
    return connected_components(graph, directed=False)[1]


def may_leak(dataset: SliceDataset, i: int, j: int, correlation: float) -> bool:
    """Whether a near-duplicate pair may be a leak.

    A pair from two different known patients counts only above ``SURE``: one patient may be listed
    under two names, but two patients who merely look alike (as phantoms do) are not a leak.
    """
    patients = {dataset.slices[i].patient, dataset.slices[j].patient} - {None}
    return len(patients) < 2 or correlation >= SURE


def crossings(
    dataset: SliceDataset, sides: Mapping[Subset, Iterable[str]], similar: SimilarPairs = ()
) -> tuple[Crossing, ...]:
    """Copies and near-duplicates in different subsets, the most alike first.

    Args:
      dataset: the slices.
      sides: slice ids of each subset, as in ``Split.sides``.
      similar: near-duplicates; copies are found here.
    """
    subset: dict[str, Subset] = {name: side for side, names in sides.items() for name in names}
    pairs = {(i, j): round(float(correlation), 4) for i, j, correlation in similar}
    pairs |= dict.fromkeys(copies(dataset), 1.0)
    result = []
    for (i, j), correlation in sorted(pairs.items(), key=lambda item: (-item[1], item[0])):
        first, second = dataset.slices[i].id, dataset.slices[j].id
        if subset[first] != subset[second] and may_leak(dataset, i, j, correlation):
            result.append(Crossing(first, second, correlation, subset[first], subset[second]))
    return tuple(result)


def shared_patients(
    patients: Mapping[str, str | None], sides: Mapping[Subset, Iterable[str]]
) -> dict[str, tuple[Subset, ...]]:
    """Patients with slices in several subsets, and these subsets.

    Args:
      patients: of each slice id; None where unknown.
      sides: slice ids of each subset.
    """
    subsets: defaultdict[str, dict[Subset, None]] = defaultdict(dict)
    for side, names in sides.items():
        for patient in (patients[name] for name in names):
            if patient is not None:
                subsets[patient][side] = None
    return {patient: tuple(where) for patient, where in subsets.items() if len(where) > 1}
