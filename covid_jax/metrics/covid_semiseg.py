"""COVID-SemiSeg's evaluation: every 8-bit threshold of a stretched map, averaged.

The numbers of Fan et al., "Inf-Net" (TMI 2020), and of those who compare with it. Per slice, the
map is stretched so that its lowest value becomes 0 and its highest 1. At each of the thresholds
1, 254/255, ..., 0 what reaches the threshold is predicted, and Dice, sensitivity and specificity
are taken, all three 0 where no lesion pixel is hit: on an empty truth as well, even if nothing was
predicted. They are averaged over slices, then over thresholds. MAE is that of the stretched map.

Such a mean is no Dice at a threshold, and neither may stand beside the other. A map of one value
cannot be stretched and stays as it is. Values and thresholds are compared as exact fractions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from covid_jax.metrics._validation import require_slice, require_unit_interval
from covid_jax.metrics.sweep import counts_by_passed

SEMISEG_THRESHOLDS: Float[np.ndarray, "256"] = np.arange(255, -1, -1) / 255
AT_HALF = 127  # where 128/255 stands among them


class SemiSegScores(NamedTuple):
    """Of one slice.

    Attributes:
      dice, sensitivity, specificity: in [0, 1], at each of ``SEMISEG_THRESHOLDS``.
      mae: mean absolute difference of the stretched map and the truth.
      empty_truth: whether there is no lesion, so that the three are 0 whatever was predicted.
      constant: whether the map has one value only, and was not stretched.
    """

    dice: Float[np.ndarray, "256"]
    sensitivity: Float[np.ndarray, "256"]
    specificity: Float[np.ndarray, "256"]
    mae: float
    empty_truth: bool
    constant: bool


class SemiSegSummary(NamedTuple):
    """Of many slices.

    Attributes:
      dice, sensitivity, specificity: mean over slices, then over thresholds: the published form.
      mae: mean over slices.
      dice_curve, sensitivity_curve, specificity_curve: mean over slices at each threshold.
      slices, empty_truths, constants: how many there are, and of which kind.
    """

    dice: float
    sensitivity: float
    specificity: float
    mae: float
    dice_curve: Float[np.ndarray, "256"]
    sensitivity_curve: Float[np.ndarray, "256"]
    specificity_curve: Float[np.ndarray, "256"]
    slices: int
    empty_truths: int
    constants: int


def semiseg_scores(
    prediction: Num[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]
) -> SemiSegScores:
    """Scores of one slice's map.

    Args:
      prediction: floating point in [0, 1], or unsigned integers as a picture has them, whose
        type's largest value stands for 1.
      truth: the same shape; a picture's grey values above 128.

    Raises:
      ValueError: if the shapes differ, the truth is not boolean, or a value lies outside [0, 1]
        or is NaN.
    """
    require_slice(prediction, truth)
    stretched = _stretch(prediction)
    rising = SEMISEG_THRESHOLDS[::-1]
    passed = np.searchsorted(rising, stretched.ravel(), side="right")
    counts = counts_by_passed(passed, truth, rising.size)
    tp, fp, fn, tn = (np.asarray(part)[::-1] for part in counts)
    return SemiSegScores(
        dice=_where_hit(tp, 2 * tp, 2 * tp + fp + fn),
        sensitivity=_where_hit(tp, tp, tp + fn),
        specificity=_where_hit(tp, tn, tn + fp),
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
    dice = np.mean([one.dice for one in scores], axis=0)
    sensitivity = np.mean([one.sensitivity for one in scores], axis=0)
    specificity = np.mean([one.specificity for one in scores], axis=0)
    return SemiSegSummary(
        dice=float(dice.mean()),
        sensitivity=float(sensitivity.mean()),
        specificity=float(specificity.mean()),
        mae=float(np.mean([one.mae for one in scores])),
        dice_curve=dice,
        sensitivity_curve=sensitivity,
        specificity_curve=specificity,
        slices=len(scores),
        empty_truths=sum(one.empty_truth for one in scores),
        constants=sum(one.constant for one in scores),
    )


def _stretch(prediction: Num[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Min-max to [0, 1]. Whole numbers stay whole until divided, so that equal fractions meet."""
    if np.issubdtype(prediction.dtype, np.unsignedinteger):
        largest = float(np.iinfo(prediction.dtype).max)
    else:
        require_unit_interval(prediction)
        largest = 1.0
    values = prediction.astype(float)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else values / largest


def _where_hit(
    tp: Int[np.ndarray, "256"],
    numerator: Int[np.ndarray, "256"],
    denominator: Int[np.ndarray, "256"],
) -> Float[np.ndarray, "256"]:
    """The ratio, and 0 where no lesion pixel is hit, or where there is nothing to divide by."""
    return np.where(tp > 0, numerator / np.maximum(denominator, 1), 0.0)
