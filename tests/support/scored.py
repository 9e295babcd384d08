"""Slices scored without a network: random lesions, and probability maps that half follow them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from covid_jax.data import Slice, SliceDataset
from covid_jax.evaluation.report import EvaluationReport
from covid_jax.evaluation.slice_scores import SliceScores, score_slice
from covid_jax.evaluation.slice_table import save_masks, write_rows
from covid_jax.evaluation.summary import summarize_slices

PATIENTS = [f"p{i // 3}" for i in range(24)]  # eight of three slices
SIDE = 12  # the network's, and each slice's own unless told otherwise
Spacing = tuple[float, float] | None


def random_slices(
    patients: Sequence[str | None],
    spacings: Sequence[Spacing] | Spacing = None,
    *,
    classes: int = 1,
    targets: tuple[str, ...] = (),
) -> SliceDataset:
    """A slice for each patient named; ids s0, s1, ...; classes are called a, b, ..."""
    rng = np.random.default_rng(7)
    given = spacings if isinstance(spacings, list) else [spacings] * len(patients)
    slices = []
    for number, (patient, spacing) in enumerate(zip(patients, given, strict=True)):
        mask = (rng.random((SIDE, SIDE)) < 0.3) * rng.integers(1, classes + 1, (SIDE, SIDE))
        image = rng.integers(-1000, 300, mask.shape).astype(np.int16)
        mask = mask.astype(np.uint8)
        slices.append(Slice(f"s{number}", "random", patient, None, image, mask, spacing))
    names = tuple("abcdef"[:classes])
    return SliceDataset("random", tuple(slices), SIDE, classes=names, targets=targets)


def maps_for(dataset: SliceDataset, seed: int = 0) -> list[np.ndarray]:
    """What a network of some skill might give: one channel, or the background and each target."""
    rng = np.random.default_rng(seed)
    maps = []
    for item in dataset.slices:
        ids = dataset.target_ids(item.mask)
        if len(dataset.targets) < 2:
            map_ = np.clip(0.4 * ids + rng.random(ids.shape) * 0.6, 0, 1)[..., None]
        else:
            map_ = rng.random((*ids.shape, len(dataset.targets) + 1))
            map_ += 0.6 * (ids[..., None] == np.arange(map_.shape[-1]))
            map_ /= map_.sum(-1, keepdims=True)
        maps.append(map_.astype(np.float32))
    return maps


def score_all(
    dataset: SliceDataset,
    maps: Sequence[np.ndarray] | None = None,
    *,
    threshold: float = 0.5,
    tolerance: float = 1.0,
) -> list[SliceScores]:
    """Each slice, with its map (random ones by default)."""
    masks = dataset.network.masks
    return [
        score_slice(dataset, item, map_, mask, threshold, tolerance)
        for item, map_, mask in zip(dataset.slices, maps or maps_for(dataset), masks, strict=True)
    ]


def report_of(
    dataset: SliceDataset, scores: Sequence[SliceScores], **changes: Any
) -> EvaluationReport:
    """The report of a run that gave these scores."""
    patients = [scored.item.patient for scored in scores]
    fields = {
        **dict.fromkeys(("run", "folder", "data", "command", "date", "device", "processor"), ""),
        **{"epoch": 1, "subset": "test", "slices": len(scores), "image_size": SIDE},
        **{"data_fingerprint": dataset.fingerprint(), "patients": len(set(patients) - {None})},
        **{"threshold": 0.5, "threshold_from": "given", "tolerance": 1.0, "commit": None},
        **{"notes": [], "versions": {}},
        "split": {"policy": "patient", "statement": "by hand", "warnings": []},
        "near_duplicates": None,
        **summarize_slices(scores),
        "training": {"config": {"data": {"classes": list(dataset.targets)}}},
    }
    return EvaluationReport(**(fields | changes))


def by_hand(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The overlap metrics of masks that are neither empty nor full."""
    tp, fp = int((prediction & truth).sum()), int((prediction & ~truth).sum())
    fn, tn = int((~prediction & truth).sum()), int((~prediction & ~truth).sum())
    return {
        "dice": 2 * tp / (2 * tp + fp + fn),
        "iou": tp / (tp + fp + fn),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "precision": tp / (tp + fp),
    }


def keep(run: Path, dataset: SliceDataset, scores: list[SliceScores], subset: str = "test") -> None:
    """What an evaluation leaves of these scores."""
    folder = run / "eval" / subset
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(report_of(dataset, scores, subset=subset).to_json())
    write_rows(folder / "slices.csv", scores)
    save_masks(folder / "masks.npz", scores)


def skilled(dataset: SliceDataset, skill: float) -> list[SliceScores]:
    maps = maps_for(dataset, seed=int(10 * skill))
    masks = [dataset.target_ids(item.mask) > 0 for item in dataset.slices]
    better = [
        (1 - skill) * map_ + np.float32(skill) * mask[..., None]
        for map_, mask in zip(maps, masks, strict=True)
    ]
    return score_all(dataset, [map_.astype(np.float32) for map_ in better])


def values(scores: list[SliceScores], metric: str = "dice") -> np.ndarray:
    return np.array([by_hand(one.prediction > 0, one.truth > 0)[metric] for one in scores])
