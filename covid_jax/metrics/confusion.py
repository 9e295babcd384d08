"""Dice, IoU, sensitivity, specificity, precision, from confusion counts; threshold sweeps.

Counts of several slices are added up and divided once. ``confusion_counts`` and the metrics take
NumPy arrays and JAX arrays, also under ``jax.jit``, and return the same kind.

Values where the formula of a metric gives 0/0, so that neither missed lesions nor lesion-free
slices drop out of a mean:

=============  ============================  ==========================  ========================
metric         formula                       0/0 where                   value
=============  ============================  ==========================  ========================
dice           2 TP / (2 TP + FP + FN)       both masks empty            1: the slice is right
iou            TP / (TP + FP + FN)           both masks empty            1: the slice is right
sensitivity    TP / (TP + FN)                truth empty                 NaN, left out of means
specificity    TN / (TN + FP)                truth covers all            NaN, left out of means
precision      TP / (TP + FP)                prediction empty            0 if a lesion was missed,
                                                                         1 if there was none
=============  ============================  ==========================  ========================
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer, Num

from covid_jax.metrics._validation import Map, Mask, require_mask, require_probabilities

Metric = Float[Any, "..."]  # one value for each entry of the counts, of their kind of array
THRESHOLDS: Float[np.ndarray, "1001"] = np.arange(1001) / 1000


class Counts(NamedTuple):
    """Confusion counts in pixels: numbers, or arrays with an entry for each slice or threshold."""

    tp: Num[Any, "..."]
    fp: Num[Any, "..."]
    fn: Num[Any, "..."]
    tn: Num[Any, "..."]


def confusion_counts(prediction: Bool[Any, "*n h w"], truth: Bool[Any, "*n h w"]) -> Counts:
    """Counts over the last two axes.

    Args:
      prediction: (..., H, W), boolean; a NumPy or JAX array.
      truth: the same shape, boolean.

    Returns:
      Counts of shape (...).

    Raises:
      ValueError: if the shapes differ or a mask is not boolean.

    Example:
      >>> prediction, truth = np.array([[True, True]]), np.array([[True, False]])
      >>> print(dice(confusion_counts(prediction, truth)).round(3))
      0.667
    """
    require_mask(prediction, "prediction")
    require_mask(truth, "truth")
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    pixels = truth.shape[-2] * truth.shape[-1]
    tp = (prediction & truth).sum((-2, -1))
    predicted, true = prediction.sum((-2, -1)), truth.sum((-2, -1))
    return Counts(tp, predicted - tp, true - tp, pixels - predicted - true + tp)


def dice(counts: Counts) -> Metric:
    """Dice coefficient (F1), in [0, 1]; 1 where both masks are empty."""
    return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn, empty=1.0)


def iou(counts: Counts) -> Metric:
    """Intersection over union (Jaccard index), in [0, 1]; 1 where both masks are empty."""
    return ratio(counts.tp, counts.tp + counts.fp + counts.fn, empty=1.0)


def sensitivity(counts: Counts) -> Metric:
    """Share of the lesion pixels that are predicted (recall), in [0, 1]; NaN without lesion."""
    return ratio(counts.tp, counts.tp + counts.fn, empty=np.nan)


def specificity(counts: Counts) -> Metric:
    """Share of lesion-free pixels that are not predicted, in [0, 1]; NaN if all are lesion."""
    return ratio(counts.tn, counts.tn + counts.fp, empty=np.nan)


def precision(counts: Counts) -> Metric:
    """Share of the predicted pixels that are lesion, in [0, 1].

    Where nothing was predicted: 0 if there was a lesion, 1 if there was none.
    """
    missed = _namespace(counts.fn).where(counts.fn > 0, 0.0, 1.0)
    return ratio(counts.tp, counts.tp + counts.fp, empty=missed)


_METRICS = (dice, iou, sensitivity, specificity, precision)
METRICS: dict[str, Callable[[Counts], Any]] = {metric.__name__: metric for metric in _METRICS}


class MetricSummary(NamedTuple):
    """One metric over many slices.

    Attributes:
      mean: mean of the slices in which the metric is defined; NaN if it is defined in none.
      pooled: the metric of the summed counts.
      slices: number of slices in the mean.
      empty: number of slices with 0/0, in the mean or not.
    """

    mean: float
    pooled: float
    slices: int
    empty: int


def summarize(counts: Counts) -> dict[str, MetricSummary]:
    """Mean over slices and pooled value of every metric.

    Args:
      counts: (N,) each, one entry for each slice.
    """
    counts = Counts(*map(np.asarray, counts))
    total = Counts(*(part.sum(keepdims=True, dtype=np.int64) for part in counts))
    tp, fp, fn, tn = counts
    denominators = {"dice": tp + fp + fn, "iou": tp + fp + fn, "sensitivity": tp + fn}
    denominators |= {"specificity": tn + fp, "precision": tp + fp}
    summaries = {}
    for name, metric in METRICS.items():
        values = metric(counts)
        summaries[name] = MetricSummary(
            mean=mean_of_defined(values),
            pooled=float(metric(total)[0]),
            slices=int(np.sum(~np.isnan(values))),
            empty=int(np.sum(denominators[name] == 0)),
        )
    return summaries


def threshold_sweep(
    probabilities: Map, truth: Mask, thresholds: Float[np.ndarray, " t"] = THRESHOLDS
) -> Counts:
    """Confusion counts of one slice at many thresholds; probabilities above are predicted lesion.

    Each pixel is sorted into the thresholds once, so that a thousand thresholds take little longer
    than one.

    Args:
      probabilities: lesion probabilities in [0, 1].
      truth: lesion mask of the same shape.
      thresholds: increasing.

    Returns:
      Counts with an entry for each threshold.

    Raises:
      ValueError: if the shapes differ, the truth is not boolean, a probability lies outside [0, 1]
        or is NaN, or the thresholds do not increase.
    """
    require_probabilities(probabilities, truth)
    if thresholds.ndim != 1 or not (np.diff(thresholds) > 0).all():
        raise ValueError("expected thresholds that increase")
    # Compared in the precision of the probabilities, as everywhere else.
    steps = thresholds.astype(probabilities.dtype)
    thresholds_passed = np.searchsorted(steps, probabilities.ravel(), side="left")
    return counts_at_thresholds(thresholds_passed, truth, steps.size)


def counts_at_thresholds(
    thresholds_passed: Integer[np.ndarray, " pixels"], truth: Mask, thresholds: int
) -> Counts:
    """Confusion counts at each of ``thresholds`` increasing thresholds.

    Args:
      thresholds_passed: for each pixel, the number of thresholds at which it is predicted; these
        are the lowest ones.
      truth: lesion mask of the slice.
      thresholds: number of thresholds.
    """
    bins = thresholds + 1
    histograms = np.bincount(thresholds_passed + bins * truth.ravel(), minlength=2 * bins)
    # From the right, cumulative sums count the pixels that pass more than 0, 1, ... thresholds.
    (negatives, fp), (positives, tp) = (
        (histogram.sum(), histogram[::-1].cumsum()[::-1][1:])
        for histogram in histograms.reshape(2, bins)
    )
    return Counts(tp=tp, fp=fp, fn=positives - tp, tn=negatives - fp)


class BestThreshold(NamedTuple):
    """The threshold with the highest mean Dice, and that mean."""

    threshold: float
    dice: float


def best_threshold(
    dices: Float[np.ndarray, "n t"], thresholds: Float[np.ndarray, " t"] = THRESHOLDS
) -> BestThreshold:
    """The threshold with the highest mean Dice over slices; of equal ones, the nearest to 0.5.

    Do not choose the threshold on the slices used for evaluation.

    Args:
      dices: Dice of each slice (rows) at each threshold (columns).
      thresholds: the threshold of each column.

    Raises:
      ValueError: if the shapes do not fit, there is no slice, or a Dice is NaN.
    """
    if dices.ndim != 2 or dices.shape[0] == 0 or dices.shape[1:] != thresholds.shape:
        raise ValueError(f"expected slices x {thresholds.size} thresholds, got {dices.shape}")
    means = dices.mean(0)
    if np.isnan(means).any():
        raise ValueError("a Dice is NaN")
    # Means of equal numbers may differ in the last bit.
    equal = np.flatnonzero(means >= means.max() - 1e-12)
    nearest = equal[np.abs(thresholds[equal] - 0.5).argmin()]
    return BestThreshold(float(thresholds[nearest]), float(means[nearest]))


def ratio(numerator: Any, denominator: Any, empty: Any) -> Metric:
    """``numerator / denominator``, and ``empty`` where the denominator is 0."""
    xp = _namespace(denominator)
    return xp.where(denominator > 0, numerator / xp.maximum(denominator, 1), empty)


def mean_of_defined(values: Float[np.ndarray, " n"]) -> float:
    """Mean of the values that are not NaN; NaN without any."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def _namespace(array: Any) -> Any:
    """``jax.numpy`` for JAX arrays, traced ones too; else NumPy."""
    return array.__array_namespace__() if hasattr(array, "__array_namespace__") else np
