"""Timing for all benchmarks: calls in turns, so that a busy machine slows all alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np


def in_turns(functions: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """Seconds of each call; the first turn, which compiles and warms up, is left out.

    A call counts as over when what it returns is ready: JAX's arrays are waited for here, other
    libraries' calls must wait by themselves.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(turns + 1):
        for name, call in functions.items():
            started = time.perf_counter()
            jax.block_until_ready(call())
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(samples: Sequence[float]) -> dict[str, Any]:
    """Median, 5th and 95th percentile, and every sample."""
    return {
        "median": statistics.median(samples),
        "p5": float(np.percentile(samples, 5)),
        "p95": float(np.percentile(samples, 95)),
        "samples": list(samples),
    }


def ratio(samples: Sequence[float], others: Sequence[float]) -> float:
    """Median of the ratios turn by turn."""
    return statistics.median(a / b for a, b in zip(samples, others, strict=True))
