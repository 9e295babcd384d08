"""Compares scored runs on the same slices: means, intervals of differences and a paired test."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from covid_jax.errors import RunError
from covid_jax.evaluation.report import EvaluationReport, Record, finite
from covid_jax.evaluation.slice_table import read_rows
from covid_jax.evaluation.summary import Resampled, interval_of, mean_of, resampled
from covid_jax.files import write_csv, write_json, writing_to
from covid_jax.metrics.bootstrap import compare_paired
from covid_jax.metrics.confusion import METRICS
from covid_jax.runs.provenance import provenance

Values = Float[np.ndarray, " n"]  # of a metric, one for each slice


class ScoredRun(NamedTuple):
    """The evaluation of a run, read from its folder.

    Attributes:
      name: of the run, unique among the runs compared.
      folder: of the evaluation.
      report: metrics.json.
      rows: slices.csv.
    """

    name: str
    folder: Path
    report: EvaluationReport
    rows: list[dict[str, str]]

    @property
    def slices(self) -> list[str]:
        """The ids of the slices, in their order."""
        return [row["slice"] for row in self.rows]

    @property
    def patients(self) -> list[str | None]:
        """The patient of each slice; None where unknown."""
        known = self.report.per_patient  # a patient may be called "unknown"
        return [row["patient"] if row["patient"] in known else None for row in self.rows]

    def column(self, metric: str) -> Values:
        """The values of a metric, one for each slice; NaN where undefined."""
        return np.array([float(row[metric] or "nan") for row in self.rows])


def compare(runs: Sequence[Path], subset: str, out: Path, command: Sequence[str] = ()) -> Record:
    """Compares runs that were scored on the same slices, each with the first one.

    Args:
      runs: run folders, each scored before, or folders that ``covid-jax score`` wrote.
      subset: of the evaluations.
      out: folder for compare.json and compare.csv.
      command: the command line, recorded in compare.json.

    Returns:
      The content of compare.json.

    Raises:
      RunError: as ``read_scored``, and if ``out`` cannot be written.
    """
    scored = read_scored(runs, subset)
    first = scored[0]
    draws = resampled(first.patients)
    record = {
        "runs": [run.name for run in scored],
        "subset": subset,
        "slices": len(first.rows),
        "data_fingerprint": first.report.data_fingerprint,
        "thresholds": [run.report.threshold for run in scored],
        "intervals": draws.statement,
        "test": "two-sided Wilcoxon signed-rank against the first run, zeros by Pratt; of patients "
        "where all are known, else of slices; not corrected for several comparisons",
        "metrics": {
            metric: [_against(first.column(metric), run.column(metric), draws) for run in scored]
            for metric in METRICS
        },
        **provenance(command),
    }
    rows = [
        {"metric": metric, "run": name}
        | {k: " ".join(map(str, v)) if isinstance(v, list) else v for k, v in values.items()}
        for metric, parts in record["metrics"].items()
        for name, values in zip(record["runs"], parts, strict=True)
    ]
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / "compare.csv", rows)
        write_json(out / "compare.json", record)
    return record


def read_scored(runs: Sequence[Path], subset: str) -> list[ScoredRun]:
    """Reads the evaluations of several runs.

    Raises:
      RunError: if fewer than two runs are given or one twice, one has not been scored, their
        slices or classes differ, or their files are damaged.
    """
    if len(runs) < 2:
        raise RunError("a comparison needs two runs or more")
    scored = []
    for name, run in zip(_names(runs), runs, strict=True):
        folder = run if (run / "metrics.json").exists() else run / "eval" / subset
        if not (folder / "metrics.json").exists():
            again = f"covid-jax eval {run}" + f" --subset {subset}" * (subset != "test")
            what = f"not scored yet; {again}" if run.is_dir() else "no run here"
            raise RunError(f"{run}: {what}")
        scored.append(read_evaluation(folder, name))
    first, *others = scored
    for other in others:
        if other.report.trained_classes != first.report.trained_classes:
            pair = f"its classes are {_classes(other)}, those of {first.folder} {_classes(first)}"
            raise RunError(f"{other.folder}: {pair}; compare runs with the same --classes")
        if other.report.data_fingerprint != first.report.data_fingerprint:
            raise RunError(f"{other.folder}: was scored on other data than {first.folder}")
        if other.slices != first.slices:
            slices = f"other slices than {first.folder}; give both one --split-file"
            raise RunError(f"{other.folder}: was scored on {slices}")
    return scored


def read_evaluation(folder: Path, name: str = "") -> ScoredRun:
    """Reads metrics.json and slices.csv of one evaluation.

    Raises:
      RunError: if a file is missing or damaged.
    """
    report = EvaluationReport.load(folder / "metrics.json")
    rows = read_rows(folder / "slices.csv")
    if len(rows) != report.slices:
        numbers = f"{len(rows)} slices, metrics.json {report.slices}"
        raise RunError(f"{folder}: slices.csv has {numbers}; score the run again")
    return ScoredRun(name, folder, report, rows)


def _classes(run: ScoredRun) -> str:
    return " ".join(run.report.trained_classes) or "merged"


def _names(runs: Sequence[Path]) -> list[str]:
    """The names of the folders; if two are equal, the paths from their common parent folder."""
    paths = [run.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise RunError("duplicate run: each may be given once")
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    return [os.path.relpath(path, os.path.commonpath(paths)) for path in paths]


def _against(first: Values, values: Values, draws: Resampled) -> Record:
    """A run's mean with its interval, and its difference from the first run."""
    result = compare_paired(first, values, draws.groups)
    gap = result.interval
    bounds = None if gap is None else [gap.low, gap.high]
    row = {"mean": mean_of(values), "interval": interval_of(values, draws)}
    row |= {"difference": finite(result.difference), "difference_interval": bounds}
    return row | {"p_value": result.p_value, "compared": result.slices}
