"""One grey scale for CT slices of any origin: Hounsfield units and 8-bit pictures of any window.

The scale is fixed by two tissues: aerated lung is 0 and soft tissue is 1. In Hounsfield units (HU)
these are -860 and 40; in any other picture they are estimated from the dark and the bright pixels
of the slice, which remain distinguishable after any window. Values are clipped to ``CLIP``.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Num, Shaped
from numpy.typing import ArrayLike
from scipy import ndimage

Pixels = Num[np.ndarray, "h w"]
Stack = Num[np.ndarray, "n h w"]
LUNG_HU, SOFT_TISSUE_HU = -860.0, 40.0
CLIP = (-0.2, 1.1)
"""In HU -1040 to 130: the lung window (level -600, width 1500), without what lies below air."""

_DARKEST, _DARKEST_HU = 5, -890.0
"""Percentile of the lungs' dark pixels, and what it is in HU, within 35 HU in each of 12 patients.

Their mode and lower quartile move by 100 HU and more where disease fills the lungs."""
_MIN_SHARE = 0.003  # of the slice's pixels: a mode of fewer is not believed
_MIN_CONTRAST = 0.15  # of the slice's range: modes nearer to each other are not two tissues
_SAMPLE = 200_000  # voxels that describe a scan


class GreyScale(NamedTuple):
    """The two intensities that fix a slice's grey scale.

    Attributes:
      lung: the intensity of aerated lung, mapped to 0.
      soft_tissue: the intensity of soft tissue, mapped to 1.
      fallback: the reason why the slice's own modes were not used; None if they were used, and in
        HU.
    """

    lung: float
    soft_tissue: float
    fallback: str | None = None

    def apply(self, image: Num[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
        """The image on the common scale, clipped to ``CLIP``."""
        scaled = (np.asarray(image, np.float32) - self.lung) / (self.soft_tissue - self.lung)
        return np.clip(scaled, *CLIP, dtype=np.float32)


HOUNSFIELD = GreyScale(LUNG_HU, SOFT_TISSUE_HU)


def find_grey_scale(image: Pixels, lungs: Shaped[np.ndarray, "h w"] | None = None) -> GreyScale:
    """The grey scale of one slice that is not in HU.

    Lung is read from the darkest 5 % of the lungs' dark pixels (their mode moves with a diffuse
    disease); soft tissue is the mode of the bright pixels that the window did not saturate. Both
    are taken from the slightly smoothed slice, without its padding.

    Args:
      image: one slice, whole or cropped to the lungs.
      lungs: the lungs' mask. Without it every dark pixel counts as lung, also the air around a
        body: give the mask, or a slice cropped to the lungs.

    Returns:
      The grey scale. If one of the two modes is missing, it uses percentiles 5 and 75, and
      ``fallback`` contains the reason.
    """
    smooth = smoothed(image)
    inside = ~padding(image)
    if not inside.any() or np.ptp(smooth[inside]) == 0:
        value = float(smooth.flat[0])
        return GreyScale(value, value + 1.0, "the slice is constant")
    values = smooth[inside]
    threshold = otsu(values)
    dark = inside & (smooth < threshold)
    bright = inside & (smooth >= threshold)
    if lungs is not None:
        dark &= lungs > 0
        if dark.any():  # soft tissue within the lungs' box: heart and liver, not the skin's fat
            chest = np.zeros_like(bright)
            chest[ndimage.find_objects(np.uint8(lungs > 0))[0]] = True
            bright &= chest & (lungs == 0)
    low, high = (float(value) for value in np.percentile(values, (0.5, 99.5)))
    if min(dark.sum(), bright.sum()) < _MIN_SHARE * values.size:
        reason = "no lung in the slice" if dark.sum() < bright.sum() else "no soft tissue"
    else:
        lung, soft_tissue = float(np.percentile(smooth[dark], _DARKEST)), _mode(smooth[bright])
        above = (LUNG_HU - _DARKEST_HU) / (SOFT_TISSUE_HU - _DARKEST_HU)
        lung += above * (soft_tissue - lung)
        if soft_tissue - lung >= _MIN_CONTRAST * (high - low):
            return GreyScale(lung, soft_tissue)
        reason = f"lung ({lung:g}) and soft tissue ({soft_tissue:g}) are too near to each other"
    lung, soft_tissue = (float(value) for value in np.percentile(values, (5, 75)))
    return GreyScale(lung, max(soft_tissue, lung + 0.1 * float(np.ptp(values))), reason)


def find_grey_scales(
    stack: Stack, hounsfield: bool, lungs: Shaped[np.ndarray, "n h w"] | None = None
) -> list[GreyScale]:
    """The grey scale of each slice of a scan.

    If the modes of a slice cannot be found, it gets the median scale of the scan's other slices,
    which have the same window, and keeps its ``fallback``.

    Args:
      stack: a scan's slices.
      hounsfield: whether they are in HU (``looks_like_hounsfield``), where the scale is fixed.
      lungs: the lungs' mask (``lung_mask``).
    """
    if hounsfield:
        return [HOUNSFIELD] * len(stack)
    masks = [None] * len(stack) if lungs is None else lungs
    scales = [find_grey_scale(image, mask) for image, mask in zip(stack, masks, strict=True)]
    if not (good := [scale[:2] for scale in scales if scale.fallback is None]):
        return scales
    lung, soft_tissue = np.median(good, axis=0).tolist()
    return [s if s.fallback is None else GreyScale(lung, soft_tissue, s.fallback) for s in scales]


def smoothed(image: Pixels) -> Float32[np.ndarray, "h w"]:
    """The slice smoothed by a Gaussian with a standard deviation of 0.6 % of the longer side."""
    return ndimage.gaussian_filter(np.asarray(image, np.float32), 0.006 * max(image.shape))


def padding(image: Pixels) -> Bool[np.ndarray, "h w"]:
    """The pixels never scanned: constant rows and columns, and the lowest value if it is frequent.

    A lowest value that takes more than 1 % of a slice is a filling, or air that a window cut off.
    """
    flat = (np.ptp(image, 1) == 0)[:, None] | (np.ptp(image, 0) == 0)
    lowest = image == image.min()
    return flat | lowest if lowest.mean() > 0.01 else flat


def otsu(values: ArrayLike) -> float:
    """The threshold that splits values into the two classes farthest apart (Otsu, 1979)."""
    counts, edges = np.histogram(np.asarray(values, float), 256)  # float32's may be too few
    weight = np.cumsum(counts)[:-1].astype(float)
    total = weight[-1] + counts[-1]
    sums = np.cumsum(counts * (edges[1:] + edges[:-1]) / 2)
    product = weight * (total - weight)
    between = np.square(sums[-1] * weight / total - sums[:-1]) / np.where(product, product, np.inf)
    return float(edges[1:][between.argmax()])


def _mode(values: Float32[np.ndarray, " n"]) -> float:
    """The brightest mode among those that are nearly as frequent as the most frequent one.

    The brightest is used because muscle and blood are brighter than fat. Saturated values are
    excluded unless they are the majority.
    """
    saturated = values > values.max() - 0.06 * np.ptp(values)
    if saturated.mean() < 0.5:
        values = values[~saturated]
    counts, edges = np.histogram(values.astype(float), 128)
    counts = ndimage.gaussian_filter1d(np.pad(counts.astype(float), 1), 3, mode="constant")
    peaks = (counts[1:-1] >= counts[:-2]) & (counts[1:-1] > counts[2:])
    best = np.flatnonzero(peaks & (counts[1:-1] >= 0.7 * counts.max()))[-1]
    return float(edges[best : best + 2].mean())


def looks_like_hounsfield(stack: Num[np.ndarray, "..."]) -> bool:
    """Whether a scan can be a chest in HU: nothing speaks against HU, and air and tissue show."""
    if hounsfield_problem(stack):
        return False
    p1, p99 = np.percentile(_sampled(stack), (1, 99))
    return bool(p1 <= -300 and p99 >= -200)


def hounsfield_problem(stack: Num[np.ndarray, "..."]) -> str | None:
    """A sentence on what is wrong with the HU of a scan; None if nothing is.

    Padding below air is common and harmless; it is left out.
    """
    if not (values := _sampled(stack)).size:
        return "the scan holds nothing but padding"
    low, p1, p99, high = np.percentile(values, (0, 1, 99, 100)).tolist()
    span = f"intensities from {low:g} to {high:g}"
    if low >= 0 and high <= 1:
        return f"{span} are fractions, not HU"
    if low >= 0 and high <= 255:
        return f"{span} are an 8-bit picture's, not HU"
    if p1 < -3000 or p99 > 5000:
        return f"{span} are too wide for HU: multiplied by some factor, by ten perhaps"
    if p1 > -300:
        modes = otsu(values)
        dark, bright = np.median(values[values < modes]), np.median(values[values >= modes])
        if -100 < dark < 600 and 700 < bright < 1400:
            return f"{span} with modes at {dark:g} and {bright:g} are HU + 1024: intercept lost"
    return None


def spread(values: Num[np.ndarray, "..."], most: int) -> Num[np.ndarray, " n"]:
    """Values at equal distances, which is no whole number: else they might be of one column."""
    flat = np.asarray(values).reshape(-1)
    return flat[np.linspace(0, flat.size - 1, min(flat.size, most)).astype(int)]


def _sampled(stack: Num[np.ndarray, "..."]) -> Num[np.ndarray, " n"]:
    """Voxels spread over a scan, but for its padding: a frequent lowest value below air."""
    values = spread(stack, _SAMPLE)
    lowest = values == values.min()
    return values[~lowest] if values.min() < -1100 and lowest.mean() > 0.005 else values
