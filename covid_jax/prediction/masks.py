"""From probabilities to the mask of a slice, and what flips say of it."""

import numpy as np
from jaxtyping import Float32, Float64, UInt8
from scipy import ndimage

from covid_jax.transforms.labels import predict_labels

_EIGHT = np.ones(
    (3, 3), bool
)  # lesions are joined by corners, as covid_jax.metrics.lesion_detection counts


def clean(
    ids: UInt8[np.ndarray, "h w"],
    scores: Float32[np.ndarray, "h w c"],
    min_pixels: float,
    fill_holes: bool,
) -> UInt8[np.ndarray, "h w"]:
    """Fills holes, then drops small lesions; classes are taken together.

    Args:
      ids: class ids, as decided.
      scores: they were decided from; a hole gets its most probable class of lesion.
      min_pixels: smaller lesions (8 neighbours) are dropped.
      fill_holes: background that no path by sides leads out of becomes lesion.
    """
    if fill_holes:
        holes = ndimage.binary_fill_holes(ids > 0) & (ids == 0)
        best = scores[..., 1:].argmax(-1) if scores.shape[-1] > 1 else np.zeros(ids.shape, int)
        ids = np.where(holes, 1 + best, ids).astype(np.uint8)
    if min_pixels > 0:
        labels = np.asarray(ndimage.label(ids > 0, _EIGHT)[0], int)  # pyright: ignore
        small = np.bincount(labels.ravel()) < min_pixels
        ids = np.where(small[labels], 0, ids).astype(np.uint8)
    return ids


def agreement(
    views: Float32[np.ndarray, "v h w c"], decision: UInt8[np.ndarray, "h w"], threshold: float
) -> Float32[np.ndarray, "h w"]:
    """Share of the flips that by themselves predict_labels as their average does, in [0, 1]."""
    return (np.asarray(predict_labels(views, threshold)) == decision).mean(0, dtype=np.float32)


def entropy(scores: Float32[np.ndarray, "h w c"]) -> Float64[np.ndarray, "h w"]:
    """Shannon's, of each pixel's classes, in bits: 0 certain, 1 for two equally probable ones."""
    one = scores.shape[-1] == 1
    values = np.concatenate([scores, 1 - scores], axis=-1) if one else scores
    values = values.astype(np.float64)
    return -(values * np.log2(np.where(values > 0, values, 1))).sum(-1)
