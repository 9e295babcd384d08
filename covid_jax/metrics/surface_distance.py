"""Hausdorff, HD95, ASSD and surface Dice: how far two masks' boundaries lie apart, slice by slice.

Conventions, as different libraries' numbers differ by them:

- The boundary of a mask is its pixels with a 4-neighbour outside it; beyond the slice is outside.
  Distances are Euclidean, between pixel centres, from each pixel of one boundary to the nearest of
  the other: in pixels, or in mm where the spacing is given.
- Hausdorff is the largest of them. HD95 is the larger of the two directions' 95th percentiles
  (linear interpolation), as in MONAI; the percentile of both directions together, as in medpy, is
  smaller or equal. ASSD is the mean over both boundaries' pixels together.
- Surface Dice (NSD) is the share of both boundaries' pixels that lie within the tolerance of the
  other boundary, the tolerance included. Pixels are counted, not lengths or areas.

What an empty mask does, so that a missed lesion neither vanishes from a mean nor makes it infinite
(MONAI's infinity and NaN do):

==================  ===========================================  ================
masks               Hausdorff, HD95, ASSD                        NSD
==================  ===========================================  ================
both empty          0: the slice is right                        1
one empty           the slice's diagonal, corner to corner:      0
                    longer than any distance between pixels
==================  ===========================================  ================
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from covid_jax.metrics._validation import require_mask, require_slice

Spacing = tuple[float, float]
DISTANCES = ("hausdorff", "hd95", "assd")
_ROUNDING = 1e-9  # three steps of 0.1 mm are within 0.3 mm, whatever floating point says


class SurfaceScores(NamedTuple):
    """Of one slice.

    Attributes:
      hausdorff, hd95, assd: in mm, or in pixels where no spacing was given; 0 is best.
      nsd: surface Dice in [0, 1], at the tolerance.
      boundary: pixels of both boundaries.
      empty: how many of the two masks are empty.
    """

    hausdorff: float
    hd95: float
    assd: float
    nsd: float
    boundary: int
    empty: int


def surface_scores(
    prediction: Bool[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "h w"],
    tolerance: float,
    spacing: Spacing | None = None,
) -> SurfaceScores:
    """Distances between the boundaries of two masks.

    Args:
      prediction: of one slice.
      truth: the same shape.
      tolerance: of the surface Dice, in the distances' unit. Ma et al. (Medical Physics 2021) take
        3 mm for COVID-19 lesions.
      spacing: from one row to the next and from one column to the next, in mm; None for pixels.

    Raises:
      ValueError: if the masks are not boolean slices of one shape, the spacing is not positive, or
        the tolerance is negative.

    References:
      Nikolov et al. 2021 (surface Dice), doi:10.2196/26151. Maier-Hein et al. 2024 (Metrics
      Reloaded), doi:10.1038/s41592-023-02151-z.
    """
    require_slice(prediction, truth)
    require_mask(prediction)
    rows, columns = spacing or (1.0, 1.0)
    if not (0 < rows < math.inf and 0 < columns < math.inf):
        raise ValueError(f"expected a positive spacing of rows and columns, got {spacing}")
    if not tolerance >= 0:
        raise ValueError(f"expected a tolerance of 0 or more, got {tolerance}")
    edges = [boundary(mask) for mask in _cropped(prediction, truth)]
    sizes = [int(edge.sum()) for edge in edges]
    if 0 in sizes:
        empty = sizes.count(0)
        height, width = truth.shape
        far = math.hypot(height * rows, width * columns) if empty == 1 else 0.0
        return SurfaceScores(far, far, far, float(empty == 2), sum(sizes), empty)
    there = _nearest(edges[0], edges[1], (rows, columns))
    back = _nearest(edges[1], edges[0], (rows, columns))
    both = np.concatenate([there, back])
    return SurfaceScores(
        hausdorff=float(both.max()),
        hd95=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        assd=float(both.mean()),
        nsd=float((both <= tolerance * (1 + _ROUNDING)).mean()),
        boundary=both.size,
        empty=0,
    )


def boundary(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of the mask with a 4-neighbour outside it; beyond the slice is outside."""
    around = np.pad(mask, 1)
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inside


class SurfaceSummary(NamedTuple):
    """One of the scores over many slices.

    Attributes:
      mean: of all slices, empty masks by the module's rule; NaN where there is no slice.
      mean_of_both: of the slices where neither mask is empty; NaN where there is none.
      pooled: all slices' boundary pixels as one set, for ASSD and NSD; NaN for the others, which
        are no means, and where no slice has a boundary.
      slices: how many entered the mean.
      one_empty, both_empty: how many of them met which rule.
    """

    mean: float
    mean_of_both: float
    pooled: float
    slices: int
    one_empty: int
    both_empty: int


def summarize_surface(scores: Sequence[SurfaceScores]) -> dict[str, SurfaceSummary]:
    """Means of every score, one entry a slice."""
    empty = np.array([one.empty for one in scores], int)
    weights = np.array([one.boundary for one in scores], float)
    summaries = {}
    for name in (*DISTANCES, "nsd"):
        values = np.array([getattr(one, name) for one in scores], float)
        is_mean = name in ("assd", "nsd") and weights.sum() > 0
        summaries[name] = SurfaceSummary(
            mean=_mean(values),
            mean_of_both=_mean(values[empty == 0]),
            pooled=float(np.average(values, weights=weights)) if is_mean else math.nan,
            slices=len(scores),
            one_empty=int(np.sum(empty == 1)),
            both_empty=int(np.sum(empty == 2)),
        )
    return summaries


def _cropped(
    prediction: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]
) -> tuple[Bool[np.ndarray, "a b"], Bool[np.ndarray, "a b"]]:
    """Both cut to the smallest box that holds them; their boundaries are the same there."""
    either = prediction | truth
    rows, columns = np.flatnonzero(either.any(1)), np.flatnonzero(either.any(0))
    if rows.size == 0:
        return prediction[:1, :1], truth[:1, :1]
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return prediction[box], truth[box]


def _nearest(
    start: Bool[np.ndarray, "a b"], goal: Bool[np.ndarray, "a b"], spacing: Spacing
) -> Float[np.ndarray, " n"]:
    """From each pixel of the start to the nearest of the goal."""
    # The nearest pixels alone, and distances where they are wanted: half the time of a whole map.
    nearest = ndimage.distance_transform_edt(
        ~goal, sampling=spacing, return_distances=False, return_indices=True
    )
    steps = np.asarray(nearest)[:, start] - np.stack(np.nonzero(start))
    return np.hypot(steps[0] * spacing[0], steps[1] * spacing[1])


def _mean(values: Float[np.ndarray, " n"]) -> float:
    return float(values.mean()) if values.size else math.nan
