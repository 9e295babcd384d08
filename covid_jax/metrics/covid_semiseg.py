"""The COVID-SemiSeg evaluator: mean scores over 256 thresholds of a stretched probability map.

The protocol of Fan et al., "Inf-Net" (TMI 2020), and of the publications that compare with it. Each
slice's map is stretched so that its lowest value becomes 0 and its highest 1. At each of the
thresholds 1, 254/255, ..., 0, pixels that reach the threshold are predicted. Dice, sensitivity and
specificity are all 0 where no lesion pixel is predicted, also on an empty truth with nothing
predicted. They are averaged over slices, then over thresholds. MAE is that of the stretched map.

Such a mean must not be compared with a Dice at one threshold. A constant map is not stretched.
Values and thresholds are compared as exact fractions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

from covid_jax.metrics._validation import Mask, require_slice, require_unit_interval
from covid_jax.metrics.confusion import counts_at_thresholds, ratio

SEMISEG_THRESHOLDS: Float[np.ndarray, "256"] = np.arange(255, -1, -1) / 255
AT_HALF = 127  # index of 128/255


class SemiSegScores(NamedTuple):
    """Scores of one slice.

    Attributes:
      dice, sensitivity, specificity: in [0, 1], at each of ``SEMISEG_THRESHOLDS``.
      mae: mean absolute difference of the stretched map and the truth.
      empty_truth: whether there is no lesion; the three are then 0 for any prediction.
      constant: whether the map has a single value and was not stretched.
    """

    dice: Float[np.ndarray, "256"]
    sensitivity: Float[np.ndarray, "256"]
    specificity: Float[np.ndarray, "256"]
    mae: float
    empty_truth: bool
    constant: bool


class SemiSegSummary(NamedTuple):
    """Mean scores of several slices.

    Attributes:
      dice, sensitivity, specificity: mean over slices, then over thresholds, as published.
      mae: mean over slices.
      dice_curve: mean Dice over slices at each threshold.
      empty_truths: number of slices without lesion.
      constants: number of constant maps.
    """

    dice: float
    sensitivity: float
    specificity: float
    mae: float
    dice_curve: Float[np.ndarray, "256"]
    empty_truths: int
    constants: int


def semiseg_scores(prediction: Num[np.ndarray, "h w"], truth: Mask) -> SemiSegScores:
    """Scores of one slice.

    Args:
      prediction: probability map: floating point in [0, 1], or unsigned integers (an image file's
        grey values), of which the largest of their dtype stands for 1.
      truth: lesion mask of the same shape; of an image file, grey values above 128.

    Raises:
      ValueError: if the shapes differ, the truth is not boolean, or a value lies outside [0, 1]
        or is NaN.
    """
    require_slice(prediction, truth)
    stretched = _stretch(prediction)
    rising = SEMISEG_THRESHOLDS[::-1]
    thresholds_passed = np.searchsorted(rising, stretched.ravel(), side="right")
    counts = counts_at_thresholds(thresholds_passed, truth, rising.size)
    tp, fp, fn, tn = (np.asarray(part)[::-1] for part in counts)
    return SemiSegScores(
        dice=ratio(2 * tp, 2 * tp + fp + fn, empty=0.0),
        sensitivity=ratio(tp, tp + fn, empty=0.0),
        specificity=ratio(tn * (tp > 0), tn + fp, empty=0.0),
        mae=float(np.abs(stretched - truth).mean()),
        empty_truth=not truth.any(),
        constant=bool(prediction.min() == prediction.max()),
    )


def summarize_semiseg(scores: Sequence[SemiSegScores]) -> SemiSegSummary:
    """Means over slices, then over thresholds.

    Raises:
      ValueError: if there are no slices.
    """
    if not scores:
        raise ValueError("no slices")
    names = ("dice", "sensitivity", "specificity")
    curves = {name: np.mean([getattr(s, name) for s in scores], axis=0) for name in names}
    return SemiSegSummary(
        **{name: float(curve.mean()) for name, curve in curves.items()},
        dice_curve=curves["dice"],
        mae=float(np.mean([s.mae for s in scores])),
        empty_truths=sum(s.empty_truth for s in scores),
        constants=sum(s.constant for s in scores),
    )


def _stretch(prediction: Num[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Min-max to [0, 1]. Integers are divided once, so that equal fractions compare equal."""
    if np.issubdtype(prediction.dtype, np.unsignedinteger):
        largest = float(np.iinfo(prediction.dtype).max)
    else:
        require_unit_interval(prediction)
        largest = 1.0
    values = prediction.astype(float)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else values / largest
