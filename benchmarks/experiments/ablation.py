"""The paper's Table 1: baseline and attention, Dice loss and focal Tversky loss.

    python -m benchmarks.experiments.ablation --data DATASET --out runs/ablation --seeds 0 1 2

Takes every flag of ``train.py``. Each of the four rows is a study (a run for each fold and seed)
in a folder of its own, on the same split; stopped, the same command goes on. Leaves table.md,
table.csv and table.json, the runs' values beside the paper's, and methods.png, the paper's Fig. 6.
"""

import csv
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.experiments import markdown_table
from covid_jax.cli.commands import open_data
from covid_jax.cli.parse import parse_train
from covid_jax.cli.settings_shown import data_name
from covid_jax.cli.study import run_study, slice_values
from covid_jax.data import SliceDataset
from covid_jax.errors import CovidJaxError
from covid_jax.evaluation.compare import read_scored
from covid_jax.evaluation.summary import resampled
from covid_jax.files import replace_text, replacing
from covid_jax.metrics.bootstrap import bootstrap_interval, compare_paired
from covid_jax.reporting.example_figures import example_slices
from covid_jax.reporting.figures import save_figure
from covid_jax.runs.config import TrainConfig
from covid_jax.runs.provenance import provenance

ROWS = {
    "baseline + DL": {"attention": "none", "loss": "dice"},
    "baseline + FTL": {"attention": "none", "loss": "ftl"},
    "ours + DL": {"attention": "encoder_decoder", "loss": "dice"},
    "ours + FTL": {"attention": "encoder_decoder", "loss": "ftl"},
}
# Zhou, Canu, Ruan 2020, Table 1, in percent: Dice, sensitivity, specificity. Two public datasets of
# 473 slices, 80/20 by slice; the table does not say over what it was averaged.
PAPER = {
    "baseline + DL": (80.4, 75.7, 99.8),
    "baseline + FTL": (81.1, 78.3, 99.7),
    "ours + DL": (81.5, 76.7, 99.7),
    "ours + FTL": (83.1, 86.7, 99.3),
}
METRICS = ("dice", "sensitivity", "specificity")


def row_config(config: TrainConfig, row: str) -> TrainConfig:
    """The settings with this row's network and loss."""
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, attention=ROWS[row]["attention"]),
        loss=dataclasses.replace(config.loss, loss=ROWS[row]["loss"]),
    )


def folder_of(out: Path, row: str) -> Path:
    """Where a row's runs lie."""
    return out / row.replace(" + ", "-").lower()


def table_of(out: Path, studies: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over all test slices with intervals, spread over runs, and what the first row lacks."""
    table, first = {}, None
    for name, study in studies.items():
        runs = [folder_of(out, name) / row["run"] for row in study["runs"]]
        values, patients = slice_values(runs)
        draws = resampled(patients)
        first = first or values
        table[name] = {"runs": len(runs), "slices": len(patients), "intervals": draws.statement}
        for place, metric in enumerate(METRICS):
            found = bootstrap_interval(values[metric], draws.groups)
            against = compare_paired(first[metric], values[metric], draws.groups)
            table[name][metric] = {
                "mean": float(np.nanmean(values[metric])),
                "interval": found and [found.low, found.high],
                "sd_over_runs": study["metrics"][metric]["sd"],
                "difference": against.difference,
                "difference_interval": against.interval
                and [against.interval.low, against.interval.high],
                "p_value": against.p_value,
                "paper": PAPER[name][place] / 100,
            }
    return table


def markdown(table: dict[str, Any], config: TrainConfig, layout: str, split: str) -> str:
    """The table for a reader, with its size and width."""
    notes = (
        f"{layout}; {split}; {config.data.image_size} x {config.data.image_size}, features "
        f"{' '.join(map(str, config.model.features))}, at most {config.epochs} epochs, batch "
        f"{config.batch_size}. Means over test slices on their own grid, threshold 0.5; "
        f"{next(iter(table.values()))['intervals']}. The paper's columns are of other data and of "
        "its own split: not the same experiment."
    )
    rows = []
    for name, row in table.items():
        ours = []
        for metric in METRICS:
            interval = row[metric]["interval"]
            spread = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
            ours.append(f"{row[metric]['mean']:.3f}{spread}")
        theirs = [f"{100 * row[metric]['paper']:.1f}" for metric in METRICS]
        rows.append([name, str(row["runs"]), str(row["slices"]), *ours, *theirs])
    columns = ["", "runs", "slices", "Dice", "sensitivity", "specificity"]
    found = markdown_table.table([*columns, "paper: Dice", "Sens", "Spec"], rows)
    return f"{notes}\n\n{found}\n"


def write_table(out: Path, record: dict[str, Any], text: str) -> None:
    """table.json, table.csv, table.md."""
    replace_text(out / "table.json", json.dumps(record, indent=1))
    replace_text(out / "table.md", text)
    with replacing(out / "table.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = list(next(iter(record["table"].values()))["dice"])
        writer.writerow(["row", "metric", *columns])
        for name, row in record["table"].items():
            for metric in METRICS:
                writer.writerow([name, metric, *row[metric].values()])


def main() -> None:
    """Runs what is missing, then writes the table."""
    command = ["python", "-m", "benchmarks.experiments.ablation", *sys.argv[1:]]
    console = Console(soft_wrap=True, highlight=False)
    try:
        arguments = parse_train("python -m benchmarks.experiments.ablation", sys.argv[1:])
        config = arguments.settings
        dataset = open_data(config.data, console)
        out = config.out or Path("runs") / f"{data_name(config.data.data)}-ablation"
        run(config, arguments.seeds, dataset, out, console, command)
    except CovidJaxError as error:
        raise SystemExit(f"error: {error}") from error


def run(
    config: TrainConfig,
    seeds: tuple[int, ...],
    dataset: SliceDataset,
    out: Path,
    console: Console,
    command: list[str],
) -> None:
    """The four studies, their table and the picture."""
    studies = {}
    for name in ROWS:
        console.print(f"[bold]{name}[/bold]")
        row = row_config(config, name)
        studies[name] = run_study(row, seeds, dataset, folder_of(out, name), console, command)
    table = table_of(out, studies)
    first_runs = [folder_of(out, name) / study["runs"][0]["run"] for name, study in studies.items()]
    scored = read_scored(first_runs, "test")
    split = scored[0].report.split["statement"]
    text = markdown(table, config, dataset.layout, split)
    write_table(out, {"table": table, "split": split, **provenance(command)}, text)
    named = [one._replace(name=name) for one, name in zip(scored, ROWS, strict=True)]
    save_figure(example_slices(named, dataset), out / "methods.png")
    console.print(text)
    console.print(f"files  {out}/ table.md, table.csv, table.json, methods.png, a folder a row")


if __name__ == "__main__":
    main()
