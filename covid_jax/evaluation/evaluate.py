"""Scores a run on one subset of its data: metrics.json, slices.csv and a figure."""

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

from covid_jax.data import SliceDataset
from covid_jax.data.preprocess import resize
from covid_jax.data.splits import Split
from covid_jax.errors import RunError
from covid_jax.evaluation.figures import Example, example_grid
from covid_jax.files import replace_text
from covid_jax.inference import Run
from covid_jax.metrics.overlap import METRICS, Counts, confusion_counts, dice, summarize
from covid_jax.provenance import provenance

THRESHOLD = 0.5
SubsetName = Literal["train", "val", "test", "all"]


def evaluate(
    run: Run, dataset: SliceDataset, subset: SubsetName = "test", batch_size: int = 4
) -> dict[str, Any]:
    """Predicts a subset's slices and scores them.

    Probabilities are resized linearly to each slice's own grid and thresholded at 0.5; the scores
    at the network's size, as the paper's, stand beside them. Every mean is over slices, every
    pooled value over all pixels (``covid_jax.metrics.overlap`` states the empty-mask rules).

    Args:
      run: a trained run.
      dataset: opened at the run's image size. Another than the run's can only be scored whole.
      subset: of the run's split.
      batch_size: slices predicted at once.

    Returns:
      What metrics.json holds; ``folder`` in it is where the files are.

    Raises:
      RunError: if the dataset is not the run's and subset is not ``all``, or its image size is
        another.
    """
    size = run.config.data.image_size
    if dataset.image_size != size:
        raise RunError(f"{run.folder}: was trained at {size}; open the data at that image size")
    split = Split.load(run.folder / "split.json")
    own_data = dataset.fingerprint() == run.record["data"]["fingerprint"]
    if not own_data and subset != "all":
        raise RunError(
            f"{run.folder}: was trained on other data, so its {subset} subset is unknown here; "
            "--subset all scores every slice"
        )
    part = dataset.select(split.indices(dataset, subset))
    maps = run.predict_network(part.network_images(), batch_size)
    predictions = [
        resize(probability, *item.mask.shape) > THRESHOLD
        for probability, item in zip(maps, part.slices, strict=True)
    ]
    truths = [item.mask > 0 for item in part.slices]
    counts = _stack([confusion_counts(p, t) for p, t in zip(predictions, truths, strict=True)])
    network_counts = confusion_counts(maps > THRESHOLD, part.network_masks()[..., 0] > 0)

    folder = run.folder / "eval" / (subset if own_data else f"{dataset.fingerprint()}-all")
    folder.mkdir(parents=True, exist_ok=True)
    report = {
        "run": str(run.folder),
        "folder": str(folder),
        "epoch": run.epoch,
        "subset": subset,
        "data": dataset.layout,
        "slices": len(part),
        "patients": len({item.patient for item in part.slices} - {None}) or None,
        "threshold": THRESHOLD,
        "image_size": dataset.image_size,
        "split": {"policy": split.policy, "statement": split.statement, "warnings": split.warnings},
        "notes": _notes(part, own_data, run),
        "own_grid": _plain(counts),
        "network_size": _plain(network_counts),
        "training": {k: run.record[k] for k in ("command", "date", "device", "versions", "config")},
        **provenance(sys.argv),
    }
    _write_rows(folder / "slices.csv", part, counts, network_counts)
    examples = [
        Example(item.id, item.image, truth, prediction, float(score))
        for item, truth, prediction, score in zip(
            part.slices, truths, predictions, dice(counts), strict=True
        )
    ]
    example_grid(examples, folder / "examples.png", _caption(report))
    replace_text(folder / "metrics.json", json.dumps(report, indent=1))
    return report


def _notes(part: SliceDataset, own_data: bool, run: Run) -> list[str]:
    notes = list(part.notes)
    if part.lesion_slices_only():
        notes.append(
            "every slice evaluated shows a lesion: false alarms on others are not measured"
        )
    if not own_data:
        notes.append(f"data the run was not trained on ({run.record['data']['layout']})")
    return notes


def _stack(counts: list[Counts]) -> Counts:
    return Counts(*(np.asarray(part) for part in zip(*counts, strict=True)))


def _plain(counts: Counts) -> dict[str, dict[str, float | int | None]]:
    """Summaries as JSON can hold them: null for NaN."""
    return {
        name: {k: None if math.isnan(v) else v for k, v in summary._asdict().items()}
        for name, summary in summarize(counts).items()
    }


def _write_rows(path: Path, part: SliceDataset, counts: Counts, network_counts: Counts) -> None:
    values = {name: metric(counts) for name, metric in METRICS.items()}
    network_dice = dice(network_counts)
    partial = path.with_name(f".{path.name}")
    with partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            (
                *("slice", "source", "patient", "height", "width"),
                *("lesion_pixels", "predicted_pixels", *Counts._fields),
                *(*METRICS, "dice_at_network_size"),
            )
        )
        for i, item in enumerate(part.slices):
            tp, fp, fn, tn = (int(c[i]) for c in counts)
            scores = [f"{values[name][i]:.6f}" for name in METRICS]
            writer.writerow(
                (
                    *(item.id, item.source, item.patient or "unknown", *item.mask.shape),
                    *(tp + fn, tp + fp, tp, fp, fn, tn),
                    *(*scores, f"{network_dice[i]:.6f}"),
                )
            )
    partial.replace(path)


def _caption(report: dict[str, Any]) -> str:
    synthetic = "Synthetic phantom. " if "synthetic phantom" in " ".join(report["notes"]) else ""
    mean = report["own_grid"]["dice"]["mean"]
    leaky = " The paper's leaky split." if report["split"]["policy"] == "paper" else ""
    return (
        f"{synthetic}{report['slices']} {report['subset']} slices, mean Dice {mean:.3f} "
        f"at threshold {report['threshold']}.{leaky} Research use only."
    )
