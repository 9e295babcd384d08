"""Scores a run on one subset of its data: metrics.json, slices.csv, pictures, a report."""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from covid_jax.data import SliceDataset
from covid_jax.data.statistics import require_hu
from covid_jax.errors import ConfigError, RunError
from covid_jax.evaluation.notes import near_duplicates, near_trained, notes, split_record
from covid_jax.evaluation.slice_scores import HALF, SliceScores, score_slice
from covid_jax.evaluation.slice_table import save_masks, write_rows
from covid_jax.evaluation.summary import (
    dice_by_threshold,
    resampled,
    summarize_calibration,
    summarize_patients,
    summarize_protocols,
    summarize_regions,
)
from covid_jax.files import replace_text
from covid_jax.inference import Run
from covid_jax.metrics.sweep import Best, best_threshold
from covid_jax.reporting.evaluation_report import remove_pages, write_pages
from covid_jax.reporting.example_figures import Example, example_grid
from covid_jax.runs.config import EvalConfig
from covid_jax.runs.provenance import provenance
from covid_jax.splits.policies import Split
from covid_jax.transforms.labels import class_names


def evaluate(
    run: Run,
    dataset: SliceDataset,
    config: EvalConfig | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Predicts a subset's slices, scores them and writes what was found.

    Probabilities are resized linearly to each slice's own grid, then thresholded (several classes:
    the most probable one). The scores at the network's size, as the paper's, stand beside them.
    Every mean is over slices, every pooled value over all pixels; the modules of
    ``covid_jax.metrics`` state what empty masks do. Where classes are told apart, each is scored
    beside the whole lesion.

    Args:
      run: a trained run.
      dataset: opened at the run's image size, with its classes. Another than the run's can only be
        scored whole.
      config: which subset of the run's split, and how it is scored; by default the test part.
      command: the command line, kept in the report.

    Returns:
      What metrics.json holds; ``folder`` in it is where the files are.

    Raises:
      RunError: if the dataset is not the run's and subset is not ``all``, or its image size or
        classes are others, or the report cannot be written.
      ConfigError: if the threshold cannot be chosen on slices that do not test.
    """
    config = config or EvalConfig()
    split, indices = _find(run, dataset, config)
    chosen = _choose_threshold(run, dataset, split, config) if config.threshold == "val" else None
    at = chosen.threshold if chosen else float(config.threshold)
    scores = list(_judged(run, dataset, indices, config, at))
    report = _report(run, dataset, split, config, scores) | {
        "threshold": at,
        "threshold_from": "the validation slices" if chosen else "given",
        "tta": config.tta,
        "tolerance": config.tolerance,
        **provenance(command),
    }
    folder = Path(report["folder"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").unlink(missing_ok=True)  # the last one to be written anew
        write_rows(folder / "slices.csv", scores)
        save_masks(folder / "masks.npz", scores)
        names = dataset.targets or class_names(dataset.targets)
        remove_pages(folder)
        for ending in ("png", "pdf") if config.report else ("png",):
            example_grid(examples(scores), folder / f"examples.{ending}", caption(report), names)
        if config.report:
            near_duplicates = near_trained(split) if _owns(run, dataset) else {}
            write_pages(run, dataset, report, scores, near_duplicates, folder)
        replace_text(folder / "metrics.json", json.dumps(report, indent=1))
    except OSError as error:
        raise RunError(f"{folder}: cannot be written ({error.strerror})") from error
    return report


def _find(run: Run, dataset: SliceDataset, config: EvalConfig) -> tuple[Split, list[int]]:
    """The run's split, and which of the dataset's slices are to be scored."""
    trained = run.config.data
    if (dataset.image_size, dataset.targets) != (trained.image_size, trained.classes):
        raise RunError(
            f"{run.folder}: was trained at {trained.image_size}, classes "
            f"{' '.join(trained.classes) or 'merged'}; open the data so"
        )
    if trained.intensity == "window":
        require_hu(dataset)
    split = Split.load(run.folder / "split.json")
    if not _owns(run, dataset) and config.subset != "all":
        raise RunError(
            f"{run.folder}: was trained on other data, so its {config.subset} subset is unknown "
            "here; --subset all scores every slice"
        )
    return split, split.indices(dataset, config.subset)


def _owns(run: Run, dataset: SliceDataset) -> bool:
    """Whether this is the data that the run was trained on."""
    return dataset.fingerprint() == run.record["data"]["fingerprint"]


def _judged(
    run: Run, dataset: SliceDataset, indices: Sequence[int], config: EvalConfig, threshold: float
) -> Iterator[SliceScores]:
    """A batch predicted, its slices judged, then the next: probability maps do not pile up."""
    network = dataset.network
    size = config.batch_size

    def judged(position: int, scores: Float32[np.ndarray, "s s c"]) -> SliceScores:
        item, mask = dataset.slices[position], network.masks[position]
        return score_slice(dataset, item, scores, mask, threshold, config.tolerance)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(indices), size):
            part = np.asarray(indices[start : start + size])
            maps = run.predict_views(network.images.take(part), size, flips=config.tta).mean(axis=1)
            yield from pool.map(judged, part, maps)


def _choose_threshold(run: Run, dataset: SliceDataset, split: Split, config: EvalConfig) -> Best:
    """Where the validation slices' mean Dice is highest."""
    if len(dataset.targets) > 1:
        raise ConfigError("--threshold val: several classes are told apart without a threshold")
    if not _owns(run, dataset):
        raise ConfigError("--threshold val: this data has no validation slices of the run")
    if split.policy == "paper" or config.subset in ("val", "all"):
        raise ConfigError(
            "--threshold val: the slices to be scored are among those that would choose it"
        )
    chosen = split.indices(dataset, "val")
    scores = list(_judged(run, dataset, chosen, config, HALF))
    return best_threshold(dice_by_threshold(scores))


def _report(
    run: Run, dataset: SliceDataset, split: Split, config: EvalConfig, scores: Sequence[SliceScores]
) -> dict[str, Any]:
    own = _owns(run, dataset)
    part = dataset.select(split.indices(dataset, config.subset))
    patients = [item.patient for item in part.slices]
    (whole, summary), *classes = summarize_regions(scores).items()
    folder = config.subset if own else f"{dataset.fingerprint()}-all"
    folder += "-tta" if config.tta else ""
    flips = ["probabilities are averages over left-right and up-down flips"] * config.tta
    return {
        "run": str(run.folder),
        "folder": str(run.folder / "eval" / folder),
        "epoch": run.epoch,
        "subset": config.subset,
        "data": dataset.layout,
        "data_fingerprint": dataset.fingerprint(),
        "slices": len(scores),
        "patients": len(set(patients) - {None}) or None,
        "image_size": dataset.image_size,
        "split": split_record(split, own),
        "notes": notes(part, split, own, config.subset, run.record["data"]["layout"]) + flips,
        "intervals": resampled(patients).statement,
        **summary,
        "per_patient": summarize_patients(scores, whole),
        "protocols": summarize_protocols(scores, whole),
        "calibration": summarize_calibration(scores),
        "near_duplicates": near_duplicates(scores, split, whole) if own else None,
        "classes": dict(classes),
        "training": {k: run.record[k] for k in ("command", "date", "device", "versions", "config")},
    }


def examples(scores: Sequence[SliceScores]) -> list[Example]:
    """As the pictures take them, with the lesion's Dice on the own grid."""
    return [
        Example(one.item.id, one.item.image, one.truth, one.prediction, one.dice) for one in scores
    ]


def caption(report: dict[str, Any]) -> str:
    """One sentence for under or over a picture of these slices."""
    synthetic = "Synthetic phantom. " if "synthetic phantom" in " ".join(report["notes"]) else ""
    mean = report["own_grid"]["dice"]["mean"]
    leaky = " The paper's leaky split." if report["split"]["policy"] == "paper" else ""
    at = "" if report["classes"] else f" at threshold {report['threshold']:g}"
    at += ", averaged over flips" if report["tta"] else ""
    return (
        f"{synthetic}{report['slices']} {report['subset']} slices, mean Dice {mean:.3f}{at}."
        f"{leaky} Research use only."
    )
