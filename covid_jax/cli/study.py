"""A study: one run for each fold and seed, resumable, with a summary of all runs."""

import dataclasses
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from covid_jax.data import SliceDataset
from covid_jax.errors import ConfigError, RunError
from covid_jax.evaluation import evaluate
from covid_jax.evaluation.compare import Values, read_evaluation
from covid_jax.evaluation.report import EvaluationReport
from covid_jax.evaluation.summary import interval_of, mean_of, resampled
from covid_jax.files import write_csv, write_json, writing_to
from covid_jax.inference import load_run
from covid_jax.metrics.confusion import METRICS
from covid_jax.parallel import is_multiprocess
from covid_jax.reporting.evaluation_report import draw_evaluation
from covid_jax.runs.config import TrainConfig
from covid_jax.runs.provenance import provenance
from covid_jax.runs.record import read_record, require_same
from covid_jax.splits.policies import count_folds
from covid_jax.training import train

Row = dict[str, Any]  # of runs.csv


def run_study(
    config: TrainConfig,
    seeds: Sequence[int],
    dataset: SliceDataset,
    out: Path,
    console: Console,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Trains and tests one run for each fold and seed; finished runs are not repeated.

    Args:
      config: settings of all runs, except for seed and fold; with ``fold`` ``all``, one run per
        fold.
      seeds: of the runs; none: the config's own.
      dataset: opened with the config's data settings.
      out: folder for the run folders, ``summary.json`` and ``runs.csv``.
      console: for the progress.
      command: the command line.

    Returns:
      The content of summary.json: the test metrics of each run (means over slices on their own
      grid); their mean and sample standard deviation (None for one run) over all runs and, with
      folds, over the seeds of each fold; and the means over all tested slices, with intervals.

    Raises:
      ConfigError, DataError, RunError: as ``train`` and ``evaluate`` do; and if a run in ``out``
        has different settings or other data; nothing is trained then.
    """
    if len(set(seeds)) != len(seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, seeds))}: duplicate seed")
    if is_multiprocess():
        raise ConfigError("--seeds and --fold all: one process only; start each run by itself")
    members = _members(config, seeds or (config.seed,), dataset, out)
    rows = {folder: _finished(member, folder, dataset) for folder, member in members.items()}
    for place, (folder, member) in enumerate(members.items(), start=1):
        done = ", done before" if rows[folder] else ""
        console.print(f"run {place} of {len(members)}: {escape(str(folder))}{done}")
        if rows[folder] is None:
            train(member, dataset, folder, console=console, command=command)
            evaluation = evaluate(load_run(folder), dataset, command=command)
            draw_evaluation(evaluation)
            rows[folder] = _row(member, folder, evaluation.report)
    tested = [row for row in rows.values() if row]
    folds = dict.fromkeys(row["fold"] for row in tested if row["fold"] is not None)
    summary = {
        "runs": tested,
        "metrics": _spreads(tested),
        "folds": {fold: _spreads([row for row in tested if row["fold"] == fold]) for fold in folds},
        "slices": _over_slices(list(members)),
        **provenance(command),
    }
    with writing_to(out):
        write_json(out / "summary.json", summary)
        write_csv(out / "runs.csv", tested)
    return summary


def _members(
    config: TrainConfig, seeds: Sequence[int], dataset: SliceDataset, out: Path
) -> dict[Path, TrainConfig]:
    """The settings of each run by its folder, with ``resume`` set if it was started before."""
    folds = count_folds(dataset, config.data.split, config.data.folds)
    chosen = range(1, (folds or 0) + 1) if config.data.fold == "all" else [config.data.fold]
    members = {}
    for fold, seed in itertools.product(chosen, seeds):
        folder = out / (f"seed-{seed}" if fold is None else f"fold-{fold}-seed-{seed}")
        data = dataclasses.replace(config.data, fold=fold)
        members[folder] = dataclasses.replace(
            config, out=folder, seed=seed, data=data, resume=(folder / "config.json").exists()
        )
    return members


def _finished(member: TrainConfig, folder: Path, dataset: SliceDataset) -> Row | None:
    """The row of a run that has been tested before; None if it has not been."""
    path = folder / "eval" / "test" / "metrics.json"
    if not path.exists():
        return None
    try:
        report = EvaluationReport.load(path)
        row = _row(member, folder, report)
    except (LookupError, RunError) as error:
        raise RunError(f"{path}: damaged; remove it, and the run is tested again") from error
    require_same(folder, read_record(folder).config, member, ("out", "resume", "data", "profile"))
    if report.data_fingerprint != dataset.fingerprint():
        raise RunError(f"{folder}: was made with other data; choose another --out")
    at_half = (report.threshold_from, report.threshold) == ("given", 0.5)
    return row if at_half else None  # scored again, at one half as the others are


def _row(member: TrainConfig, folder: Path, report: EvaluationReport) -> Row:
    row = {"run": folder.name, "fold": member.data.fold, "seed": member.seed}
    row |= {"epoch": report.epoch, "slices": report.slices}
    return row | {name: report.own_grid[name]["mean"] for name in METRICS}


def _over_slices(folders: Sequence[Path]) -> dict[str, Any]:
    """Means over all slices that any run tested: with folds, those of every patient."""
    values, patients = slice_values(folders)
    draws = resampled(patients)
    means = {
        name: {"mean": mean_of(column), "interval": interval_of(column, draws)}
        for name, column in values.items()
    }
    return {"slices": len(patients), "intervals": draws.statement, "metrics": means}


def slice_values(folders: Sequence[Path]) -> tuple[dict[str, Values], list[str | None]]:
    """The metrics of each test slice, averaged over the runs that tested it, and its patient.

    Args:
      folders: of runs that have been tested.
    """
    cells: dict[str, list[list[float]]] = {}
    patients: dict[str, str | None] = {}
    for folder in folders:
        scored = read_evaluation(folder / "eval/test")
        columns = [scored.column(name) for name in METRICS]
        for name, patient, *values in zip(scored.slices, scored.patients, *columns, strict=True):
            cells.setdefault(name, []).append(values)
            patients[name] = patient
    means = np.array([np.mean(each, axis=0) for each in cells.values()])
    return dict(zip(METRICS, means.T, strict=True)), [patients[name] for name in cells]


def _spreads(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    spreads = {}
    for name in METRICS:
        known = [row[name] for row in rows if row[name] is not None]
        deviation = statistics.stdev(known) if len(known) > 1 else None
        spreads[name] = {"mean": statistics.fmean(known) if known else None, "sd": deviation}
    return spreads
