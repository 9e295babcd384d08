"""Runs that were interrupted and resumed: what is compared with a run without a break."""

import contextlib
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import orbax.checkpoint as ocp

from covid_jax.runs.checkpoints import Checkpoints
from covid_jax.training.loggers import read_metrics

TIMINGS = {"seconds", "slices_per_second", "peak_memory_gib"}


def rows(out: Path) -> list[dict]:
    """metrics.jsonl without what differs from run to run."""
    return [
        {name: value for name, value in row.items() if name not in TIMINGS}
        for row in read_metrics(out / "metrics.jsonl")
    ]


def stored(out: Path, epoch: int, item: str) -> Any:
    """A tree as it lies on the disk."""
    with ocp.StandardCheckpointer() as reader:
        return reader.restore((out / "checkpoints" / str(epoch) / item).absolute())


def kept(out: Path) -> dict[str, int | None]:
    checkpoints = Checkpoints(out / "checkpoints", create=False)
    return {which: checkpoints.epoch(which) for which in ("latest", "best")}


def assert_same_end(out: Path, straight: Path) -> None:
    """The log, and every bit of the latest and the best checkpoint: weights, averages, trainer."""
    assert rows(out) == rows(straight)
    assert kept(out) == kept(straight)
    for epoch in set(kept(out).values()):
        for item in ("weights", "trainer"):
            ours, theirs = stored(out, epoch, item), stored(straight, epoch, item)
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert (out / "curves.png").exists()


@contextlib.contextmanager
def at_call(name: str, number: int, happens: Callable[[], Any]) -> Iterator[None]:
    """Something happens just before the n-th call of a function."""
    original, calls = pkgutil.resolve_name(name), itertools.count(1)

    def counted(*args, **kwargs):
        if next(calls) == number:
            happens()
        return original(*args, **kwargs)

    with mock.patch(name, counted):
        yield
