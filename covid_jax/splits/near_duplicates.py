"""Which slices show nearly the same: copies, and neighbours from one patient's scan.

A slice is cut to boxes that lack up to ``CROP`` of its width and height, so that of two slices
shifted, cropped or stretched against each other some two boxes fit. Each box is reduced to 32 x 32
pixels, freed of what varies slowly (bodies are alike, vessels are not), and the correlation of two
slices is the largest one between a box of either.
"""

import itertools

import numpy as np
from jaxtyping import Float32, Num
from PIL import Image
from scipy.ndimage import gaussian_filter

from covid_jax.transforms.preprocessing import resize

THRESHOLD = 0.7  # correlation
CROP = 0.05  # of a slice's side
_SIDE = 32  # pixels of a box
_BLUR = 1.0  # pixels; what is wider counts little
_INTERVALS = ((0.0, 1.0), (0.0, 1 - CROP), (CROP, 1.0), (CROP / 2, 1 - CROP / 2))
_BOXES = tuple(itertools.product(_INTERVALS, repeat=2))
_FLAT = 1e-3  # norm of a box without structure; a chest has some 2
_BLOCK = 64  # slices compared at once with as many others


def similar_pairs(
    images: Num[np.ndarray, "n s s"], threshold: float = THRESHOLD
) -> list[tuple[int, int, float]]:
    """Pairs of slices that look like one picture, or like neighbours from one scan.

    Every slice is compared with every other; brightness and contrast do not matter. The default
    threshold rests on 367 slices of 8 patients (CT, whole or cut to the lungs): no pair from two
    patients correlates above 0.61, and 99 % of the neighbours in a volume (94 % if cut to the
    lungs) reach 0.7. This is an aid to search, no proof of anything: copies that are mirrored,
    turned or cropped further go unseen, as do neighbours more than some millimetres apart, and
    bodies made by one formula, like the phantom's, are often taken for one another.

    Args:
      images: slices at the network's size, in any units, such as the codes of a cache. Memory
        grows by 64 KiB a slice, time with the number of pairs (473 slices: two seconds).
      threshold: smallest correlation to report, above 0, of no unit. Copies have 1; a slice of one
        single intensity has 0 with any other.

    Returns:
      (i, j, correlation) with i < j, in order.

    Raises:
      ValueError: if the images are no stack.
    """
    if images.ndim != 3:
        raise ValueError(f"images of shape {images.shape}: expected (slices, rows, columns)")
    views = np.empty((len(images), len(_BOXES), _SIDE * _SIDE), np.float32)
    for view, image in zip(views, images, strict=True):
        view[...] = _views(np.asarray(image, np.float32))
    pairs = []
    for i, j in itertools.combinations_with_replacement(range(0, len(views), _BLOCK), 2):
        correlation = _correlate(views[i : i + _BLOCK], views[j : j + _BLOCK])
        for row, column in np.argwhere(correlation >= threshold):
            if i + row < j + column:
                pairs.append((int(i + row), int(j + column), float(correlation[row, column])))
    return sorted(pairs)


def _correlate(
    some: Float32[np.ndarray, "n k p"], others: Float32[np.ndarray, "m k p"]
) -> Float32[np.ndarray, "n m"]:
    """The largest correlation of any view of one slice with any view of another."""
    (n, k, p), m = some.shape, len(others)
    products = some.reshape(n * k, p) @ others.reshape(m * k, p).T
    return np.minimum(products.reshape(n, k, m, k).max(axis=(1, 3)), 1.0)


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
    """Maps what tells tissues apart to 0..1 and cuts off the rest; a constant slice gives zeros.

    Some scanners fill what lies outside their round field of view with one value far below air. Its
    rim, the same in every patient, would outweigh them: the smallest value sets no limit.
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
