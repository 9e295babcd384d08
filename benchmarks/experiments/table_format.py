"""Cells of RESULTS.md's tables: means, intervals, differences, as text."""

import statistics
from collections.abc import Hashable, Sequence

import numpy as np

from benchmarks.experiments.results_store import Slices
from covid_jax.metrics.bootstrap import bootstrap_interval, compare_paired

DIFFERENCE = ["difference", "95 % interval", "p", "slices / groups"]


def mean(values: np.ndarray) -> str:
    """Over the slices where it is defined."""
    return f"{np.nanmean(values):.3f}"


def with_interval(values: np.ndarray, groups: Sequence[Hashable]) -> str:
    """A mean and its 95 % bootstrap interval over groups; none where they are too few."""
    interval = bootstrap_interval(values, groups)
    return mean(values) + (f" ({interval.low:.3f} to {interval.high:.3f})" if interval else "")


def difference(first: Slices, second: Slices, metric: str) -> list[str]:
    """Mean difference second - first on the same slices, its interval, Wilcoxon's p, the groups.

    Raises:
      ValueError: if they are not the same slices.
    """
    if first.ids != second.ids:
        raise ValueError("not the same slices")
    found = compare_paired(first.values[metric], second.values[metric], first.groups)
    interval = found.interval
    return [
        f"{found.difference:+.3f}",
        f"{interval.low:+.3f} to {interval.high:+.3f}" if interval else "",
        "" if found.p_value is None else f"{found.p_value:.2g}",
        f"{found.slices} / {found.groups}",
    ]


def mean_sd(values: Sequence[float]) -> str:
    """Over runs."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"
