"""Dice, IoU, sensitivity, specificity, precision: confusion counts, added up and divided once.

What an empty mask does, so that neither a missed lesion nor a clean slice vanishes from a mean:

=============  ============================  ==========================  ========================
metric         formula                       0/0 because ...             then
=============  ============================  ==========================  ========================
dice           2 TP / (2 TP + FP + FN)       both masks empty            1: the slice is right
iou            TP / (TP + FP + FN)           both masks empty            1: the slice is right
sensitivity    TP / (TP + FN)                truth empty                 undefined: NaN, left out
specificity    TN / (TN + FP)                truth covers all            undefined: NaN, left out
precision      TP / (TP + FP)                prediction empty            0 if a lesion was missed,
                                                                         1 if there was none
=============  ============================  ==========================  ========================
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int


class Counts(NamedTuple):
    """Confusion counts in pixels, an array or a number each: of one slice or of many."""

    tp: Int[Array | np.ndarray, "..."]
    fp: Int[Array | np.ndarray, "..."]
    fn: Int[Array | np.ndarray, "..."]
    tn: Int[Array | np.ndarray, "..."]


def confusion_counts(
    prediction: Bool[Array | np.ndarray, "..."], truth: Bool[Array | np.ndarray, "..."]
) -> Counts:
    """Counts over the last two axes; works alike on NumPy and on (traced) JAX arrays.

    Args:
      prediction: (..., H, W).
      truth: the same shape.

    Raises:
      ValueError: if the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in shape")
    pixels = truth.shape[-2] * truth.shape[-1]
    tp = (prediction & truth).sum((-2, -1))
    predicted, true = prediction.sum((-2, -1)), truth.sum((-2, -1))
    return Counts(tp, predicted - tp, true - tp, pixels - predicted - true + tp)


def dice(counts: Counts) -> Float[np.ndarray, "..."]:
    """Dice coefficient (F1), in [0, 1]; 1 where both masks are empty."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn, empty=1.0)


def iou(counts: Counts) -> Float[np.ndarray, "..."]:
    """Intersection over union (Jaccard index), in [0, 1]; 1 where both masks are empty."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn, empty=1.0)


def sensitivity(counts: Counts) -> Float[np.ndarray, "..."]:
    """Share of the lesion that was found (recall), in [0, 1]; NaN where there is no lesion."""
    return _ratio(counts.tp, counts.tp + counts.fn, empty=np.nan)


def specificity(counts: Counts) -> Float[np.ndarray, "..."]:
    """Share of the rest that was left alone, in [0, 1]; NaN where the lesion covers everything."""
    return _ratio(counts.tn, counts.tn + counts.fp, empty=np.nan)


def precision(counts: Counts) -> Float[np.ndarray, "..."]:
    """Share of the prediction that is lesion, in [0, 1].

    Where nothing was predicted: 0 if there was a lesion, 1 if there was none.
    """
    return _ratio(
        counts.tp, counts.tp + counts.fp, empty=np.where(np.asarray(counts.fn) > 0, 0.0, 1.0)
    )


METRICS: dict[str, Callable[[Counts], np.ndarray]] = {
    "dice": dice,
    "iou": iou,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "precision": precision,
}


class MetricSummary(NamedTuple):
    """One metric over many slices.

    Attributes:
      mean: of the slices where it is defined; NaN where there is none.
      pooled: of all slices' counts added up.
      slices: how many entered the mean.
      empty: how many met the metric's 0/0 rule, inside or outside the mean.
    """

    mean: float
    pooled: float
    slices: int
    empty: int


def summarize(counts: Counts) -> dict[str, MetricSummary]:
    """Per-slice mean and pooled value of every metric.

    Args:
      counts: (N,) each, one entry a slice.
    """
    total = Counts(*(np.asarray(part, np.int64).sum(keepdims=True) for part in counts))
    denominators = {
        "dice": counts.tp + counts.fp + counts.fn,
        "iou": counts.tp + counts.fp + counts.fn,
        "sensitivity": counts.tp + counts.fn,
        "specificity": counts.tn + counts.fp,
        "precision": counts.tp + counts.fp,
    }
    summaries = {}
    for name, metric in METRICS.items():
        values = metric(counts)
        defined = values[~np.isnan(values)]
        summaries[name] = MetricSummary(
            mean=float(defined.mean()) if defined.size else float("nan"),
            pooled=float(metric(total)[0]),
            slices=int(defined.size),
            empty=int(np.sum(denominators[name] == 0)),
        )
    return summaries


def _ratio(numerator, denominator, empty) -> np.ndarray:
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1.0), empty)
