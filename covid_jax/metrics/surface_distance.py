"""Hausdorff distance, HD95, ASSD and surface Dice between the boundaries of two masks of a slice.

Conventions, which differ between libraries:

- The boundary of a mask is its pixels with a 4-neighbour outside it; beyond the slice is outside.
  Distances are Euclidean, between pixel centres, from each pixel of one boundary to the nearest
  pixel of the other: in pixels, or in mm where the spacing is given.
- Hausdorff is the largest of these distances. HD95 is the larger of the 95th percentiles of the two
  directions (linear interpolation), as in MONAI; the percentile of both directions together, as in
  medpy, is smaller or equal. ASSD is the mean over the pixels of both boundaries.
- Surface Dice (NSD) is the share of the pixels of both boundaries that lie within the tolerance
  (inclusive) of the other boundary. Pixels are counted, not lengths or areas.

Values for empty masks, chosen so that a missed lesion neither vanishes from a mean nor makes it
infinite (as with the infinity and NaN of MONAI):

==================  ===========================================  ================
masks               Hausdorff, HD95, ASSD                        NSD
==================  ===========================================  ================
both empty          0: the slice is right                        1
one empty           the diagonal of the slice, which is longer   0
                    than any distance between its pixels
==================  ===========================================  ================
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from covid_jax.metrics._validation import Mask, require_masks
from covid_jax.metrics.confusion import mean_of_defined

Spacing = tuple[float, float]
SURFACE_METRICS = ("hausdorff", "hd95", "assd", "nsd")
_ROUNDING = 1e-9  # relative: 3 * 0.1 mm, which rounds up, is within a tolerance of 0.3 mm


class SurfaceScores(NamedTuple):
    """Surface distances of one slice.

    Attributes:
      hausdorff, hd95, assd: in mm, or in pixels where no spacing was given; 0 is best.
      nsd: surface Dice in [0, 1], at the given tolerance.
      boundary: number of pixels of both boundaries.
      empty: number of the two masks that are empty.
    """

    hausdorff: float
    hd95: float
    assd: float
    nsd: float
    boundary: int
    empty: int


def surface_scores(
    prediction: Mask, truth: Mask, tolerance: float, spacing: Spacing | None = None
) -> SurfaceScores:
    """Distances between the boundaries of two masks.

    Args:
      prediction: predicted mask of one slice.
      truth: lesion mask of the same shape.
      tolerance: of the surface Dice, in the unit of the distances. Ma et al. (Medical Physics 2021)
        use 3 mm for COVID-19 lesions.
      spacing: distance between rows and between columns, in mm; None for distances in pixels.

    Raises:
      ValueError: if the masks are not boolean slices of one shape, the spacing is not positive, or
        the tolerance is negative.

    References:
      Nikolov et al. 2021 (surface Dice), doi:10.2196/26151. Maier-Hein et al. 2024 (Metrics
      Reloaded), doi:10.1038/s41592-023-02151-z.
    """
    require_masks(prediction, truth)
    rows, columns = spacing or (1.0, 1.0)
    if not (0 < rows < math.inf and 0 < columns < math.inf):
        raise ValueError(f"expected a positive spacing of rows and columns, got {spacing}")
    if not tolerance >= 0:
        raise ValueError(f"expected a tolerance of 0 or more, got {tolerance}")
    # Cropped to the bounding box of both, which keeps their boundaries.
    (box,) = ndimage.find_objects((prediction | truth).view(np.uint8), max_label=1)
    box = box or slice(1)  # both empty
    edges = [boundary(mask[box]) for mask in (prediction, truth)]
    if 0 in (sizes := [int(edge.sum()) for edge in edges]):
        empty = sizes.count(0)
        height, width = truth.shape
        distance = math.hypot(height * rows, width * columns) if empty == 1 else 0.0
        return SurfaceScores(distance, distance, distance, float(empty == 2), sum(sizes), empty)
    to_truth = _distances(edges[0], edges[1], (rows, columns))
    to_prediction = _distances(edges[1], edges[0], (rows, columns))
    both = np.concatenate([to_truth, to_prediction])
    return SurfaceScores(
        hausdorff=float(both.max()),
        hd95=float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95))),
        assd=float(both.mean()),
        nsd=float((both <= tolerance * (1 + _ROUNDING)).mean()),
        boundary=both.size,
        empty=0,
    )


def boundary(mask: Mask) -> Mask:
    """Pixels of the mask with a 4-neighbour outside it; beyond the slice is outside."""
    around = np.pad(mask, 1)
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inside


class SurfaceSummary(NamedTuple):
    """One of the scores over several slices.

    Attributes:
      mean: mean over all slices, with the values above for empty masks; NaN without slices.
      mean_of_both: mean over the slices where neither mask is empty; NaN where there is none.
      pooled: ASSD or NSD over the boundary pixels of all slices; NaN without boundary pixels, and
        for Hausdorff and HD95, which are not means.
      slices: number of slices.
      one_empty, both_empty: number of slices with one empty mask, and with two.
    """

    mean: float
    mean_of_both: float
    pooled: float
    slices: int
    one_empty: int
    both_empty: int


def summarize_surface(scores: Sequence[SurfaceScores]) -> dict[str, SurfaceSummary]:
    """Summary of every score over slices, by its name in ``SurfaceScores``."""
    empty = np.array([s.empty for s in scores], int)
    weights = np.array([s.boundary for s in scores], float)
    summaries = {}
    for name in SURFACE_METRICS:
        values = np.array([getattr(s, name) for s in scores], float)
        is_mean = name in ("assd", "nsd") and weights.sum() > 0
        summaries[name] = SurfaceSummary(
            mean=mean_of_defined(values),
            mean_of_both=mean_of_defined(values[empty == 0]),
            pooled=float(np.average(values, weights=weights)) if is_mean else math.nan,
            slices=len(scores),
            one_empty=int(np.sum(empty == 1)),
            both_empty=int(np.sum(empty == 2)),
        )
    return summaries


def _distances(start: Mask, goal: Mask, spacing: Spacing) -> Float[np.ndarray, " n"]:
    """Distance from each pixel of ``start`` to the nearest pixel of ``goal``."""
    # Indices only, and distances at the pixels of start: half the time of a map of distances.
    nearest = ndimage.distance_transform_edt(
        ~goal, sampling=spacing, return_distances=False, return_indices=True
    )
    steps = np.asarray(nearest)[:, start] - np.stack(np.nonzero(start))
    return np.hypot(steps[0] * spacing[0], steps[1] * spacing[1])
