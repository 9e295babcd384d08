"""Near-duplicate slices: copies, and neighbours from one patient's scan.

Each slice is cropped to 16 boxes, which leave out up to ``CROP`` of its width and height. If two
slices are shifted, cropped or stretched copies of each other, a box of the first slice matches a
box of the second. Boxes are reduced to 32 x 32 pixels, and a blurred copy is subtracted, because
bodies look alike and vessels do not. The correlation of two slices is the largest one of any two
boxes.

Of many slices, only the ``_RANK`` principal components of the boxes are compared first. They bound
the correlation, and the few pairs that may reach the threshold are then compared in full.
"""

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, Int, Num
from PIL import Image
from scipy.ndimage import gaussian_filter

from covid_jax.transforms.preprocessing import resize

Views = Float32[np.ndarray, "n k p"]  # of each slice, the pixels of its boxes
THRESHOLD = 0.7  # correlation
CROP = 0.05  # of a slice's side
_SIDE = 32  # pixels of a box
_BLUR = 1.0  # pixels; wider structures count little
_INTERVALS = ((0.0, 1.0), (0.0, 1 - CROP), (CROP, 1.0), (CROP / 2, 1 - CROP / 2))
_BOXES = tuple(itertools.product(_INTERVALS, repeat=2))
_FLAT = 1e-3  # norm of a box without structure; a chest has some 2
_BLOCK, _COLUMNS = 64, 512  # slices compared at once with so many others
_RANK = 128  # principal components of a box
_FEW = 1024  # up to so many slices are compared in full at once
# The greatest correlation assumed between the parts of two boxes that the components leave out.
# They are the finest details, which match less than the rest unless two slices are copies.
_REST = 0.75


def similar_pairs(
    images: Num[np.ndarray, "n s s"],
    threshold: float = THRESHOLD,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[int, int, float]]:
    """Pairs of slices that look like copies, or like neighbours from one scan.

    Brightness and contrast do not matter. The default threshold was chosen on 367 slices of 8
    patients (CT, whole or cropped to the lungs): no pair from two patients correlates above 0.61,
    and 99 % of the neighbours in a volume (94 % if cropped to the lungs) reach 0.7. The pairs are
    hints, not proofs: copies that are mirrored, rotated or cropped further are missed, as are
    neighbours more than a few millimetres apart, and synthetic bodies, like the phantom's, are
    often similar enough to be reported.

    Args:
      images: slices at the network's size, in any units, such as the codes of a cache. Memory
        grows by 68 KiB a slice.
      threshold: smallest correlation to report, above 0. Copies have correlation 1; a constant
        slice has correlation 0 with every other slice.
      progress: called with the number of slices done and of all slices.

    Returns:
      (i, j, correlation) with i < j, in order.

    Raises:
      ValueError: if the images are not a stack.
    """
    if images.ndim != 3:
        raise ValueError(f"images of shape {images.shape}: expected (slices, rows, columns)")
    views = np.empty((len(images), len(_BOXES), _SIDE * _SIDE), np.float32)
    for view, image in zip(views, images, strict=True):
        view[...] = _views(np.asarray(image, np.float32))
    reduced = _reduce(views) if len(views) > _FEW else None
    pairs = []
    for start in range(0, len(views), _BLOCK):
        possible = _possible(reduced, start, len(views), threshold)
        for skip in range(0, possible.shape[1], _BLOCK):
            row, column = np.nonzero(possible[:, skip : skip + _BLOCK])
            wanted = np.stack([start + row, start + skip + column], axis=1)
            wanted = wanted[wanted[:, 0] < wanted[:, 1]]
            correlation = _correlate(views, wanted)
            alike = correlation >= threshold
            found = zip(wanted[alike].tolist(), correlation[alike].tolist(), strict=True)
            pairs += [(i, j, value) for (i, j), value in found]
        progress(min(start + _BLOCK, len(views)), len(views))
    return sorted(pairs)


def _reduce(views: Views) -> Float32[np.ndarray, "k n r"]:
    """The principal components of every box and, last, the norm of the rest.

    In the product of two reduced boxes, the parts outside the principal components count as if
    their correlation were ``_REST``.
    """
    sample = views[:: 1 + len(views) // _FEW].reshape(-1, views.shape[-1])
    components = np.linalg.eigh(sample.T @ sample)[1][:, 1 - _RANK :]
    reduced = np.empty((views.shape[1], len(views), _RANK), np.float32)
    for number, view in enumerate(views):
        reduced[:, number, :-1] = view @ components
        rest = (view**2).sum(1) - (reduced[:, number, :-1] ** 2).sum(1)
        reduced[:, number, -1] = np.sqrt(_REST * np.maximum(rest, 0))
    return reduced


def _possible(
    reduced: Float32[np.ndarray, "k n r"] | None, start: int, count: int, threshold: float
) -> Bool[np.ndarray, "b m"]:
    """For each slice of the block at ``start``, the later slices that may reach the threshold."""
    if reduced is None:
        return np.ones((min(_BLOCK, count - start), count - start), bool)
    block = reduced[:, start : start + _BLOCK]
    first = block.reshape(-1, _RANK)
    bound = np.full((block.shape[1], count - start), -1, np.float32)
    for i in range(start, count, _COLUMNS):
        for box in reduced[:, i : i + _COLUMNS]:
            products = (first @ box.T).reshape(*block.shape[:2], -1)
            part = bound[:, i - start : i - start + _COLUMNS]
            np.maximum(part, products.max(axis=0), out=part)
    return bound >= threshold


def _correlate(views: Views, pairs: Int[np.ndarray, "m 2"]) -> Float32[np.ndarray, " m"]:
    """The largest correlation of any box of a pair's first slice with any box of its second."""
    (first, row), (second, column) = (np.unique(side, return_inverse=True) for side in pairs.T)
    if len(pairs) < len(first) * len(second) / 8:
        products = views[pairs[:, 0]] @ views[pairs[:, 1]].swapaxes(1, 2)
        return np.minimum(products.max(axis=(1, 2)), 1.0)
    (n, m), (k, p) = (len(first), len(second)), views.shape[1:]
    products = views[first].reshape(n * k, p) @ views[second].reshape(m * k, p).T
    return np.minimum(products.reshape(n, k, m, k).max(axis=(1, 3)), 1.0)[row, column]


def _views(image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "k p"]:
    """The boxes of a slice, of mean 0 and norm 1, so that products are correlations."""
    side = 2 * _SIDE  # boxes are cut from this, which is quicker than from the whole slice
    small = Image.fromarray(resize(_stretch(image), side, side))
    boxes = [
        small.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, (left, top, right, bottom))
        for (top, bottom), (left, right) in side * np.array(_BOXES)
    ]
    views = np.stack([np.asarray(box) for box in boxes])
    views -= gaussian_filter(views, (0, _BLUR, _BLUR), mode="nearest")
    views = views.reshape(len(views), -1)
    views -= views.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(views, axis=1, keepdims=True)
    return views / np.where(norm > _FLAT, norm, np.inf)


def _stretch(image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Maps the 5th to 95th percentile to 0..1 and clips the rest; a constant slice gives zeros.

    The smallest value is excluded from the percentiles: some scanners fill the area outside their
    round field of view with one value far below air, and the edge of this area looks the same in
    every patient.
    """
    step = max(1, min(image.shape) // 128)
    sample = image[::step, ::step]
    least = float(sample.min())
    others = sample[sample > least]
    low, high = np.percentile(others, (5, 95)).tolist() if others.size else (least, least)
    if low == high:  # a picture of two values
        low = least
    if high - low <= 1e-5 * max(abs(low), abs(high)):  # constant but for rounding
        return np.zeros_like(image)
    return (np.clip(image, low, high) - low) / (high - low)
