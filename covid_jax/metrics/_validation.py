"""What every metric asks of its arrays. A ValueError here is a caller's mistake, not a user's."""

import numpy as np
from jaxtyping import Bool, Num


def require_slice(first: Num[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> None:
    """One slice each, of one shape and with pixels; the truth a boolean mask."""
    if first.ndim != 2 or first.shape != truth.shape or first.size == 0:
        raise ValueError(f"expected two slices of one shape, got {first.shape} and {truth.shape}")
    require_mask(truth)


def require_mask(mask: Bool[np.ndarray, "h w"]) -> None:
    """Class ids or grey values would be read as another mask than was meant."""
    if mask.dtype != bool:
        raise ValueError(f"expected a boolean mask, got {mask.dtype}")


def require_unit_interval(values: Num[np.ndarray, "h w"]) -> None:
    """Floating point in [0, 1]; a NaN is outside too."""
    low, high = values.min(), values.max()
    if not (np.issubdtype(values.dtype, np.floating) and low >= 0 and high <= 1):
        raise ValueError(
            f"expected floating-point values in [0, 1], got {values.dtype} from {low} to {high}"
        )
