"""RESULTS.md's tables, made of the JSON files in ``results/`` and of nothing else.

    python benchmarks/tables.py            writes them into RESULTS.md
    python benchmarks/tables.py --check    exit status 1 if RESULTS.md says anything else

A table stands between ``<!-- table: name -->`` and ``<!-- end -->``; the text around is a person's.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ablation import METRICS, PAPER, ROWS, folder_of
from covid_jax.metrics.bootstrap import bootstrap_interval, compare_paired

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "RESULTS.md"
FOLDERS = {folder_of(Path(), row).name: row for row in ROWS}
SOURCES = ("COVID-SemiSeg", "Dataset-2")
# COVID-SemiSeg, 48 test slices, from the curves released with Inf-Net (Fan et al., TMI 2020): mean
# over 256 thresholds of Dice, sensitivity, specificity, MAE; the same without MAE at 128/255.
PUBLISHED = {
    "U-Net": ((0.439, 0.534, 0.858, 0.186), (0.541, 0.534, 0.929)),
    "U-Net++": ((0.581, 0.672, 0.902, 0.120), (0.706, 0.730, 0.940)),
    "Inf-Net (ImageNet weights)": ((0.682, 0.692, 0.943, 0.082), (0.738, 0.718, 0.963)),
    "Semi-Inf-Net (and 1,600 pseudo-labelled slices)": (
        (0.739, 0.725, 0.960, 0.064),
        (0.770, 0.745, 0.969),
    ),
}
DIFFERENCE = ["difference", "95 % interval", "p", "slices / groups"]
Run = dict[str, Any]
Evaluation = dict[str, Any]


def runs_of(name: str, part: str = "") -> list[Run]:
    """Runs of a JSON file; those whose folder holds the part.

    Raises:
      ValueError: if there are none.
    """
    runs = json.loads((RESULTS / f"{name}.json").read_text())["runs"]
    found = [run for run in runs if part in run["run"]]
    if not found:
        raise ValueError(f"{name}.json: no run of {part or 'any kind'}")
    return found


def scored(run: Run, subset: str = "test", *, tta: bool = False, val: bool = False) -> Evaluation:
    """A run's evaluation: with flips or without, at one half or the validation's threshold."""
    (found,) = (
        one
        for one in run["evaluations"]
        if one["subset"] == subset
        and one["tta"] == tta
        and (one["threshold_from"] != "given") == val
    )
    return found


class Slices(NamedTuple):
    """Slices tested by some runs: a metric's mean over the runs for each, and what they are.

    Attributes:
      ids, sources: of each.
      groups: its patient; where that is unknown it is its own.
      share: of its pixels that are lesion.
      values: a column for each metric.
    """

    ids: list[str]
    sources: list[str]
    groups: list[Hashable]
    share: np.ndarray
    values: dict[str, np.ndarray]

    def part(self, chosen: np.ndarray) -> "Slices":
        """Those chosen by a boolean for each."""
        keep = np.flatnonzero(chosen)
        return Slices(
            [self.ids[i] for i in keep],
            [self.sources[i] for i in keep],
            [self.groups[i] for i in keep],
            self.share[keep],
            {name: column[keep] for name, column in self.values.items()},
        )

    def of(self, source: str) -> "Slices":
        """Those of one source."""
        return self.part(np.array([one == source for one in self.sources]))


def slices_of(evaluations: Iterable[Evaluation]) -> Slices:
    """All slices of some evaluations of different slices, sorted by name.

    Raises:
      ValueError: if a slice is in two of them.
    """
    found: dict[str, dict[str, Any]] = {}
    for evaluation in evaluations:
        columns = evaluation["slices"]
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            if row["slice"] in found:
                raise ValueError(f"{row['slice']}: tested twice")
            found[row["slice"]] = row
    rows = [found[name] for name in sorted(found)]
    return Slices(
        [row["slice"] for row in rows],
        [row["source"] for row in rows],
        [row["slice"] if row["patient"] == "unknown" else row["patient"] for row in rows],
        np.array([row["lesion_pixels"] / (row["height"] * row["width"]) for row in rows]),
        {metric: np.array([_nan(row[metric]) for row in rows]) for metric in METRICS},
    )


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def mean(values: np.ndarray) -> str:
    """Over the slices where it is defined."""
    return f"{np.nanmean(values):.3f}"


def with_interval(values: np.ndarray, groups: Sequence[Hashable]) -> str:
    """A mean and its 95 % bootstrap interval over groups; none where they are too few."""
    interval = bootstrap_interval(values, groups)
    return mean(values) + (f" ({interval.low:.3f} to {interval.high:.3f})" if interval else "")


def difference(first: Slices, second: Slices, metric: str) -> list[str]:
    """Mean difference second - first on the same slices, its interval, Wilcoxon's p, the groups.

    Raises:
      ValueError: if they are not the same slices.
    """
    if first.ids != second.ids:
        raise ValueError("not the same slices")
    found = compare_paired(first.values[metric], second.values[metric], first.groups)
    interval = found.interval
    return [
        f"{found.difference:+.3f}",
        f"{interval.low:+.3f} to {interval.high:+.3f}" if interval else "",
        "" if found.p_value is None else f"{found.p_value:.2g}",
        f"{found.slices} / {found.groups}",
    ]


def mean_sd(values: Sequence[float]) -> str:
    """Over runs."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def semiseg_table(name: str) -> str:
    """Published rows and ours, both protocols, mean and standard deviation over seeds."""
    rows = []
    for method, (over_all, at_half) in PUBLISHED.items():
        cells = [f"{value:.3f}" for value in (*at_half, *over_all)]
        rows.append([method, "1", *cells])
    runs = runs_of(name)
    for tta, val in ((False, False), (False, True), (True, False), (True, True)):
        ways = [scored(run, tta=tta, val=val) for run in runs]
        cells = [mean_sd([way["own_grid"][metric] for way in ways]) for metric in METRICS]
        protocol = [way["protocols"]["covid-semiseg"] for way in ways]
        cells += [mean_sd([one[m] for one in protocol]) for m in (*METRICS, "mae")]
        at = "validation's threshold" if val else "threshold 0.5"
        rows.append([f"ours + FTL, {at}{', flips' * tta}", str(len(runs)), *cells])
    columns = ["", "runs", "Dice", "Sens", "Spec", "Dice (256)", "Sens (256)", "Spec (256)", "MAE"]
    return table(columns, rows)


def semiseg_runs(name: str) -> str:
    """Each run: validation, test, near-duplicates apart."""
    rows = []
    for run in runs_of(name):
        plain, flipped = scored(run), scored(run, tta=True, val=True)
        tests = slices_of([plain])
        near = np.array([one in run["split"]["near_training"] for one in tests.ids])
        rows.append(
            [
                f"`{run['run']}`",
                str(run["best"]["epoch"]),
                f"{scored(run, 'val')['own_grid']['dice']:.3f}",
                f"{scored(run, 'val', tta=True)['own_grid']['dice']:.3f}",
                with_interval(tests.values["dice"], tests.groups),
                f"{mean(tests.values['dice'][near])} ({near.sum()})",
                f"{mean(tests.values['dice'][~near])} ({(~near).sum()})",
                f"{flipped['own_grid']['dice']:.3f} at {flipped['threshold']:.3f}",
            ]
        )
    columns = [
        "run",
        "epoch",
        "validation Dice",
        "with flips",
        "test Dice (slices resampled)",
        "near a training slice",
        "the others",
        "flips, validation's threshold",
    ]
    return table(columns, rows)


def _table1_slices() -> dict[str, Slices]:
    found = {
        row: slices_of(scored(run) for run in runs_of("table1", f"/{folder}/"))
        for folder, row in FOLDERS.items()
    }
    if len({tuple(one.ids) for one in found.values()}) > 1:
        raise ValueError("table1.json: not all rows are of the same slices")
    return found


def table1() -> str:
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
        # A third's mean is a mean over all slices, weighted: the difference has an interval too.
        weights = len(first.ids) * (smallest / smallest.sum() - largest / largest.sum())
        more = weights * (second.values["dice"] - first.values["dice"])
        rows.append([source, "gain of the smallest less the largest's: "])
        rows[-1][-1] += with_interval(more, first.groups)
        rows[-1] += [""] * (len(rows[-2]) - 2)
    return table(["slices of", "lesion", "baseline + DL", "ours + FTL", *DIFFERENCE], rows)


def slice_split() -> str:
    """Ours + FTL under the paper's slice split and by patients, on the same slices."""
    patients = _table1_slices()["ours + FTL"]
    by_slice = slices_of(scored(run) for run in runs_of("slice_split"))
    rows = []
    for source in SOURCES:
        one, other = patients.of(source), by_slice.of(source)
        for metric in METRICS:
            means = [mean(found.values[metric]) for found in (one, other)]
            rows.append([source, metric, *means, *difference(one, other, metric)])
    return table(["slices of", "metric", "by patient", "the paper's split", *DIFFERENCE], rows)


TABLES: dict[str, Callable[[], str]] = {
    "semiseg": lambda: semiseg_table("semiseg"),
    "semiseg runs": lambda: semiseg_runs("semiseg"),
    "table 1": table1,
    "claims": claims,
    "sizes": sizes,
    "slice split": slice_split,
}


def rendered(page: str) -> str:
    """The page with every table made anew."""

    def anew(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w ]+) -->\n.*?<!-- end -->", anew, page, flags=re.DOTALL)


def main() -> None:
    """Writes the page, or says whether it is as the figures are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    before = PAGE.read_text()
    after = rendered(before)
    if check:
        sys.exit(before != after)
    PAGE.write_text(after)


if __name__ == "__main__":
    main()
