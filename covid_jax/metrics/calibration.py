"""Calibration of lesion probabilities: reliability, ECE, Brier score, MAE.

All are sums over pixels: slices are added up and divided once. Most pixels of a slice are easy
background, which makes each of these scores small: compare them between methods on the same slices,
and look at the reliability of each bin.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from covid_jax.metrics._validation import Map, Mask, require_probabilities
from covid_jax.metrics.confusion import ratio


class Calibration(NamedTuple):
    """Sums over the pixels of one slice, or of several after ``add``.

    Attributes:
      pixels: number of pixels in each bin of probabilities. Bins have equal width and contain
        their lower edge, the last one its upper edge (1) too.
      confidence_sum: sum of the probabilities in each bin.
      lesion: number of lesion pixels in each bin.
      squared_error, absolute_error: sums over all pixels of the differences of probability and
        truth.
    """

    pixels: Int[np.ndarray, " bins"]
    confidence_sum: Float[np.ndarray, " bins"]
    lesion: Int[np.ndarray, " bins"]
    squared_error: float
    absolute_error: float

    def add(self, other: "Calibration") -> "Calibration":
        """Sums over the pixels of both, which must have the same bins."""
        sums: Any = (mine + theirs for mine, theirs in zip(self, other, strict=True))
        return Calibration(*sums)

    @property
    def confidence(self) -> Float[np.ndarray, " bins"]:
        """Mean probability in each bin; NaN in an empty one."""
        return ratio(self.confidence_sum, self.pixels, math.nan)

    @property
    def frequency(self) -> Float[np.ndarray, " bins"]:
        """Share of lesion pixels in each bin; equal to ``confidence`` if calibrated."""
        return ratio(self.lesion, self.pixels, math.nan)

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1]: mean of ``|confidence - frequency|`` over pixels.

        Of the lesion probability, not of the more probable of two classes. Naeini et al. 2015.
        """
        return float(np.abs(self.confidence_sum - self.lesion).sum() / self.pixels.sum())

    @property
    def brier(self) -> float:
        """Mean squared difference of probability and truth, in [0, 1]. Brier 1950."""
        return self.squared_error / float(self.pixels.sum())

    @property
    def mae(self) -> float:
        """Mean absolute difference of probability and truth, in [0, 1].

        The COVID-SemiSeg evaluator's MAE differs: it stretches each map to [0, 1] first
        (``covid_jax.metrics.covid_semiseg``).
        """
        return self.absolute_error / float(self.pixels.sum())


def calibration_scores(probabilities: Map, truth: Mask, bins: int = 15) -> Calibration:
    """Sums over the pixels of one slice. An empty truth needs no special rule: every pixel counts.

    Args:
      probabilities: lesion probabilities in [0, 1].
      truth: lesion mask of the same shape.
      bins: number of bins, of equal width.

    Raises:
      ValueError: if the shapes differ, the truth is not boolean, a probability lies outside [0, 1]
        or is NaN, or bins is below 1.
    """
    require_probabilities(probabilities, truth)
    if bins < 1:
        raise ValueError(f"expected at least one bin, got {bins}")
    p, g = probabilities.astype(float).ravel(), truth.ravel()
    indices = np.minimum((p * bins).astype(np.intp), bins - 1)
    error = np.abs(p - g)
    return Calibration(
        pixels=np.bincount(indices, minlength=bins),
        confidence_sum=np.bincount(indices, weights=p, minlength=bins),
        lesion=np.bincount(indices[g], minlength=bins),
        squared_error=float(error @ error),
        absolute_error=float(error.sum()),
    )
