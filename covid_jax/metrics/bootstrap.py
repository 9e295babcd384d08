"""Percentile bootstrap intervals of means over slices, and paired comparisons of two methods.

Slices of one patient are correlated: where patients are known, whole patients are resampled, since
resampling slices gives intervals that are far too narrow. With fewer than five patients (or slices)
there is no interval.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Values = Float[np.ndarray, " n"]  # of slices, NaN where undefined
PerGroup = Float[np.ndarray, " g"]
Groups = Sequence[Hashable]  # of slices, such as patients
FEWEST = 5
_EXACT = 13  # up to so many differences, p comes from all (at most 8,192) combinations of signs
_AT_ONCE = 4_000_000  # numbers drawn at once: 32 MB


class Interval(NamedTuple):
    """Percentile interval of a mean over slices.

    Attributes:
      low, high: bounds.
      groups: number of patients that were resampled, or of slices where patients are unknown.
    """

    low: float
    high: float
    groups: int


def bootstrap_interval(
    values: Values,
    groups: Groups | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval | None:
    """Percentile bootstrap interval of the mean over slices.

    Each resample draws as many groups as there are, with replacement, each with all its slices, and
    takes the mean over these slices. Groups of many slices weigh more, as they do in the mean.

    Args:
      values: value of each slice; NaN where the metric is undefined, which is left out.
      groups: group of each slice, such as its patient; None to resample slices.
      level: coverage of the interval, between 0 and 1.
      resamples: number of resamples.
      seed: random seed.

    Returns:
      The interval, or None with fewer than five groups with a defined value.

    Raises:
      ValueError: if values and groups differ in length, a group is None, level is not between 0 and
        1, or resamples is below 1.

    References:
      Efron and Tibshirani 1993, chapter 13. Field and Welsh 2007 (resampling whole clusters).
    """
    if not (0 < level < 1 and resamples >= 1):
        raise ValueError(f"expected 0 < level < 1, resamples >= 1, got {level=}, {resamples=}")
    sums, counts = _by_group(values, groups)
    if sums.size < FEWEST:
        return None
    rng = np.random.default_rng(seed)
    chunk = max(1, _AT_ONCE // sums.size)
    means = []
    for start in range(0, resamples, chunk):
        indices = rng.integers(sums.size, size=(min(chunk, resamples - start), sums.size))
        means.append(sums[indices].sum(1) / counts[indices].sum(1))
    tail = 50 * (1 - level)
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return Interval(float(low), float(high), sums.size)


class Comparison(NamedTuple):
    """Comparison of two methods on the same slices.

    Attributes:
      difference: mean over slices of second - first; NaN if no slice is defined in both.
      interval: bootstrap interval of the difference; None with fewer than five groups.
      p_value: of the two-sided Wilcoxon signed-rank test; None with fewer than five groups.
      slices: number of slices that are defined in both.
      groups: number of differences in the test.
      zeros: number of these differences that are 0.
    """

    difference: float
    interval: Interval | None
    p_value: float | None
    slices: int
    groups: int
    zeros: int


def compare_paired(first: Values, second: Values, groups: Groups | None = None) -> Comparison:
    """Mean difference of two methods, its 95 % bootstrap interval and its p-value.

    The Wilcoxon test takes one difference per patient (the mean over the patient's slices), or one
    per slice where patients are unknown: slices of one patient are not independent. Zero
    differences are ranked with the others, then left out of both rank sums (Pratt 1959), so that
    slices without difference raise p. If all differences are 0, p is 1. Up to 13 differences, p is
    exact.

    Args:
      first: value of each slice, NaN where undefined.
      second: values of the same slices in the same order.
      groups: group of each slice, such as its patient; None to take slices.

    Raises:
      ValueError: as ``bootstrap_interval``, and if the lengths differ.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape:
        raise ValueError(f"cannot pair {first.shape} and {second.shape} values")
    differences = second - first
    differences[np.abs(differences) < 1e-12] = 0  # equal scores, computed in different ways
    sums, counts = _by_group(differences, groups)
    group_means = sums / counts
    group_means[np.abs(group_means) < 1e-12] = 0
    slices = int(counts.sum())
    return Comparison(
        difference=float(sums.sum() / slices) if slices else math.nan,
        interval=bootstrap_interval(differences, groups),
        p_value=_wilcoxon(group_means) if group_means.size >= FEWEST else None,
        slices=slices,
        groups=group_means.size,
        zeros=int((group_means == 0).sum()),
    )


def _wilcoxon(differences: PerGroup) -> float:
    from scipy import stats  # slow to import

    if differences.size > _EXACT:
        if not differences.any():
            return 1.0
        _, p_value = stats.wilcoxon(differences, zero_method="pratt")
        return float(p_value)  # pyright: ignore[reportArgumentType]
    # All combinations of signs: with zeros or ties among few, scipy's p depends on its version.
    ranks = np.asarray(stats.rankdata(np.abs(differences)))[differences != 0]
    signs = np.arange(2**ranks.size)[:, None] >> np.arange(ranks.size) & 1
    deviations = np.abs(signs @ ranks - ranks.sum() / 2)  # of the positive rank sum from its mean
    observed = abs(ranks[differences[differences != 0] > 0].sum() - ranks.sum() / 2)
    return float((deviations >= observed).mean())


def _by_group(values: Values, groups: Groups | None) -> tuple[PerGroup, PerGroup]:
    """Sum and number of the defined values in each group that has one."""
    values = np.asarray(values, float)
    if values.ndim != 1 or (groups is not None and len(groups) != values.size):
        got = f"{values.shape} values and {'no' if groups is None else len(groups)} groups"
        raise ValueError(f"expected a value and a group for each slice, got {got}")
    if groups is not None and None in groups:
        raise ValueError("a group is None (unknown patient); pass groups=None to resample slices")
    defined = ~np.isnan(values)
    group_ids = number_groups(range(values.size) if groups is None else groups)[defined]
    counts = np.bincount(group_ids).astype(float)
    return np.bincount(group_ids, values[defined]).astype(float)[counts > 0], counts[counts > 0]


def number_groups(groups: Groups) -> Int[np.ndarray, " n"]:
    """The number of each slice's group: 0, 1, ... in the order in which groups appear."""
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], int)
