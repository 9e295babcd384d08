"""What runs scored, as kept in ``results/*.json`` by ``collect.py``, slice by slice."""

import json
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.experiments.ablation import METRICS

RESULTS = Path(__file__).parents[1] / "results"
SOURCES = ("COVID-SemiSeg", "Dataset-2")
Run = dict[str, Any]
Evaluation = dict[str, Any]


def read(name: str) -> dict[str, Any]:
    """A JSON file of ``results/``."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def runs_of(name: str, part: str = "") -> list[Run]:
    """Runs of a JSON file; those whose folder holds the part.

    Raises:
      ValueError: if there are none.
    """
    runs = read(name)["runs"]
    found = [run for run in runs if part in run["run"]]
    if not found:
        raise ValueError(f"{name}.json: no run of {part or 'any kind'}")
    return found


def scored(run: Run, subset: str = "test", *, tta: bool = False, val: bool = False) -> Evaluation:
    """A run's evaluation: with flips or without, at one half or the validation's threshold."""
    (found,) = (
        one
        for one in run["evaluations"]
        if one["subset"] == subset
        and one["tta"] == tta
        and (one["threshold_from"] != "given") == val
    )
    return found


class Slices(NamedTuple):
    """Slices tested by some runs: a metric's mean over the runs for each, and what they are.

    Attributes:
      ids, sources: of each.
      groups: its patient; where that is unknown it is its own.
      share: of its pixels that are lesion.
      values: a column for each metric.
    """

    ids: list[str]
    sources: list[str]
    groups: list[Hashable]
    share: np.ndarray
    values: dict[str, np.ndarray]

    def part(self, chosen: np.ndarray) -> "Slices":
        """Those chosen by a boolean for each."""
        keep = np.flatnonzero(chosen)
        return Slices(
            [self.ids[i] for i in keep],
            [self.sources[i] for i in keep],
            [self.groups[i] for i in keep],
            self.share[keep],
            {name: column[keep] for name, column in self.values.items()},
        )

    def of(self, source: str) -> "Slices":
        """Those of one source."""
        return self.part(np.array([one == source for one in self.sources]))


def slices_of(evaluations: Iterable[Evaluation]) -> Slices:
    """All slices of some evaluations of different slices, sorted by name.

    Raises:
      ValueError: if a slice is in two of them.
    """
    found: dict[str, dict[str, Any]] = {}
    for evaluation in evaluations:
        columns = evaluation["slices"]
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            if row["slice"] in found:
                raise ValueError(f"{row['slice']}: tested twice")
            found[row["slice"]] = row
    rows = [found[name] for name in sorted(found)]
    return Slices(
        [row["slice"] for row in rows],
        [row["source"] for row in rows],
        [row["slice"] if row["patient"] == "unknown" else row["patient"] for row in rows],
        np.array([row["lesion_pixels"] / (row["height"] * row["width"]) for row in rows]),
        {metric: np.array([_nan(row[metric]) for row in rows]) for metric in METRICS},
    )


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value
