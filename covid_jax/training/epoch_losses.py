"""The mean loss of an epoch's steps, and whether too many in a row were skipped."""

import numpy as np
from jaxtyping import Bool, Float

BAD_STEPS = 5  # skipped in a row, after which a run is given up


def mean_loss(
    losses: Float[np.ndarray, " steps"], skipped: Bool[np.ndarray, " steps"], slices: int, size: int
) -> float:
    """The mean loss of the slices whose step was taken.

    Args:
      losses: of each step, the mean over its slices.
      skipped: whether the step was skipped.
      slices: number of slices in the epoch; the last step has the remaining ones.
      size: slices a step.
    """
    sizes = np.diff([*range(0, slices, size), slices])
    return float(np.average(losses[~skipped].astype(np.float64), weights=sizes[~skipped]))


def endless_skipping(skipped: Bool[np.ndarray, " steps"]) -> int | None:
    """Index of the first of ``BAD_STEPS`` (or all) consecutive skipped steps; None without any."""
    limit = min(BAD_STEPS, len(skipped))
    windows = np.lib.stride_tricks.sliding_window_view(skipped, limit).all(axis=1)
    return int(windows.argmax()) if windows.any() else None
