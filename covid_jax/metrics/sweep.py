"""Confusion counts at many thresholds at once, and the threshold with the best mean Dice."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from covid_jax.metrics._validation import require_slice, require_unit_interval
from covid_jax.metrics.confusion import Counts

THRESHOLDS: Float[np.ndarray, "1001"] = np.arange(1001) / 1000


def sweep(
    probabilities: Float[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "h w"],
    thresholds: Float[np.ndarray, " t"] = THRESHOLDS,
) -> Counts:
    """Counts of one slice at every threshold; what lies above a threshold is predicted lesion.

    The metrics of ``covid_jax.metrics.confusion`` take them as they take a stack of slices. Each
    pixel is sorted in once, so a thousand thresholds cost little more than one.

    Args:
      probabilities: of lesion, in [0, 1].
      truth: the same shape.
      thresholds: increasing.

    Returns:
      Counts with an entry a threshold.

    Raises:
      ValueError: if the shapes differ, the truth is not boolean, a probability lies outside [0, 1]
        or is NaN, or the thresholds do not increase.
    """
    require_slice(probabilities, truth)
    require_unit_interval(probabilities)
    if thresholds.ndim != 1 or not (np.diff(thresholds) > 0).all():
        raise ValueError("expected thresholds that increase")
    # In the map's own precision, in which it is thresholded elsewhere.
    steps = thresholds.astype(probabilities.dtype)
    passed = np.searchsorted(steps, probabilities.ravel(), side="left")
    return counts_by_passed(passed, truth, steps.size)


def counts_by_passed(passed: np.ndarray, truth: Bool[np.ndarray, "h w"], thresholds: int) -> Counts:
    """Counts at increasing thresholds from how many of them each pixel passes.

    Args:
      passed: (h * w,) integers: the pixel is predicted at that many thresholds, the lowest ones.
      truth: of the slice.
      thresholds: how many there are.
    """
    lesion = truth.ravel()
    both = np.bincount(passed + (thresholds + 1) * lesion, minlength=2 * (thresholds + 1))
    rest, true = both.reshape(2, thresholds + 1)
    fp, tp = (_passing_each(histogram) for histogram in (rest, true))
    return Counts(tp=tp, fp=fp, fn=true.sum() - tp, tn=rest.sum() - fp)


def _passing_each(histogram: np.ndarray) -> np.ndarray:
    """How many pixels pass the first threshold (more than 0 of them), the second (more than 1)."""
    return histogram[::-1].cumsum()[::-1][1:]


class Best(NamedTuple):
    """The threshold with the highest mean Dice, and that mean."""

    threshold: float
    dice: float


def best_threshold(
    dices: Float[np.ndarray, "n t"], thresholds: Float[np.ndarray, " t"] = THRESHOLDS
) -> Best:
    """Where the mean over slices is highest; of equal ones, the threshold nearest 0.5.

    Choose it on slices that are not the ones it is judged by.

    Args:
      dices: a slice a row, a threshold a column.
      thresholds: the columns'.

    Raises:
      ValueError: if the shapes do not fit, there is no slice, or a Dice is NaN.
    """
    if dices.ndim != 2 or dices.shape[0] == 0 or dices.shape[1:] != thresholds.shape:
        raise ValueError(f"expected slices x {thresholds.size} thresholds, got {dices.shape}")
    means = dices.mean(0)
    if np.isnan(means).any():
        raise ValueError("a Dice is NaN")
    # Means of the same numbers may differ in their last bit.
    equal = np.flatnonzero(means >= means.max() - 1e-12)
    nearest = equal[np.abs(thresholds[equal] - 0.5).argmin()]
    return Best(float(thresholds[nearest]), float(means[nearest]))
