"""Detected, missed and false lesions of a slice.

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

from covid_jax.metrics._validation import Mask, require_masks

_EIGHT = np.ones((3, 3), bool)  # a pixel and its neighbours


class Lesions(NamedTuple):
    """Lesions of one slice; areas in pixels, or in mm2 after ``scaled``.

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

    def scaled(self, pixel_area: float) -> "Lesions":
        """The same lesions with areas in the unit of ``pixel_area``, such as mm2."""
        return Lesions(self.areas * pixel_area, self.covered, self.false_areas * pixel_area)


def match_lesions(prediction: Mask, truth: Mask) -> Lesions:
    """Matches the connected components of both masks. An empty mask has none.

    Args:
      prediction: predicted mask of one slice.
      truth: lesion mask of the same shape.

    Raises:
      ValueError: if the masks are not boolean slices of one shape.
    """
    require_masks(prediction, truth)
    sizes, hits = _components(truth, prediction)
    false_sizes, false_hits = _components(prediction, truth)
    return Lesions(sizes, hits / sizes, false_sizes[false_hits == 0])


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
    none = np.empty(0)
    areas, covered, false_areas = map(np.concatenate, zip((none, none, none), *slices, strict=True))
    counted = (np.histogram(part, bounds)[0] for part in (areas, areas[covered > 0], false_areas))
    return [
        SizeBin(
            *(low, high, lesions, detected, lesions - detected, false),
            sensitivity=detected / lesions if lesions else math.nan,
            false_per_slice=false / len(slices) if slices else math.nan,
        )
        for low, high, lesions, detected, false in zip(
            bounds, bounds[1:], *(part.tolist() for part in counted), strict=False
        )
    ]


def _components(mask: Mask, other: Mask) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Number of pixels of each component, and how many of them are in the other mask."""
    labels, count = ndimage.label(mask, _EIGHT)  # pyright: ignore[reportGeneralTypeIssues]
    sizes = np.bincount(labels[mask], minlength=count + 1)[1:]
    hits = np.bincount(labels[mask & other], minlength=count + 1)[1:]
    return sizes.astype(float), hits.astype(float)
