"""The paper's Table 1: its rows, its claims, lesion sizes, and what its split flatters."""

from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.experiments.ablation import METRICS, PAPER, ROWS, folder_of
from benchmarks.experiments.markdown_table import table
from benchmarks.experiments.results_store import SOURCES, Slices, runs_of, scored, slices_of
from benchmarks.experiments.table_format import DIFFERENCE, difference, mean, with_interval

FOLDERS = {folder_of(Path(), row).name: row for row in ROWS}


def _table1_slices() -> dict[str, Slices]:
    found = {
        row: slices_of(scored(run) for run in runs_of("history/table1", f"/{folder}/"))
        for folder, row in FOLDERS.items()
    }
    if len({tuple(one.ids) for one in found.values()}) > 1:
        raise ValueError("table1.json: not all rows are of the same slices")
    return found


def by_patient() -> str:
    """The paper's Table 1 by patients, beside the paper's figures."""
    rows = []
    for row, found in _table1_slices().items():
        cells = [with_interval(found.values[metric], found.groups) for metric in METRICS]
        cells += [mean(found.of(source).values["dice"]) for source in SOURCES]
        theirs = [f"{value / 100:.3f}" for value in PAPER[row]]
        rows.append([row, str(len(found.ids)), *cells, *theirs])
    columns = ["", "slices", "Dice", "Sens", "Spec", *(f"Dice, {source}" for source in SOURCES)]
    return table([*columns, "paper: Dice", "Sens", "Spec"], rows)


CLAIMS = (
    ("FTL raises sensitivity", "sensitivity", "baseline + DL", "baseline + FTL"),
    ("FTL raises sensitivity", "sensitivity", "ours + DL", "ours + FTL"),
    ("attention raises Dice", "dice", "baseline + DL", "ours + DL"),
    ("attention raises Dice", "dice", "baseline + FTL", "ours + FTL"),
    ("both together are best", "dice", "baseline + DL", "ours + FTL"),
    ("both together are best", "dice", "baseline + FTL", "ours + FTL"),
    ("both together are best", "dice", "ours + DL", "ours + FTL"),
)


def claims() -> str:
    """The paper's claims as differences on the same slices, for each source by itself."""
    found = _table1_slices()
    rows = []
    for claim, metric, first, second in CLAIMS:
        for source in SOURCES:
            cells = difference(found[first].of(source), found[second].of(source), metric)
            rows.append([claim, f"{metric}: {second} less {first}", source, *cells])
    return table(["claim", "difference of", "slices of", *DIFFERENCE], rows)


def sizes() -> str:
    """Whether small lesions gain most: the gain in each third of the slices by lesion share."""
    found = _table1_slices()
    rows = []
    for source in SOURCES:
        first, second = (found[row].of(source) for row in ("baseline + DL", "ours + FTL"))
        low, high = np.quantile(first.share, [1 / 3, 2 / 3])
        thirds = {
            f"smallest, under {low:.1%} of the slice": first.share < low,
            "middle": (first.share >= low) & (first.share < high),
            f"largest, over {high:.1%}": first.share >= high,
        }
        for name, chosen in thirds.items():
            parts = [one.part(chosen) for one in (first, second)]
            means = [mean(part.values["dice"]) for part in parts]
            rows.append([source, name, *means, *difference(*parts, "dice")])
        smallest, _, largest = thirds.values()
        gain = second.values["dice"] - first.values["dice"]
        gap, low_gap, high_gap = gap_of_means(gain, smallest, largest, first.groups)
        name = f"gain of the smallest less the largest's: {gap:+.3f} "
        rows.append([source, name + f"({low_gap:+.3f} to {high_gap:+.3f})"])
        rows[-1] += [""] * (len(rows[-2]) - 2)
    return table(["slices of", "lesion", "baseline + DL", "ours + FTL", *DIFFERENCE], rows)


def gap_of_means(
    values: np.ndarray, one: np.ndarray, other: np.ndarray, groups: Sequence[Hashable]
) -> tuple[float, float, float]:
    """Mean of some slices less that of others, and its 95 % bootstrap interval.

    Each resample draws whole groups, and divides either's sum by its own count. Resamples without
    any slice of one of the two are left out.

    Args:
      values: of all slices.
      one: which slices, as booleans.
      other: the same.
      groups: of all slices.
    """
    members = np.array([[g == group for g in groups] for group in sorted(set(groups), key=str)])
    parts = np.stack([one * values, one, other * values, other]).astype(float)
    by_group = parts @ members.T  # (4, groups): sums and counts
    count = len(members)
    draws = np.random.default_rng(0).integers(count, size=(10_000, count))
    sums = by_group[:, draws].sum(-1)
    sums = sums[:, (sums[1] > 0) & (sums[3] > 0)]
    low, high = np.percentile(sums[0] / sums[1] - sums[2] / sums[3], [2.5, 97.5])
    return float(values[one].mean() - values[other].mean()), float(low), float(high)


def slice_split() -> str:
    """Ours + FTL under the paper's slice split and by patients, on the same slices."""
    patients = _table1_slices()["ours + FTL"]
    by_slice = slices_of(scored(run) for run in runs_of("history/slice_split"))
    rows = []
    for source in SOURCES:
        one, other = patients.of(source), by_slice.of(source)
        for metric in METRICS:
            means = [mean(found.values[metric]) for found in (one, other)]
            rows.append([source, metric, *means, *difference(one, other, metric)])
    return table(["slices of", "metric", "by patient", "the paper's split", *DIFFERENCE], rows)
