"""Scores a run on one subset of its data: metrics.json, slices.csv and a figure."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from covid_jax.data import SliceDataset
from covid_jax.data.labels import decide, region_names, regions
from covid_jax.data.leaks import some
from covid_jax.data.preprocess import Packed
from covid_jax.data.splits import Split
from covid_jax.data.survey import require_hu
from covid_jax.errors import RunError
from covid_jax.evaluation.figures import Example, example_grid
from covid_jax.files import replace_text, replacing
from covid_jax.inference import Run, on_grid
from covid_jax.metrics.overlap import METRICS, Counts, confusion_counts, dice, summarize
from covid_jax.provenance import provenance

THRESHOLD = 0.5
SubsetName = Literal["train", "val", "test", "all"]


class _Scores(NamedTuple):
    """What was predicted and how well, slice by slice.

    Attributes:
      truths, predictions: class ids on each slice's own grid.
      own_grid, network_size: counts of each region (the lesion; then each class, if several).
    """

    truths: list[UInt8[np.ndarray, "h w"]]
    predictions: list[UInt8[np.ndarray, "h w"]]
    own_grid: dict[str, Counts]
    network_size: dict[str, Counts]


def evaluate(
    run: Run,
    dataset: SliceDataset,
    subset: SubsetName = "test",
    batch_size: int = 4,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Predicts a subset's slices and scores them.

    Probabilities are resized linearly to each slice's own grid, then thresholded at 0.5 (several
    classes: the most probable one). The scores at the network's size, as the paper's, stand beside
    them. Every mean is over slices, every pooled value over all pixels
    (``covid_jax.metrics.overlap`` states the empty-mask rules). Where classes are told apart, each
    is scored beside the whole lesion.

    Args:
      run: a trained run.
      dataset: opened at the run's image size, with its classes. Another than the run's can only be
        scored whole.
      subset: of the run's split.
      batch_size: slices predicted at once.
      command: the command line, kept in the report.

    Returns:
      What metrics.json holds; ``folder`` in it is where the files are.

    Raises:
      RunError: if the dataset is not the run's and subset is not ``all``, or its image size or
        classes are others, or the report cannot be written.
    """
    config = run.config.data
    if (dataset.image_size, dataset.targets) != (config.image_size, config.classes):
        raise RunError(
            f"{run.folder}: was trained at {config.image_size}, classes "
            f"{' '.join(config.classes) or 'merged'}; open the data so"
        )
    if config.intensity == "window":
        require_hu(dataset)
    split = Split.load(run.folder / "split.json")
    own_data = dataset.fingerprint() == run.record["data"]["fingerprint"]
    if not own_data and subset != "all":
        raise RunError(
            f"{run.folder}: was trained on other data, so its {subset} subset is unknown here; "
            "--subset all scores every slice"
        )
    indices = split.indices(dataset, subset)
    part = dataset.select(indices)
    scores = _predict(run, dataset, indices, batch_size)
    folder = run.folder / "eval" / (subset if own_data else f"{dataset.fingerprint()}-all")
    names = region_names(dataset.targets)
    report = {
        "run": str(run.folder),
        "folder": str(folder),
        "epoch": run.epoch,
        "subset": subset,
        "data": dataset.layout,
        "data_fingerprint": dataset.fingerprint(),
        "slices": len(part),
        "patients": len({item.patient for item in part.slices} - {None}) or None,
        "threshold": THRESHOLD,
        "image_size": dataset.image_size,
        "split": {"policy": split.policy, "statement": split.statement, "warnings": split.warnings},
        "notes": _notes(part, split, own_data, subset, run),
        "own_grid": _plain(scores.own_grid[names[0]]),
        "network_size": _plain(scores.network_size[names[0]]),
        "classes": {
            name: {
                "own_grid": _plain(scores.own_grid[name]),
                "network_size": _plain(scores.network_size[name]),
            }
            for name in names[1:]
        },
        "training": {k: run.record[k] for k in ("command", "date", "device", "versions", "config")},
        **provenance(command),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_rows(folder / "slices.csv", part, scores)
        examples, classes = _examples(part, scores, names[0]), dataset.targets or names
        example_grid(examples, folder / "examples.png", _caption(report), classes)
        replace_text(folder / "metrics.json", json.dumps(report, indent=1))
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror})") from error
    return report


def _predict(run: Run, dataset: SliceDataset, indices: Sequence[int], batch_size: int) -> _Scores:
    network = dataset.network
    images = Packed(*(array[np.asarray(indices)] for array in network.images))
    maps = run.predict_network(images, batch_size)
    slices = [dataset.slices[i] for i in indices]
    truths = [dataset.target_ids(item.mask) for item in slices]
    predictions = [
        np.asarray(decide(on_grid(scores, *item.mask.shape), THRESHOLD))
        for scores, item in zip(maps, slices, strict=True)
    ]
    network_predictions = list(np.asarray(decide(maps, THRESHOLD)))
    network_truths = list(dataset.target_ids(network.masks[np.asarray(indices)]))
    return _Scores(
        truths,
        predictions,
        _count(predictions, truths, dataset.targets),
        _count(network_predictions, network_truths, dataset.targets),
    )


def _count(
    predictions: Sequence[UInt8[np.ndarray, "h w"]],
    truths: Sequence[UInt8[np.ndarray, "h w"]],
    targets: tuple[str, ...],
) -> dict[str, Counts]:
    """Counts of each region, an entry a slice."""
    classes = max(1, len(targets))
    rows = [
        [
            confusion_counts(p, t)
            for p, t in zip(regions(a, classes), regions(b, classes), strict=True)
        ]
        for a, b in zip(predictions, truths, strict=True)
    ]
    columns = zip(*rows, strict=True)
    return dict(zip(region_names(targets), map(_stack, columns), strict=True))


def _examples(part: SliceDataset, scores: _Scores, region: str) -> list[Example]:
    return [
        Example(item.id, item.image, truth, prediction, float(value))
        for item, truth, prediction, value in zip(
            part.slices,
            scores.truths,
            scores.predictions,
            dice(scores.own_grid[region]),
            strict=True,
        )
    ]


def _notes(
    part: SliceDataset, split: Split, own_data: bool, subset: SubsetName, run: Run
) -> list[str]:
    notes = list(part.notes)
    if part.lesion_slices_only():
        notes.append(
            "every slice evaluated shows a lesion: false alarms on others are not measured"
        )
    if not own_data:
        notes.append(f"data the run was not trained on ({run.record['data']['layout']})")
        if known := split.trained_on(part):
            notes.append(
                f"{len(known)} of these slices, pixel for pixel, were in the run's training or "
                f"validation part ({some(known)})"
            )
    elif subset in ("train", "all"):
        notes.append("the run was trained on slices in this subset: no test of it")
    return notes


def _stack(counts: Sequence[Counts]) -> Counts:
    return Counts(*(np.asarray(part) for part in zip(*counts, strict=True)))


def _plain(counts: Counts) -> dict[str, dict[str, float | int | None]]:
    """Summaries as JSON can hold them: null for NaN."""
    return {
        name: {k: None if math.isnan(v) else v for k, v in summary._asdict().items()}
        for name, summary in summarize(counts).items()
    }


def _write_rows(path: Path, part: SliceDataset, scores: _Scores) -> None:
    lesion, *classes = scores.own_grid
    counts = scores.own_grid[lesion]
    values = {name: metric(counts) for name, metric in METRICS.items()}
    values["dice_at_network_size"] = dice(scores.network_size[lesion])
    values |= {f"dice_{name}": dice(scores.own_grid[name]) for name in classes}
    with replacing(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            (
                *("slice", "source", "patient", "height", "width"),
                *("lesion_pixels", "predicted_pixels", *Counts._fields),
                *values,
            )
        )
        for i, item in enumerate(part.slices):
            tp, fp, fn, tn = (int(c[i]) for c in counts)
            writer.writerow(
                (
                    *(item.id, item.source, item.patient or "unknown", *item.mask.shape),
                    *(tp + fn, tp + fp, tp, fp, fn, tn),
                    *(f"{column[i]:.6f}" for column in values.values()),
                )
            )


def _caption(report: dict[str, Any]) -> str:
    synthetic = "Synthetic phantom. " if "synthetic phantom" in " ".join(report["notes"]) else ""
    mean = report["own_grid"]["dice"]["mean"]
    leaky = " The paper's leaky split." if report["split"]["policy"] == "paper" else ""
    return (
        f"{synthetic}{report['slices']} {report['subset']} slices, mean Dice {mean:.3f} "
        f"at threshold {report['threshold']}.{leaky} Research use only."
    )
