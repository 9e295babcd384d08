"""Stratified partition of slices into parts of given sizes; groups stay whole."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from covid_jax.data.dataset import SliceDataset

# The number of slices counts as much as three strata: where patients are few and large, parts of
# the right size come before parts of the right mixture.
_SIZE_WEIGHT = 3.0


def strata(dataset: SliceDataset) -> Int[np.ndarray, " n"]:
    """The stratum of each slice: its source, and one of four classes of lesion size.

    The classes are: no lesion, and the tertiles of the lesion's fraction of the slice.
    """
    lesion = np.array([item.lesion_share for item in dataset.slices])
    bounds = np.quantile(lesion[lesion > 0], [1 / 3, 2 / 3]) if lesion.any() else []
    size = np.where(lesion > 0, 1 + np.searchsorted(bounds, lesion), 0)
    _, source = np.unique([item.source for item in dataset.slices], return_inverse=True)
    return 4 * source + size


def partition(
    unit: Int[np.ndarray, " n"],
    stratum: Int[np.ndarray, " n"],
    fractions: Sequence[float],
    rng: np.random.Generator,
) -> Int[np.ndarray, " n"]:
    """Assigns units to parts, the largest unit first, each to the part with the largest deficit.

    Units of equal size come in random order. A part's number of slices differs from its target by
    less than the size of the largest unit, unless a target is smaller than that unit; every part
    gets a unit.

    Args:
      unit: of each slice; slices of one unit stay together.
      stratum: of each slice; every part should get its fraction of each stratum.
      fractions: of the slices for each part; they add up to 1.
      rng: for the order of the units.

    Returns:
      The part of each slice, a position in ``fractions``.

    Raises:
      ValueError: if there are fewer units than parts.
    """
    names, unit = np.unique(unit, return_inverse=True)
    kinds, stratum = np.unique(stratum, return_inverse=True)
    parts = len(fractions)
    if len(names) < parts:
        found = f"{len(unit)} slices in {len(names)} groups that stay whole"
        raise ValueError(f"{found} cannot make {parts} parts")
    counts = np.zeros((len(names), len(kinds)))
    np.add.at(counts, (unit, stratum), 1)
    sizes, totals = counts.sum(1), counts.sum(0)
    # What each part still lacks: slices, whole ones, and of each stratum.
    room = np.diff(np.rint(np.cumsum(fractions) * len(unit)), prepend=0)
    kind_room = np.outer(fractions, totals)
    order = rng.permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    part_of, empty = np.zeros(len(names), np.intp), np.ones(parts, bool)
    for place, this in enumerate(order):
        last_chance = empty.sum() >= len(order) - place
        allowed = empty if last_chance else _may_take(sizes[this], room, sizes.max())
        missed = _SIZE_WEIGHT * sizes[this] * room / len(unit)
        missed += (counts[this] * kind_room / totals).sum(1)
        part = np.argmax(np.where(allowed, missed, -np.inf))
        part_of[this], empty[part] = part, False
        room[part] -= sizes[this]
        kind_room[part] -= counts[this]
    return part_of[unit]


def _may_take(
    size: float, room: Float[np.ndarray, " parts"], largest: float
) -> Bool[np.ndarray, " parts"]:
    """The parts to which a unit can be assigned so that all sizes can still reach their targets.

    The total surplus stays below the largest unit. If no part allows that, this unit and all later
    ones go to the part with the most room. Either way, no part misses its target by more.
    """
    surplus = np.maximum(-room, 0)
    after = surplus.sum() - surplus + np.maximum(size - room, 0)
    allowed = after < largest
    return allowed if allowed.any() else room == room.max()
