"""How sure a mean is: percentile bootstrap intervals, and paired comparisons.

Slices of one patient resemble each other, so where patients are known whole patients are drawn:
drawing slices would call the interval far narrower than it is. Below five patients (or slices)
there is no interval: so few cannot say how the next one will be.
"""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

FEWEST = 5
_EXACT = 13  # so many differences have 8,192 sets of signs, which are all gone through
_AT_ONCE = 4_000_000  # numbers drawn at once: 32 MB


class Interval(NamedTuple):
    """Percentile interval of a mean over slices.

    Attributes:
      low, high: its ends.
      groups: how many patients, or slices where patients are unknown, were resampled.
    """

    low: float
    high: float
    groups: int


def bootstrap_interval(
    values: Float[np.ndarray, " n"],
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval | None:
    """Interval of the mean over slices.

    As many groups as there are are drawn with replacement, each with all its slices, and the mean
    taken over the slices drawn: groups of many slices weigh more, as they do in the mean itself.

    Args:
      values: one a slice; NaN where the metric is undefined: left out, as they are from the mean.
      groups: whose each slice is, such as its patient; None to resample slices.
      level: the interval's coverage.
      resamples: how often.
      seed: of the draws; the same seed gives the same interval.

    Returns:
      None below five groups with a defined value.

    Raises:
      ValueError: if values and groups differ in number, a group is None, or level or resamples
        cannot be.

    References:
      Efron and Tibshirani 1993, chapter 13. Field and Welsh 2007 (resampling whole clusters).
    """
    if not (0 < level < 1 and resamples >= 1):
        raise ValueError(f"no interval of level {level} from {resamples} resamples")
    sums, counts = _by_group(values, groups)
    if sums.size < FEWEST:
        return None
    rng = np.random.default_rng(seed)
    chunk = max(1, _AT_ONCE // sums.size)
    means = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(sums.size, size=(rows, sums.size))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    tail = 50 * (1 - level)
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return Interval(float(low), float(high), sums.size)


class Comparison(NamedTuple):
    """Two methods on the same slices.

    Attributes:
      difference: mean over slices of second - first; NaN where no slice is defined in both.
      interval: its bootstrap interval, resampled as the means' are; None below five groups.
      p_value: of the two-sided Wilcoxon signed-rank test; None below five groups.
      slices: how many are defined in both and so compared.
      groups: how many differences the test saw.
      zeros: how many of these are 0.
    """

    difference: float
    interval: Interval | None
    p_value: float | None
    slices: int
    groups: int
    zeros: int


def compare_paired(
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    groups: Sequence[Hashable] | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """How much better the second is, and whether chance would do.

    The Wilcoxon test takes one difference a patient (the mean of the patient's slices), or one a
    slice where patients are unknown: slices of one patient are no independent evidence. Zero
    differences are ranked with the others, then left out of both sums (Pratt 1959): slices on which
    both are alike count against a difference, as they should. If all are 0, p is 1. Up to 13
    differences p is exact.

    Args:
      first: one value a slice, NaN where undefined.
      second: of the same slices in the same order.
      groups: whose each slice is; None where unknown.
      level: of the interval.
      resamples: how often for the interval.
      seed: of the draws.

    Raises:
      ValueError: if the lengths differ, or a group is None.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape:
        raise ValueError(f"{first.shape} and {second.shape} values are no pairs")
    gaps = second - first
    gaps[np.abs(gaps) < 1e-12] = 0  # one score computed along two ways
    sums, counts = _by_group(gaps, groups)
    each = sums / counts
    slices = int(counts.sum())
    return Comparison(
        difference=float(sums.sum() / slices) if slices else math.nan,
        interval=bootstrap_interval(gaps, groups, level=level, resamples=resamples, seed=seed),
        p_value=_wilcoxon(each) if each.size >= FEWEST else None,
        slices=slices,
        groups=each.size,
        zeros=int((each == 0).sum()),
    )


def _wilcoxon(gaps: Float[np.ndarray, " g"]) -> float:
    if gaps.size > _EXACT:
        if not gaps.any():
            return 1.0
        _, p_value = stats.wilcoxon(gaps, zero_method="pratt")
        return float(p_value)  # pyright: ignore[reportArgumentType]
    # Every set of signs: with zeros or ties among few, scipy's answer differs by its release.
    ranks = np.asarray(stats.rankdata(np.abs(gaps)))[gaps != 0]
    signs = np.arange(2**ranks.size)[:, None] >> np.arange(ranks.size) & 1
    away = np.abs(signs @ ranks - ranks.sum() / 2)  # of the positive ranks' sum from its mean
    return float((away >= abs(ranks[gaps[gaps != 0] > 0].sum() - ranks.sum() / 2)).mean())


def _by_group(
    values: Float[np.ndarray, " n"], groups: Sequence[Hashable] | None
) -> tuple[Float[np.ndarray, " g"], Float[np.ndarray, " g"]]:
    """Sum and number of the defined values in each group that has one."""
    values = np.asarray(values, float)
    if values.ndim != 1 or (groups is not None and len(groups) != values.size):
        raise ValueError(
            f"expected a value and a group for each slice, got {values.shape} values and "
            f"{'no' if groups is None else len(groups)} groups"
        )
    if groups is not None and None in groups:
        raise ValueError("a slice of unknown patient cannot be drawn with others; leave groups out")
    defined = ~np.isnan(values)
    if groups is None:
        return values[defined], np.ones(int(defined.sum()))
    numbers: dict[Hashable, int] = {}
    whose = np.array([numbers.setdefault(group, len(numbers)) for group in groups], int)[defined]
    counts = np.bincount(whose, minlength=len(numbers)).astype(float)
    sums = np.bincount(whose, weights=values[defined], minlength=len(numbers))
    return sums[counts > 0], counts[counts > 0]
