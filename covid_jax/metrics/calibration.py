"""Whether probabilities mean what they say: reliability, ECE, Brier score, MAE.

All are sums over pixels, so slices are added up and divided once. Most pixels of a slice are easy
background, which makes every one of these scores look small: compare them between methods on the
same slices, and look at the reliability of each bin.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from covid_jax.metrics._validation import require_slice, require_unit_interval


class Calibration(NamedTuple):
    """Sums over pixels, of one slice or of many; start from a slice and ``add`` the others.

    Attributes:
      pixels: how many have a probability in each bin; the bins are equally wide, each from its
        lower edge up to, but without, its upper one, and 1 lies in the last.
      confidence_sum: of the probabilities in each bin.
      lesion: pixels of each bin that are lesion.
      squared_error, absolute_error: of probability against truth, over all pixels.
    """

    pixels: Int[np.ndarray, " bins"]
    confidence_sum: Float[np.ndarray, " bins"]
    lesion: Int[np.ndarray, " bins"]
    squared_error: float
    absolute_error: float

    def add(self, other: "Calibration") -> "Calibration":
        """Both slices' pixels; a ValueError if they are binned differently."""
        if self.pixels.shape != other.pixels.shape:
            raise ValueError(f"{self.pixels.size} bins and {other.pixels.size} do not add up")
        return Calibration(
            pixels=self.pixels + other.pixels,
            confidence_sum=self.confidence_sum + other.confidence_sum,
            lesion=self.lesion + other.lesion,
            squared_error=self.squared_error + other.squared_error,
            absolute_error=self.absolute_error + other.absolute_error,
        )

    @property
    def confidence(self) -> Float[np.ndarray, " bins"]:
        """Mean probability in each bin; NaN in an empty one."""
        return _ratio(self.confidence_sum, self.pixels)

    @property
    def frequency(self) -> Float[np.ndarray, " bins"]:
        """Share of lesion among each bin's pixels, which a calibrated map's confidence equals."""
        return _ratio(self.lesion, self.pixels)

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1]: mean over pixels of |confidence - frequency|.

        Of the probability of lesion, not of the more probable of two classes. Naeini et al. 2015.
        """
        gaps = np.abs(self.confidence_sum - self.lesion)
        return float(gaps.sum() / self.pixels.sum())

    @property
    def brier(self) -> float:
        """Mean squared difference of probability and truth, in [0, 1]. Brier 1950."""
        return self.squared_error / float(self.pixels.sum())

    @property
    def mae(self) -> float:
        """Mean absolute difference of probability and truth, in [0, 1].

        On the map as it is; COVID-SemiSeg's is on a map stretched slice by slice
        (``covid_jax.metrics.covid_semiseg``).
        """
        return self.absolute_error / float(self.pixels.sum())


def calibration(
    probabilities: Float[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"], bins: int = 15
) -> Calibration:
    """One slice's sums. An empty truth is no special case: every pixel counts.

    Args:
      probabilities: of lesion, in [0, 1].
      truth: the same shape.
      bins: of equal width.

    Raises:
      ValueError: if the shapes differ, the truth is not boolean, a probability lies outside [0, 1]
        or is NaN, or there is no bin.
    """
    require_slice(probabilities, truth)
    require_unit_interval(probabilities)
    if bins < 1:
        raise ValueError(f"expected at least one bin, got {bins}")
    p, g = probabilities.astype(float).ravel(), truth.ravel()
    places = np.minimum((p * bins).astype(np.intp), bins - 1)
    error = np.abs(p - g)
    return Calibration(
        pixels=np.bincount(places, minlength=bins),
        confidence_sum=np.bincount(places, weights=p, minlength=bins),
        lesion=np.bincount(places[g], minlength=bins),
        squared_error=float(error @ error),
        absolute_error=float(error.sum()),
    )


def _ratio(
    numerator: Float[np.ndarray, " bins"] | Int[np.ndarray, " bins"],
    count: Int[np.ndarray, " bins"],
) -> Float[np.ndarray, " bins"]:
    return np.where(count > 0, numerator / np.maximum(count, 1), math.nan)
