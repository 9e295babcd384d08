"""Gathers what trained runs scored into one JSON file: the raw figures behind RESULTS.md.

    python -m benchmarks.experiments.collect runs/table1 --out benchmarks/results/table1.json
    python -m benchmarks.experiments.collect runs/semiseg-256 --out ... --ways

Takes every evaluation in the runs below the folders given, and every summary of ``predict`` in a
run's folder ``scans``; ``--ways`` first scores the test slices with and without flips, at one half
and at the threshold of the validation slices. Runs that the file contains already and that are
not below the folders stay in it: seeds may be trained on several machines.
``tables.py`` makes RESULTS.md's tables of it, and of nothing else. Holds no pixel of any slice.
"""

import argparse
import csv
import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from covid_jax.data import SliceDataset, open_dataset
from covid_jax.evaluation import evaluate
from covid_jax.evaluation.evaluate import near_trained
from covid_jax.inference import Run, load_run
from covid_jax.runs.config import EvalConfig
from covid_jax.runs.provenance import provenance
from covid_jax.splits.policies import Split
from covid_jax.training.loggers import read_metrics

COMMAND = ("python", "-m", "benchmarks.experiments.collect")
NAMES = ("slice", "source", "patient")
NUMBERS = (
    "height",
    "width",
    "lesion_pixels",
    "predicted_pixels",
    "dice",
    "sensitivity",
    "specificity",
    "dice_at_network_size",
    "covid_semiseg_dice",
    "hd95_px",
    "mae",
)
RECORDED = ("config", "command", "date", "device", "processor", "versions")
SCANNED = ("name", "slices", "slices_with_lesion", "lesion_voxels", "lung_voxels", "share_of_lung")
LOGGED = ("epoch", "train_loss", "val_loss", "val_dice")
WAYS = [  # plain ones last: they stay in the run's folder
    *(EvalConfig("val", tta=tta) for tta in (True, False)),
    *(
        EvalConfig("test", threshold=threshold, tta=tta)
        for tta, threshold in itertools.product((True, False), ("val", 0.5))
    ),
]


def runs_below(folders: list[Path]) -> Iterator[Path]:
    """Every run folder, in the order of their names."""
    for folder in folders:
        yield from sorted(path.parent for path in folder.rglob("split.json"))


def slices_of(folder: Path) -> dict[str, list[Any]]:
    """Columns of slices.csv, numbers to five places; None where a value is not defined."""
    with (folder / "slices.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    numbers = {
        name: [round(float(row[name]), 5) if row[name] else None for row in rows]
        for name in NUMBERS
    }
    return {name: [row[name] for row in rows] for name in NAMES} | numbers


def evaluation(report: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What one evaluation found: means, protocols and every slice."""
    grids = ("own_grid", "network_size")
    return {
        "epoch": report["epoch"],
        "subset": report["subset"],
        "data": report["data"],
        "data_fingerprint": report["data_fingerprint"],
        "threshold": report["threshold"],
        "threshold_from": report["threshold_from"],
        "tta": report.get("tta", False),
        "command": report["command"],
        "commit": report["commit"],
        **{grid: {name: of["mean"] for name, of in report[grid].items()} for grid in grids},
        "protocols": report["protocols"],
        "calibration": {name: report["calibration"][name] for name in ("ece", "brier", "mae")},
        "lesions": report["lesions"],
        "notes": report["notes"],
        "slices": slices_of(folder),
    }


def scans_of(folder: Path) -> list[dict[str, Any]]:
    """What was predicted on whole scans."""
    summaries = [json.loads(path.read_text()) for path in sorted(folder.glob("*_summary.json"))]
    return [{name: summary.get(name) for name in SCANNED} for summary in summaries]


def described(folder: Path) -> dict[str, Any]:
    """A run: how it was trained, on which split, what its best epoch validated."""
    record = json.loads((folder / "config.json").read_text())
    split = Split.load(folder / "split.json")
    epochs = read_metrics(folder / "metrics.jsonl")
    best = min(epochs, key=lambda row: row["val_loss"])
    return {
        "run": str(folder),
        **{name: record.get(name) for name in RECORDED},
        "commit": record.get("commit"),
        "split": {
            "policy": split.policy,
            "statement": split.statement,
            "sha256": hashlib.sha256((folder / "split.json").read_bytes()).hexdigest(),
            "counts": {name: len(getattr(split, name)) for name in ("train", "val", "test")},
            "near_training": near_trained(split),
        },
        "epochs": len(epochs),
        "seconds": sum(row["seconds"] for row in epochs),
        "best": {name: best[name] for name in LOGGED},
        "last": {name: epochs[-1][name] for name in LOGGED},
        "curves": {name: [round(row[name], 4) for row in epochs] for name in LOGGED},
        "scans": scans_of(folder / "scans"),
    }


def data_of(run: Run) -> SliceDataset:
    """The data that a run was trained on."""
    data = run.config.data
    return open_dataset(data.data, data.image_size, lesion_slices_only=data.lesion_slices_only)


def main() -> None:
    """Reads, scores where asked to, writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ways", action="store_true", help="score with flips, thresholds")
    options = parser.parse_args()
    if any(folder.is_absolute() for folder in options.folders):
        parser.error("give folders relative to the repository's root: their names are kept")
    found = {}
    if options.out.exists():
        found = {run["run"]: run for run in json.loads(options.out.read_text())["runs"]}
    for folder in runs_below(options.folders):
        ways = []
        if options.ways:
            run = load_run(folder)
            dataset = data_of(run)
            for way in WAYS:
                report = evaluate(run, dataset, way, command=sys.argv).report
                ways.append(evaluation(dataclasses.asdict(report), Path(report.folder)))
        else:
            for path in sorted(folder.glob("eval/*/metrics.json")):
                ways.append(evaluation(json.loads(path.read_text()), path.parent))
        if ways:
            found[str(folder)] = {**described(folder), "evaluations": ways}
            print(f"{folder}: {len(ways)} evaluations", flush=True)
    record = {
        "runs": [found[name] for name in sorted(found)],
        **provenance([*COMMAND, *sys.argv[1:]]),
    }
    options.out.write_text(json.dumps(record, separators=(",", ":")))


if __name__ == "__main__":
    main()
