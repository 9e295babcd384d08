"""The losses of an epoch's steps: their mean, and endless skipping."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

BAD_STEPS = 5  # skipped in a row, after which a run is given up


@dataclass(frozen=True)
class EpochLosses:
    """The losses of one epoch.

    Attributes:
      losses: of each step, the mean over its slices.
      skipped: whether the step was skipped.
      order: in which the slices came.
      batch_size: slices a step.
    """

    losses: Float[np.ndarray, " steps"]
    skipped: Bool[np.ndarray, " steps"]
    order: Int[np.ndarray, " slices"]
    batch_size: int

    @property
    def mean(self) -> float:
        """Over the slices whose step was taken."""
        sizes = np.diff([*range(0, len(self.order), self.batch_size), len(self.order)])
        taken = ~self.skipped
        return float(np.average(self.losses[taken].astype(np.float64), weights=sizes[taken]))

    @property
    def first_of_endless_skipping(self) -> Int[np.ndarray, " b"] | None:
        """Slices of the first of ``BAD_STEPS`` steps skipped in a row (or of all); None if not."""
        limit = min(BAD_STEPS, len(self.skipped))
        windows = np.lib.stride_tricks.sliding_window_view(self.skipped, limit).all(axis=1)
        if not windows.any():
            return None
        return self.order[int(windows.argmax()) * self.batch_size :][: self.batch_size]
