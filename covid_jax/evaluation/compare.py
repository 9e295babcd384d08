"""Several scored runs side by side: on the same slices, with intervals and a paired test."""

import csv
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from covid_jax.data import SliceDataset
from covid_jax.errors import RunError, shorten
from covid_jax.evaluation.slice_table import TEXT, load_masks, number, read_rows
from covid_jax.evaluation.summary import resampled
from covid_jax.files import replace_text, replacing
from covid_jax.metrics.bootstrap import bootstrap_interval, compare_paired
from covid_jax.metrics.confusion import METRICS
from covid_jax.reporting.drawing import save_figure
from covid_jax.reporting.example_figures import Example, choose, method_grid
from covid_jax.reporting.plots import scatter_figure
from covid_jax.runs.provenance import provenance


class Scored(NamedTuple):
    """A run's evaluation, as its folder keeps it.

    Attributes:
      name: by which the run is told from the others.
      folder: of the evaluation.
      report: metrics.json.
      rows: slices.csv.
    """

    name: str
    folder: Path
    report: dict[str, Any]
    rows: list[dict[str, str]]

    def column(self, metric: str) -> Float[np.ndarray, " n"]:
        """A value a slice; NaN where undefined."""
        return np.array([number(row[metric]) for row in self.rows])


def compare(
    runs: Sequence[Path],
    dataset: SliceDataset,
    subset: str,
    out: Path,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Compares runs that were scored on the same slices; every other one against the first.

    Args:
      runs: run folders, each scored before.
      dataset: the slices are from, for the pictures.
      subset: of the evaluations.
      out: folder for compare.json, compare.csv, scatter and methods (PNG and PDF).
      command: the command line, kept in compare.json.

    Returns:
      What compare.json holds.

    Raises:
      RunError: if fewer than two are given, one has not been scored, they were scored on different
        slices or tell other classes apart, files of theirs are damaged, or ``out`` cannot be
        written.
    """
    scored = read_scored(runs, subset)
    if scored[0].report["data_fingerprint"] != dataset.fingerprint():
        raise RunError(f"{scored[0].folder}: was scored on other data than is given for pictures")
    patients = [None if row["patient"] == "unknown" else row["patient"] for row in scored[0].rows]
    draws = resampled(patients)
    metrics = {
        name: [_against(scored[0].column(name), one.column(name), draws.groups) for one in scored]
        for name in METRICS
    }
    record = {
        "runs": [one.name for one in scored],
        "subset": subset,
        "slices": len(patients),
        "data_fingerprint": dataset.fingerprint(),
        "thresholds": [one.report["threshold"] for one in scored],
        "intervals": draws.statement,
        "test": "two-sided Wilcoxon signed-rank against the first run, zeros by Pratt; of patients "
        "where all are known, else of slices; not corrected for several comparisons",
        "metrics": metrics,
        **provenance(command),
    }
    columns = [one.column("dice") for one in scored]
    drawn = {
        "scatter": scatter_figure(record["runs"], columns, "Dice"),
        "methods": draw_methods(scored, dataset),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_csv(out / "compare.csv", record)
        for name, figure in drawn.items():
            for ending in ("png", "pdf"):
                save_figure(figure, out / f"{name}.{ending}")
        replace_text(out / "compare.json", json.dumps(record, indent=1))
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror})") from error
    return record


def read_scored(runs: Sequence[Path], subset: str) -> list[Scored]:
    """The evaluations of these runs, of the same slices in the same order."""
    if len(runs) < 2:
        raise RunError("a comparison needs two runs or more")
    scored = []
    for name, run in zip(_names(runs), runs, strict=True):
        folder = run / "eval" / subset
        path = folder / "metrics.json"
        try:
            report = json.loads(path.read_text())
            _ = report["data_fingerprint"], report["threshold"], _classes(report)
            slices = report["slices"]
        except FileNotFoundError as error:
            again = f"python eval.py {run}" + f" --subset {subset}" * (subset != "test")
            what = f"not scored yet; {again}" if run.is_dir() else "no run here"
            raise RunError(f"{run}: {what}") from error
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise RunError(f"{path}: damaged; score the run again") from error
        rows = read_rows(folder / "slices.csv")
        if len(rows) != slices:
            raise RunError(
                f"{folder}: slices.csv has {len(rows)} slices, metrics.json {slices}; score the "
                "run again"
            )
        scored.append(Scored(name, folder, report, rows))
    first, *others = scored
    slices = [row["slice"] for row in first.rows]
    for other in others:
        if _classes(other.report) != _classes(first.report):
            raise RunError(
                f"{other.folder}: its classes are {_spoken(other)}, those of {first.folder} are "
                f"{_spoken(first)}: runs compare only with the same --classes"
            )
        if other.report["data_fingerprint"] != first.report["data_fingerprint"]:
            raise RunError(f"{other.folder}: was scored on other data than {first.folder}")
        if [row["slice"] for row in other.rows] != slices:
            raise RunError(
                f"{other.folder}: was scored on other slices than {first.folder}; runs compare "
                "only with the same split (--split-file)"
            )
    return scored


def _classes(report: dict[str, Any]) -> list[str]:
    """Those the run tells apart, which say what counts as lesion."""
    return report["training"]["config"]["data"]["classes"]


def _spoken(one: Scored) -> str:
    return " ".join(_classes(one.report)) or "merged"


def _names(runs: Sequence[Path]) -> list[str]:
    """The folders' own names, or as much of their paths as tells them apart."""
    paths = [run.resolve() for run in runs]
    if len(set(paths)) < len(paths):
        raise RunError("a run stands there twice")
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    above = os.path.commonpath(paths)
    return [os.path.relpath(path, above) for path in paths]


def _against(
    first: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"], groups: Any
) -> dict[str, Any]:
    """A run's mean with its interval, and how it differs from the first run."""
    interval = bootstrap_interval(values, groups)
    result = compare_paired(first, values, groups)
    gap = result.interval
    defined = values[~np.isnan(values)]
    return {
        "mean": float(defined.mean()) if defined.size else None,
        "interval": None if interval is None else [interval.low, interval.high],
        "difference": None if math.isnan(result.difference) else result.difference,
        "difference_interval": None if gap is None else [gap.low, gap.high],
        "p_value": result.p_value,
        "compared": result.slices,
    }


def _write_csv(path: Path, record: dict[str, Any]) -> None:
    with replacing(path) as partial, partial.open("w", newline="", **TEXT) as file:
        writer = csv.writer(file)
        names = list(next(iter(record["metrics"].values()))[0])
        writer.writerow(["metric", "run", *names])
        for metric, rows in record["metrics"].items():
            for run, row in zip(record["runs"], rows, strict=True):
                cells = (
                    " ".join(f"{v:.6f}" for v in value) if isinstance(value, list) else value
                    for value in row.values()
                )
                writer.writerow([metric, run, *cells])


def draw_methods(scored: Sequence[Scored], dataset: SliceDataset) -> Figure:
    """The slices that the first run finds best, typical and worst, by every run."""
    known = {item.id: item for item in dataset.slices}
    if unknown := [row["slice"] for row in scored[0].rows if row["slice"] not in known]:
        raise RunError(f"{scored[0].folder}: the data has no slice {shorten(unknown)}")
    slices = [known[row["slice"]] for row in scored[0].rows]
    by_method: dict[str, list[Example]] = {}
    for one in scored:
        masks = load_masks(one.folder / "masks.npz")
        if [mask.shape for mask in masks] != [item.mask.shape for item in slices]:
            raise RunError(f"{one.folder}: masks.npz is not of its slices; score the run again")
        found = zip(slices, masks, one.column("dice"), strict=True)
        by_method[one.name] = [
            Example(item.id, item.image, dataset.target_ids(item.mask), mask, float(value))
            for item, mask, value in found
        ]
    chosen = {example.id for _, example in choose(by_method[scored[0].name])}
    return method_grid(
        {
            name: [example for example in examples if example.id in chosen]
            for name, examples in by_method.items()
        }
    )
