"""An epoch's losses as its steps left them: sums over batches, NaN where a step was skipped."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True)
class EpochLosses:
    """The losses of one epoch.

    Attributes:
      totals: of each step, the sum over its slices; NaN where the step was skipped.
      order: in which the slices came.
      batch_size: slices a step.
    """

    totals: Float[np.ndarray, " steps"]
    order: Int[np.ndarray, " slices"]
    batch_size: int

    @property
    def mean(self) -> float:
        """Over the slices whose step was taken."""
        sizes = np.diff([*range(0, len(self.order), self.batch_size), len(self.order)])
        taken = ~self._skipped
        return float(self.totals[taken].sum(dtype=np.float64) / sizes[taken].sum())

    @property
    def skipped(self) -> int:
        """How many steps were."""
        return int(self._skipped.sum())

    @property
    def none_taken(self) -> bool:
        """Whether the epoch changed nothing."""
        return bool(self._skipped.all())

    @property
    def first_of_last_skipped(self) -> Int[np.ndarray, " b"]:
        """Slices of the step with which the skipping began that lasts to the epoch's end."""
        last_taken = np.flatnonzero(~self._skipped)
        step = int(last_taken[-1]) + 1 if last_taken.size else 0
        return self.order[step * self.batch_size :][: self.batch_size]

    @property
    def _skipped(self) -> Bool[np.ndarray, " steps"]:
        return np.isnan(self.totals)
