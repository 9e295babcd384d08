"""Finds the lungs (mask, box and hull) from intensities.

Arrays are slices in display orientation (rows downwards, anterior up, the patient's right side on
the left). A volume in Hounsfield units (HU) is processed in three dimensions, pictures one by one,
as they need not be neighbours.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Num, Shaped, UInt8
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from covid_jax.transforms.grey_scale import otsu, padding, smoothed

RIGHT, LEFT = 1, 2
"""Labels of a lung mask; lungs whose side is unknown are all labelled 1."""

Box = tuple[slice, slice]

_AIR_BELOW = -400.0  # HU: between aerated lung (-860) and consolidated lung (0)
_GAS_BELOW = -960.0  # HU: air outside, in the bowel or trachea; most of a lung is denser
_DARK_RING = 0.42  # of the border: more is the air around a body (crops have less, bodies more)
_MIN_AREA = 0.003  # of a picture: less is a vessel, a bronchus or noise
_MIN_OF_LARGEST = 0.02  # of a volume's largest slice: less is the trachea in the neck
_MIN_SECOND = 0.1  # of the larger lung: less is gas in the bowel
_CLOSING = 0.02  # of the longer side: the gaps that vessels leave in the outline
_BRIDGE = 0.006  # of the longer side: half the width of what may join lungs with something else
_MIN_DEPTH = 0.12  # of a body's size: nearer to the skin is fat, or air between body and table
_MIN_PART = 0.15  # of the largest part: what is smaller counts only between larger ones
_GRID = 256  # finest grid on which a volume is looked at


class Lungs(NamedTuple):
    """The lungs of a scan's slices.

    Attributes:
      mask: 1 right, 2 left, 0 elsewhere (``lung_mask``).
      cropped: slices that were already cropped to the chest (``is_cropped``).
    """

    mask: UInt8[np.ndarray, "n h w"]
    cropped: Bool[np.ndarray, " n"]

    def box(self, k: int) -> Box | None:
        """The box of slice k: the whole slice if it is cropped; else ``lungs_box``."""
        height, width = self.mask.shape[1:]
        whole = slice(0, height), slice(0, width)
        return whole if self.cropped[k] else lungs_box(self.mask[k])

    def hull(self, k: int) -> Bool[np.ndarray, "h w"]:
        """The part of slice k inside the lungs: all of a cropped slice; else ``lungs_hull``.

        In a cropped slice the border is a better estimate of the lungs than their dark part, which
        shrinks with disease.
        """
        mask = self.mask[k]
        return np.ones(mask.shape, bool) if self.cropped[k] else lungs_hull(mask)


def find_lungs(volume: Num[np.ndarray, "n h w"], hounsfield: bool) -> Lungs:
    """Looks for the lungs in a scan's slices; arguments as for ``lung_mask``."""
    return Lungs(lung_mask(volume, hounsfield), is_cropped(volume, hounsfield))


def lung_mask(volume: Num[np.ndarray, "n h w"], hounsfield: bool) -> UInt8[np.ndarray, "n h w"]:
    """Labels the lungs: 1 right, 2 left, 0 elsewhere.

    In HU: the two largest components, in three dimensions, of the voxels below -400 HU that are not
    air around the body. In pictures: the dark components of each slice that are not the air around
    a body. Both are closed and filled slice by slice, so that vessels and lesions inside are kept;
    dense lesions at the pleura are not (``lungs_hull``).

    Args:
      volume: a scan's slices.
      hounsfield: whether they are in HU, in order and of one volume.

    Returns:
      Left and right are determined from the position in display orientation. If the lungs are one
      above the other (a rotated slice) or cannot be separated, all labels are 1.
    """
    if hounsfield:
        return _sides(_volume_lungs(np.asarray(volume)))
    return np.stack([_sides(_picture_lungs(picture)[None])[0] for picture in volume])


def is_cropped(volume: Num[np.ndarray, "n h w"], hounsfield: bool) -> Bool[np.ndarray, " n"]:
    """Which slices are already cropped to the chest, that is, have no air around a body.

    Each picture is judged separately, a volume in HU (as for ``lung_mask``) as a whole.
    """
    smooth = [smoothed(image) for image in volume]
    if hounsfield:
        return np.full(len(volume), all(_ring_is_bright(image < _AIR_BELOW) for image in smooth))
    pairs = zip(volume, smooth, strict=True)
    return np.array([_ring_is_bright(blur < _threshold(image, blur)) for image, blur in pairs])


def lungs_box(mask: Shaped[np.ndarray, "h w"], margin: float = 0.05) -> Box | None:
    """The box around a slice's lungs.

    Args:
      mask: of one slice; all labels count.
      margin: added on each side, as a share of the box's longer side.

    Returns:
      Slice objects of rows and columns; None for a slice without lung (neck, abdomen). Use such a
      slice without cropping; none of its pixels are inside the lungs.
    """
    if not mask.any():
        return None
    extra = round(margin * _longer(mask))
    (top, bottom), (first, last) = _span(mask.max(1)), _span(mask.max(0))
    rows = slice(max(top - extra, 0), min(bottom + extra, mask.shape[0]))
    return rows, slice(max(first - extra, 0), min(last + extra, mask.shape[1]))


def lungs_hull(mask: Shaped[np.ndarray, "h w"], margin: float = 0.05) -> Bool[np.ndarray, "h w"]:
    """The region inside the lungs: the dilated convex hull of both.

    The hull also holds the dense lesions at the pleura that a lung mask misses, and the
    mediastinum. A hull of each lung alone loses more where half a lung is dense. What lies below
    the last aerated part of both lungs is lost: with both lower lobes consolidated, more than half
    of the lesion in the worst slices (``benchmarks/experiments/lung_boxes.py``).

    Args:
      mask: of one slice; all labels count.
      margin: dilation, as a share of the hull's longer side.
    """
    hull = np.zeros(mask.shape, bool)
    if (box := lungs_box(mask, margin)) is None:
        return hull
    hull[box] = True
    rows = np.flatnonzero(mask.max(1))
    first = (mask[rows] > 0).argmax(1)
    last = mask.shape[1] - 1 - (mask[rows, ::-1] > 0).argmax(1)
    try:
        planes = ConvexHull(np.c_[np.r_[rows, rows], np.r_[first, last]]).equations
    except QhullError:  # all in one line
        return hull
    reach = margin * _longer(mask)
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    for row, column, offset in planes:  # unit normals: a plane moves outwards by the margin
        hull &= row * rows + column * columns + offset <= reach + 1e-9
    return hull


def _volume_lungs(volume: Num[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    step = max(1, min(volume.shape[1:]) // _GRID)
    smooth = np.stack([smoothed(image) for image in np.clip(volume[:, ::step, ::step], -1024, 200)])
    dark = smooth < _AIR_BELOW
    for image, part in zip(smooth, dark, strict=True):  # slice by slice, so that no leak spreads
        found = _components(part)
        gas = found.shares(image < _GAS_BELOW) > 0.5
        part &= ~(gas | (found.at_border & (not _ring_is_bright(part))))[found.numbers]
    found = _components(dark)
    kept = found.sizes > _MIN_SECOND * found.sizes.max()
    kept[np.argsort(found.sizes)[:-2]] = False  # all but the two largest
    mask = np.stack([_closed(part) for part in kept[found.numbers]])
    areas = mask.sum((1, 2))
    mask[areas < _MIN_OF_LARGEST * areas.max()] = False
    return mask.repeat(step, 1).repeat(step, 2)[:, : volume.shape[1], : volume.shape[2]]


def _picture_lungs(picture: Num[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    smooth = smoothed(picture)
    dark = smooth < _threshold(picture, smooth)
    reach = _BRIDGE * max(dark.shape)
    found = _components(_distance(dark) > reach)  # without narrow bridges
    areas = np.where(found.sizes < _MIN_AREA * dark.size, 0, found.sizes)
    if not _ring_is_bright(dark):
        areas = _in_chest(found, areas, _near(found.at_border[found.numbers], reach))
    return _closed(_near((areas > 0)[found.numbers], reach + 1) & dark)


class _Components(NamedTuple):
    """The connected components of a mask.

    Attributes:
      numbers: the component of each pixel; 0 for none.
      sizes: in pixels, by number; of 0 it is 0.
      at_border: whether each touches a slice's border.
    """

    numbers: Shaped[np.ndarray, "..."]
    sizes: Shaped[np.ndarray, " n"]
    at_border: Bool[np.ndarray, " n"]

    def shares(self, mask: Bool[np.ndarray, "h w"]) -> Num[np.ndarray, " n"]:
        """The share of each component that a mask holds."""
        return np.bincount(self.numbers.flat, mask.flat, len(self.sizes)) / self.sizes.clip(1)


def _components(dark: Bool[np.ndarray, "..."]) -> _Components:
    numbers = np.zeros(dark.shape, np.int32)
    ndimage.label(dark, output=numbers)
    sizes = np.bincount(numbers.flat)
    at_border = np.zeros(len(sizes), bool)
    at_border[numbers[..., [0, -1]]] = at_border[numbers[..., [0, -1], :]] = True
    sizes[0] = at_border[0] = 0
    return _Components(numbers, sizes, at_border)


def _in_chest(
    found: _Components, areas: Shaped[np.ndarray, " n"], outside: Bool[np.ndarray, "h w"]
) -> Shaped[np.ndarray, " n"]:
    """Sets to 0 the areas of components that are fat, or air at the skin or next to the table.

    A lung reaches deep into the body; its small parts lie between the large ones.
    """
    depth = _distance(~outside)
    deepest = np.asarray(ndimage.maximum(depth, found.numbers, np.arange(len(areas))))
    areas = areas * (deepest > _MIN_DEPTH * np.sqrt((depth > 0).sum()))
    hull = lungs_hull((areas > _MIN_PART * areas.max())[found.numbers])
    return areas * (found.shares(hull) > 0.5)


def _distance(mask: Bool[np.ndarray, "h w"]) -> Num[np.ndarray, "h w"]:
    """From each pixel of a mask to the nearest outside it."""
    return np.asarray(ndimage.distance_transform_edt(mask))


def _near(mask: Bool[np.ndarray, "h w"], reach: float) -> Bool[np.ndarray, "h w"]:
    """A mask dilated by a disc; an empty one stays empty."""
    return _distance(~mask) <= reach if mask.any() else mask


def _span(profile: Shaped[np.ndarray, " n"]) -> tuple[int, int]:
    """The range from the first to just after the last nonzero element."""
    places = np.flatnonzero(profile)
    return int(places[0]), int(places[-1]) + 1


def _longer(mask: Shaped[np.ndarray, "h w"]) -> int:
    """The longer side of a mask's box."""
    return max(stop - start for start, stop in (_span(mask.max(0)), _span(mask.max(1))))


def _threshold(picture: Num[np.ndarray, "h w"], smooth: Num[np.ndarray, "h w"]) -> float:
    """A threshold between lung and soft tissue; for a constant slice, below all values."""
    values = smooth[~padding(picture)]
    return otsu(values) if values.size else float(smooth.min())


def _ring_is_bright(dark: Bool[np.ndarray, "h w"]) -> bool:
    """Whether the border is bright, so that there is no air around a body."""
    ring = np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]])
    return bool(ring.mean() < _DARK_RING)


def _closed(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """A slice's mask without gaps and holes."""
    if not mask.any():
        return mask
    reach = max(1, round(_CLOSING * max(mask.shape)))
    filled = np.asarray(ndimage.binary_fill_holes(_near(np.pad(mask, reach), reach)))
    shrunk = _distance(filled) > reach
    return shrunk[reach:-reach, reach:-reach] | mask


def _sides(mask: Bool[np.ndarray, "n h w"]) -> UInt8[np.ndarray, "n h w"]:
    """Labels of a mask: the right lung, then the left, from the column where they part."""
    labels = mask.astype(np.uint8)
    column, depth = _valley(mask.sum((0, 1)))
    if depth < max(0.5, _valley(mask.sum((0, 2)))[1]):
        return labels
    beyond = np.arange(mask.shape[2]) >= column
    for part, label in zip(mask, labels, strict=True):
        found = _components(part)
        share = found.shares(np.broadcast_to(beyond, part.shape))
        whole, split = share > 0.8, (share >= 0.2) & (share <= 0.8)
        label[part & (whole[found.numbers] | (split[found.numbers] & beyond))] = LEFT
    return labels


def _valley(profile: Shaped[np.ndarray, " n"]) -> tuple[int, float]:
    """Position of the minimum in a profile's middle half, and its depth relative to both sides."""
    if np.count_nonzero(profile) < 4:
        return 0, 0.0
    start, stop = _span(profile)
    quarter = (stop - start) // 4
    middle = profile[start + quarter : stop - quarter]
    place = start + quarter + int(np.median(np.flatnonzero(middle == middle.min())))
    return place, float(1 - middle.min() / min(profile[:place].max(), profile[place:].max()))
