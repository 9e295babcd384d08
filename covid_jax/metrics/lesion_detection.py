"""Detected, missed and false lesions of a slice, and the error of the lesion area.

A lesion is a connected component of a mask (8 neighbours). It is detected if the prediction covers
at least one of its pixels; a predicted component that covers no true pixel is a false lesion. These
are the most lenient rules; the covered share of each lesion is returned for stricter ones. One
predicted component may detect several lesions, and several may detect the same one. In 2-D slices,
one lesion of a volume counts once in each slice that it crosses.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from covid_jax.metrics._validation import require_mask, require_slice

_EIGHT = np.ones((3, 3), bool)


class Lesions(NamedTuple):
    """Lesions of one slice; areas in pixels, or in mm2 where the pixel area was given.

    Attributes:
      areas: area of each true lesion, in the order of their first pixels.
      covered: share of each true lesion that is predicted, in [0, 1].
      false_areas: area of each false lesion.
    """

    areas: Float[np.ndarray, " n"]
    covered: Float[np.ndarray, " n"]
    false_areas: Float[np.ndarray, " m"]

    @property
    def detected(self) -> Bool[np.ndarray, " n"]:
        """Whether at least one pixel of each true lesion is predicted."""
        return self.covered > 0


def match_lesions(
    prediction: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"], pixel_area: float = 1.0
) -> Lesions:
    """Matches the connected components of both masks. An empty mask has none.

    Args:
      prediction: predicted mask of one slice.
      truth: lesion mask of the same shape.
      pixel_area: in mm2; 1 for areas in pixels.

    Raises:
      ValueError: if the masks are not boolean slices of one shape, or the area is not positive.
    """
    _require(prediction, truth, pixel_area)
    sizes, hits = _components(truth, prediction)
    false_sizes, false_hits = _components(prediction, truth)
    return Lesions(
        areas=sizes * pixel_area,
        covered=hits / sizes,
        false_areas=false_sizes[false_hits == 0] * pixel_area,
    )


class SizeBin(NamedTuple):
    """Detection of the lesions in a range of areas, over several slices.

    Attributes:
      low, high: the range, low <= area < high; high is infinite in the last bin.
      lesions: number of true lesions.
      detected, missed: number of these that were detected or missed.
      false: number of false lesions with an area in the range.
      sensitivity: detected / lesions; NaN without lesions.
      false_per_slice: false / number of slices; NaN without slices.
    """

    low: float
    high: float
    lesions: int
    detected: int
    missed: int
    false: int
    sensitivity: float
    false_per_slice: float


def detection_by_size(slices: Sequence[Lesions], edges: Iterable[float] = ()) -> list[SizeBin]:
    """Detection over several slices, in bins of lesion area.

    Args:
      slices: lesions of each slice, also of those without lesion.
      edges: increasing bounds between the bins, in the unit of the areas. The first bin starts at
        0, the last is unbounded. Without edges there is one bin.

    Raises:
      ValueError: if the edges do not increase from above 0.
    """
    bounds = [0.0, *map(float, edges), math.inf]
    if any(not low < high for low, high in itertools.pairwise(bounds)):
        raise ValueError(f"expected edges that increase from above 0, got {bounds[1:-1]}")
    areas = np.concatenate([np.empty(0), *(lesions.areas for lesions in slices)])
    detected = np.concatenate([np.empty(0, bool), *(lesions.detected for lesions in slices)])
    false_areas = np.concatenate([np.empty(0), *(lesions.false_areas for lesions in slices)])
    bins = []
    for low, high in itertools.pairwise(bounds):
        inside = (areas >= low) & (areas < high)
        lesions, hits = int(inside.sum()), int((inside & detected).sum())
        false = int(((false_areas >= low) & (false_areas < high)).sum())
        bins.append(
            SizeBin(
                *(low, high, lesions, hits, lesions - hits, false),
                sensitivity=hits / lesions if lesions else math.nan,
                false_per_slice=false / len(slices) if slices else math.nan,
            )
        )
    return bins


class AreaError(NamedTuple):
    """Error of the total lesion area of one slice, in pixels or mm2.

    Attributes:
      truth, prediction: the two areas.
      signed: prediction - truth; 0 if both masks are empty.
      absolute: absolute value of ``signed``; in its mean, opposite errors do not cancel.
    """

    truth: float
    prediction: float
    signed: float
    absolute: float


def area_error(
    prediction: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"], pixel_area: float = 1.0
) -> AreaError:
    """Error of the predicted area; arguments and errors are those of ``match_lesions``."""
    _require(prediction, truth, pixel_area)
    true, predicted = (float(np.count_nonzero(m)) * pixel_area for m in (truth, prediction))
    return AreaError(true, predicted, predicted - true, abs(predicted - true))


def _components(
    mask: Bool[np.ndarray, "h w"], other: Bool[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Number of pixels of each component, and how many of them are in the other mask."""
    labels, count = ndimage.label(mask, _EIGHT)  # pyright: ignore[reportGeneralTypeIssues]
    sizes = np.bincount(labels[mask], minlength=count + 1)[1:]
    hits = np.bincount(labels[mask & other], minlength=count + 1)[1:]
    return sizes.astype(float), hits.astype(float)


def _require(
    prediction: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"], pixel_area: float
) -> None:
    require_slice(prediction, truth)
    require_mask(prediction, "prediction")
    if not 0 < pixel_area < math.inf:
        raise ValueError(f"expected a positive pixel area, got {pixel_area}")
