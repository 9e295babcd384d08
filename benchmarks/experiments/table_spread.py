"""How far results carry and how far they move: other data, open readings, repetition."""

import statistics
from collections.abc import Sequence

import numpy as np

from benchmarks.experiments.ablation import METRICS
from benchmarks.experiments.markdown_table import table
from benchmarks.experiments.results_store import (
    SOURCES,
    Evaluation,
    Run,
    runs_of,
    scored,
    slices_of,
)
from benchmarks.experiments.table_ablation import FOLDERS
from benchmarks.experiments.table_format import mean_sd, with_interval

DEFAULT = "encoder and decoder, as in the paper's figure"
READINGS = {  # where scSE sits: file and part of the runs' folders
    DEFAULT: ("history/table1", "/ours-ftl/"),
    "none": ("history/table1", "/baseline-ftl/"),
}
PLACEMENTS = {
    DEFAULT: ("ablation_semiseg", "/ours-ftl/"),
    "on the skips alone": ("history/readings", "/skip/"),
}
AGAIN = {  # part of the runs' folders in repeat.json
    "the same command once more": "/again/",
    "two threads instead of one": "/two-threads/",
    "another version of jax": "/jax/",
    "bfloat16 instead of float32": "/bfloat16/",
}


def across() -> str:
    """One run each: trained on one source, tested on its own test part and all of the other."""
    rows = []
    for trained, other in (SOURCES, SOURCES[::-1]):
        (run,) = (run for run in runs_of("history/across") if _source(run) == trained)
        turned = f"{other}, turned"
        names = {"test": trained, "all": other}
        for way in sorted(
            run["evaluations"], key=lambda way: (way["subset"] == "all", _turned(way))
        ):
            found = slices_of([way])
            cells = [with_interval(found.values[metric], found.groups) for metric in METRICS]
            counts = f"{len(found.ids)} / {len(set(found.groups))}"
            rows.append([trained, turned if _turned(way) else names[way["subset"]], counts, *cells])
    return table(["trained on", "tested on", "slices / groups", "Dice", "Sens", "Spec"], rows)


def _turned(evaluation: Evaluation) -> bool:
    """Whether it is of a copy that ``turned.py`` made."""
    return "--data turned/" in evaluation["command"]


def _source(run: Run) -> str:
    (source,) = set(scored(run)["slices"]["source"])
    return source


def ablation_seeds() -> str:
    """The four rows on COVID-SemiSeg's published split, mean and deviation over seeds."""
    rows = []
    for folder, row in FOLDERS.items():
        runs = runs_of("ablation_semiseg", f"/{folder}/")
        ways = [scored(run) for run in runs]
        cells = [mean_sd([way["own_grid"][metric] for way in ways]) for metric in METRICS]
        dice = [f"{way['own_grid']['dice']:.3f}" for way in ways]
        rows.append([row, str(len(runs)), *cells, ", ".join(dice)])
    return table(["", "runs", "Dice", "Sens", "Spec", "Dice of each seed"], rows)


def readings() -> str:
    """Validation Dice of each fold's best epoch, and how it differs from the default's there."""
    found = {name: _validated(file, part) for name, (file, part) in READINGS.items()}
    usual = found[DEFAULT]
    rows = []
    for name, folds in found.items():
        gains = [folds[split] - usual[split] for split in folds]
        change = [f"{statistics.fmean(gains):+.3f}", f"{sum(gain > 0 for gain in gains)}"]
        cells = [f"{folds[split]:.3f}" if split in folds else "" for split in usual]
        rows.append([name, *cells, *(["", ""] if name == DEFAULT else change)])
    places = [f"fold {place}" for place in range(1, len(usual) + 1)]
    return table(["scSE", *places, "less the default", "folds above it"], rows)


def placement() -> str:
    """Validation Dice of each seed's best epoch on COVID-SemiSeg, by where scSE sits."""
    rows = []
    for name, (file, part) in PLACEMENTS.items():
        runs = sorted(runs_of(file, part), key=lambda run: run["config"]["seed"])
        found = [run["best"]["val_dice"] for run in runs]
        rows.append([name, *(f"{value:.3f}" for value in found), mean_sd(found)])
    seeds = [f"seed {place}" for place in range(len(found))]
    return table(["scSE", *seeds, "mean"], rows)


def _validated(file: str, part: str) -> dict[str, float]:
    """By split, in the order of the folds."""
    runs = sorted(runs_of(file, part), key=lambda run: run["config"]["data"]["fold"])
    return {run["split"]["sha256"]: run["best"]["val_dice"] for run in runs}


def repeat() -> str:
    """How far test Dice moves for reasons that are not the method."""
    usual = {run["config"]["seed"]: run for run in runs_of("ablation_semiseg", "/ours-ftl/")}
    rows = []
    for change, part in AGAIN.items():
        pairs = [(usual[run["config"]["seed"]], run) for run in runs_of("repeat", part)]
        rows.append([change + _versions(*pairs[0]), *_moved(pairs)])
    seeds = sorted(usual)
    pairs = [(usual[a], usual[b]) for a in seeds for b in seeds if a < b]
    rows.append(["another seed", *_moved(pairs)])
    columns = ["what differs", "pairs of runs", "mean change, without sign", "largest of them"]
    return table([*columns, "largest, of one slice"], rows)


def _versions(before: Run, after: Run) -> str:
    """Those that differ, to be written after what was changed on purpose."""
    found = [
        f"{name} {after['versions'][name]} for {version}"
        for name, version in before["versions"].items()
        if after["versions"].get(name) != version
    ]
    return f" ({', '.join(found)})" if found else ""


def _moved(pairs: Sequence[tuple[Run, Run]]) -> list[str]:
    """Of test Dice, between each pair: of the mean over slices, and of single slices."""
    changes = []
    for pair in pairs:
        first, second = (slices_of([scored(run)]) for run in pair)
        if first.ids != second.ids:
            raise ValueError("not the same slices")
        changes.append(second.values["dice"] - first.values["dice"])
    means = np.abs([change.mean() for change in changes])
    return [
        str(len(pairs)),
        f"{means.mean():.4f}",
        f"{means.max():.4f}",
        f"{max(np.abs(change).max() for change in changes):.4f}",
    ]
