"""Checks of the metrics' arguments. They raise ValueError: the caller's mistake, not a user's."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num, Shaped

Mask = Bool[np.ndarray, "h w"]
Map = Float[np.ndarray, "h w"]  # probabilities
AnyMask = Bool[np.ndarray, "_ _"]  # where the masks of a call differ in size


def require_masks(prediction: Mask, truth: Mask) -> None:
    """Two boolean masks of one slice, of equal shape and with pixels."""
    require_slice(prediction, truth)
    require_mask(prediction, "prediction")


def require_slice(values: Shaped[np.ndarray, "..."], truth: Shaped[np.ndarray, "..."]) -> None:
    """Two arrays of one slice, of equal shape and with pixels; the truth a boolean mask."""
    if values.ndim != 2 or values.shape != truth.shape or values.size == 0:
        raise ValueError(f"expected two slices of one shape, got {values.shape} and {truth.shape}")
    require_mask(truth, "truth")


def require_probabilities(values: Map, truth: Mask) -> None:
    """Probabilities and the mask of one slice."""
    require_slice(values, truth)
    require_unit_interval(values)


def require_mask(mask: Any, name: str) -> None:
    """A boolean array, of NumPy or of JAX: class ids or 0/255 would be counted wrongly."""
    if mask.dtype != bool:
        raise ValueError(
            f"{name}: expected a boolean mask, got {mask.dtype}; write mask > 0 for 0/1 or 0/255, "
            "ids == 2 for class 2 of class ids, probabilities > 0.5 for probabilities"
        )


def require_unit_interval(values: Num[np.ndarray, "h w"]) -> None:
    """Floating point in [0, 1], no NaN."""
    low, high = values.min(), values.max()
    if not (np.issubdtype(values.dtype, np.floating) and low >= 0 and high <= 1):
        raise ValueError(f"expected floats in [0, 1], got {values.dtype} from {low} to {high}")
