"""Which slices an epoch trains on, and in which order."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from covid_jax.data.dataset import Slice
from covid_jax.runs.config import Balance


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
