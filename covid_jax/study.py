"""One experiment, several runs: every fold, every seed; resumable, with a summary of them all."""

import csv
import dataclasses
import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from covid_jax.config import TrainConfig
from covid_jax.data import SliceDataset
from covid_jax.errors import ConfigError, RunError
from covid_jax.evaluation import evaluate
from covid_jax.files import replace_text, replacing
from covid_jax.inference import load_run
from covid_jax.metrics.overlap import METRICS
from covid_jax.provenance import provenance
from covid_jax.training import train


def run_study(
    config: TrainConfig,
    seeds: Sequence[int],
    dataset: SliceDataset,
    out: Path,
    console: Console,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Trains and tests a run for each fold and seed; what is done already is not done again.

    Args:
      config: of every run but for its seed and fold; ``fold`` is ``all`` for every fold.
      seeds: of the runs; none: the config's own.
      dataset: opened with the config's data settings.
      out: holds a run folder for each, ``summary.json`` and ``runs.csv``.
      console: for the progress.
      command: the command line.

    Returns:
      What summary.json holds: each run's test metrics (means over slices on their own grid), and
      over all runs their mean and standard deviation (of the sample; None for one run).

    Raises:
      ConfigError, DataError, RunError: as ``train`` and ``evaluate`` do.
    """
    if len(set(seeds)) != len(seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, seeds))}: a seed stands there twice")
    rows = []
    members = list(_members(config, seeds or (config.seed,), out))
    for number, member in enumerate(members, start=1):
        assert member.out is not None
        console.print(f"run {number} of {len(members)}: {escape(str(member.out))}")
        report = _report(member.out)
        if report is None:
            train(member, dataset, member.out, console, command)
            report = evaluate(load_run(member.out), dataset, "test", command=command)
        elif report["data_fingerprint"] != dataset.fingerprint():
            raise RunError(f"{member.out}: was made with other data; choose another --out")
        rows.append(
            {
                "run": member.out.name,
                "fold": member.data.fold,
                "seed": member.seed,
                "epoch": report["epoch"],
                "slices": report["slices"],
                **{name: report["own_grid"][name]["mean"] for name in METRICS},
            }
        )
    summary = {
        "runs": rows,
        "metrics": {name: _spread([row[name] for row in rows]) for name in METRICS},
        **provenance(command),
    }
    replace_text(out / "summary.json", json.dumps(summary, indent=1))
    with replacing(out / "runs.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return summary


def _members(config: TrainConfig, seeds: Sequence[int], out: Path) -> Iterator[TrainConfig]:
    """The config of each run: to be resumed where it has been started."""
    folds = config.data.folds
    chosen = range(1, (folds or 0) + 1) if config.data.fold == "all" else [config.data.fold]
    for fold in chosen:
        for seed in seeds:
            name = f"seed-{seed}" if fold is None else f"fold-{fold}-seed-{seed}"
            folder = out / name
            yield dataclasses.replace(
                config,
                out=folder,
                seed=seed,
                data=dataclasses.replace(config.data, fold=fold),
                resume=(folder / "config.json").exists(),
            )


def _report(folder: Path) -> dict[str, Any] | None:
    """A run's test report, if it has come to that."""
    path = folder / "eval" / "test" / "metrics.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunError(f"{path}: damaged; remove it, and the run is tested again") from error


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "sd": statistics.stdev(known) if len(known) > 1 else None,
    }
