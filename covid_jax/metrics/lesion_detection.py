"""Lesion by lesion: which were found, which were missed, which are none; and the lesion's area.

A lesion is a connected component of a mask, pixels joined by sides and corners (8 neighbours). It
counts as found if the prediction covers at least one of its pixels; a predicted component that
covers no true pixel is a false lesion. Both are the most lenient rule, so the share covered is kept
for stricter ones. One predicted component may find several lesions, and several may find one.
In a slice these are cuts through lesions: one lesion of a volume counts once in each of its slices.
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
    """Of one slice; areas in pixels, or in mm2 where a pixel's area was given.

    Attributes:
      areas: of each true lesion, from the first row that has one.
      covered: share of each true lesion's pixels that is predicted, in [0, 1].
      false_areas: of each predicted component that covers no true pixel.
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
    """Connected components of both masks, and which meet. An empty mask has none.

    Args:
      prediction: of one slice.
      truth: the same shape.
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
    """Lesions of some areas, over many slices.

    Attributes:
      low, high: areas from low up to, but without, high; high is infinite in the last bin.
      lesions: true ones.
      detected, missed: of these.
      false: false lesions whose own area lies in the bin.
      sensitivity: detected / lesions; NaN where there are none.
      false_per_slice: over all slices; NaN where there are no slices.
    """

    low: float
    high: float
    lesions: int
    detected: int
    missed: int
    false: int
    sensitivity: float
    false_per_slice: float


def by_size(slices: Sequence[Lesions], edges: Iterable[float] = ()) -> list[SizeBin]:
    """Counts over slices, in bins by area.

    Args:
      slices: an entry a slice, clean ones too.
      edges: between the bins, increasing, in the areas' unit; the first bin starts at 0, the last
        is open. None of them: one bin with all.

    Raises:
      ValueError: if the edges do not increase from above 0.
    """
    bounds = [0.0, *map(float, edges), math.inf]
    if any(not low < high for low, high in itertools.pairwise(bounds)):
        raise ValueError(f"expected edges that increase from above 0, got {bounds[1:-1]}")
    areas = np.concatenate([np.empty(0), *(one.areas for one in slices)])
    detected = np.concatenate([np.empty(0, bool), *(one.detected for one in slices)])
    false_areas = np.concatenate([np.empty(0), *(one.false_areas for one in slices)])
    bins = []
    for low, high in itertools.pairwise(bounds):
        inside = (areas >= low) & (areas < high)
        lesions, found = int(inside.sum()), int((inside & detected).sum())
        false = int(((false_areas >= low) & (false_areas < high)).sum())
        bins.append(
            SizeBin(
                *(low, high, lesions, found, lesions - found, false),
                sensitivity=found / lesions if lesions else math.nan,
                false_per_slice=false / len(slices) if slices else math.nan,
            )
        )
    return bins


class AreaError(NamedTuple):
    """The lesion's area in one slice, all components together; in pixels or mm2.

    Attributes:
      truth, prediction: the two areas.
      signed: prediction - truth; above 0 too much was marked. 0 if both are empty.
      absolute: its size; two errors of opposite sign do not cancel in a mean of it.
    """

    truth: float
    prediction: float
    signed: float
    absolute: float


def area_error(
    prediction: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"], pixel_area: float = 1.0
) -> AreaError:
    """How much too large the predicted area is; takes and raises what ``match_lesions`` does."""
    _require(prediction, truth, pixel_area)
    true, predicted = (float(np.count_nonzero(m)) * pixel_area for m in (truth, prediction))
    return AreaError(true, predicted, predicted - true, abs(predicted - true))


def _components(
    mask: Bool[np.ndarray, "h w"], other: Bool[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Pixels of each component, and how many of them the other mask covers."""
    labels, count = ndimage.label(mask, _EIGHT)  # pyright: ignore[reportGeneralTypeIssues]
    sizes = np.bincount(labels[mask], minlength=count + 1)[1:]
    hits = np.bincount(labels[mask & other], minlength=count + 1)[1:]
    return sizes.astype(float), hits.astype(float)


def _require(
    prediction: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"], pixel_area: float
) -> None:
    require_slice(prediction, truth)
    require_mask(prediction)
    if not 0 < pixel_area < math.inf:
        raise ValueError(f"expected a positive pixel area, got {pixel_area}")
