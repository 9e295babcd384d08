"""An epoch: which slices it trains on, in which order, and what its steps' losses say."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from covid_jax.data.dataset import Slice
from covid_jax.runs.config import Balance

BAD_STEPS = 5  # skipped in a row, after which a run is given up


def draw_epoch(
    slices: Int[np.ndarray, " n"],
    *,
    seed: int,
    epoch: int,
    count: int | None = None,
    groups: Sequence[str] | None = None,
) -> Int[np.ndarray, " count"]:
    """The slices of one epoch; the same arguments always give the same ones.

    No slice is repeated before every slice (of its group) was drawn once.

    Args:
      slices: that may be drawn.
      seed: of the run.
      epoch: its number.
      count: of slices to draw; by default as many as there are.
      groups: group of each slice, such as its patient; the numbers of slices drawn per group differ
        by at most one.
    """
    rng = np.random.default_rng([seed, epoch])
    count = len(slices) if count is None else count
    if groups is None:
        return _repeated(rng, slices, count)
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    share, rest = divmod(count, len(names))
    shares = share + (rng.permutation(len(names)) < rest)
    drawn = [_repeated(rng, slices[group == k], n) for k, n in enumerate(shares)]
    return rng.permutation(np.concatenate(drawn))


def balance_groups(slices: Sequence[Slice], balance: Balance) -> list[str] | None:
    """The group of each slice, of which ``--balance`` draws equally often; None for no groups."""
    if balance == "none":
        return None
    if balance == "source":
        return [item.source for item in slices]
    return [f"{item.source}/{item.patient or item.id}" for item in slices]


def _repeated(rng: np.random.Generator, slices: np.ndarray, count: int) -> np.ndarray:
    """The given number of slices from successive random permutations."""
    passes = [rng.permutation(slices) for _ in range(max(1, -(-count // len(slices))))]
    return np.concatenate(passes)[:count]


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
