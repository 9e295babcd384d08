"""Cost against what drives it: the power that fits, the tables and the plot of ``scaling.py``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments.markdown_table import table
from benchmarks.speed.timing import spread
from covid_jax.reporting.drawing import FALSE_ALARM, HIT, MISS
from covid_jax.reporting.figures import new_figure, save_figure

Samples = Mapping[str, Mapping[int, Sequence[float]]]


def growth(
    against: str, samples: Samples, slices: Mapping[int, int], expected: int = 1, note: str = ""
) -> dict[str, Any]:
    """Seconds against a driver of cost, and the power of it that fits their medians best.

    Args:
      against: the driver.
      samples: of each series, at each of the driver's values: seconds.
      slices: worked on at each value.
      expected: power; 1 is cost in proportion.
      note: for the reader of the numbers.
    """
    series: dict[str, Any] = {}
    for name, of in samples.items():
        rows = [{"at": at, "slices": slices[at], **spread(seconds)} for at, seconds in of.items()]
        rows = [row | {"seconds_a_slice": row["median"] / row["slices"]} for row in rows]
        series[name] = {"rows": rows}
        if len(rows) > 1:
            at, median = (np.log([row[key] for row in rows]) for key in ("at", "median"))
            series[name]["exponent"] = float(np.polyfit(at, median, 1)[0])
    return {"against": against, "expected_exponent": expected, "note": note, "series": series}


def markdown(measured: Mapping[str, Any]) -> str:
    """A table for each part."""
    texts = []
    for name, part in measured.items():
        made = _volume_table(part) if "stages" in part else _growth_table(part)
        note = [f"\n{part['note'][0].upper()}{part['note'][1:]}."] if part["note"] else []
        texts.append("\n".join([f"## {name}\n", made, *note]) + "\n")
    return "\n".join(texts)


def _growth_table(part: Mapping[str, Any]) -> str:
    rows = []
    for name, series in part["series"].items():
        exponent = series.get("exponent")
        fit = "" if exponent is None else f"{exponent:.2f} ({part['expected_exponent']})"
        for row in series["rows"]:
            each = f"{1000 * row['seconds_a_slice']:.2f}"
            rows.append([name, str(row["at"]), _seconds(row, 4), each, fit])
    against = part["against"]
    columns = ["what", against, "s (median, 5-95 %)", "ms a slice", "exponent (expected)"]
    return table(columns, rows)


def _volume_table(part: Mapping[str, Any]) -> str:
    found = [(name, stage, stage["share_of_sum"]) for name, stage in part["stages"].items()]
    found.append(("the whole", part["whole"], part["whole_over_sum"]))
    rows = [
        [name, _seconds(row, 3), f"{1000 * row['median'] / part['slices']:.2f}", f"{share:.0%}"]
        for name, row, share in found
    ]
    what = f"{part['slices']} slices of {part['size']} x {part['size']}"
    return table([what, "s (median, 5-95 %)", "ms a slice", "of the stages' sum"], rows)


def _seconds(row: Mapping[str, float], places: int) -> str:
    median, low, high = (f"{row[key]:.{places}f}" for key in ("median", "p5", "p95"))
    return f"{median} ({low} to {high})"


def plot(measured: Mapping[str, Any], path: Path) -> None:
    """A panel for each part: seconds on logarithmic axes, or the stages' bars."""
    rows = -(-len(measured) // 2)
    figure = new_figure(7.2, 2.8 * rows)
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for axis in axes[len(measured) :]:
        axis.set_axis_off()
    for axis, (name, part) in zip(axes, measured.items(), strict=False):
        axis.set_title(name, fontsize=8)
        (_bars if "stages" in part else _lines)(axis, part)
        axis.tick_params(which="both", labelsize=7)
    save_figure(figure, path)


def _lines(axis: Any, part: Mapping[str, Any]) -> None:
    for (name, series), colour in zip(part["series"].items(), (HIT, MISS), strict=False):
        at = np.array([row["at"] for row in series["rows"]], float)
        median, low, high = (
            np.array([row[key] for row in series["rows"]]) for key in ("median", "p5", "p95")
        )
        errors = np.maximum([median - low, high - median], 0)
        axis.errorbar(at, median, errors, color=colour, marker="o", markersize=3, label=name)
        line = median[0] * (at / at[0]) ** part["expected_exponent"]
        axis.plot(at, line, color=FALSE_ALARM, linewidth=1, linestyle="--")
    axis.plot([], [], "--", color=FALSE_ALARM, label=f"slope {part['expected_exponent']}")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    values = [row["at"] for row in next(iter(part["series"].values()))["rows"]]
    axis.set_xticks(values, [str(value) for value in values])
    axis.set_xticks([], minor=True)
    axis.set_xlabel(part["against"], fontsize=8)
    axis.set_ylabel("seconds", fontsize=8)
    axis.legend(fontsize=7, frameon=False)


def _bars(axis: Any, part: Mapping[str, Any]) -> None:
    rows = {**part["stages"], "the whole": part["whole"]}
    places = np.arange(len(rows))
    colours = [MISS] * len(part["stages"]) + [HIT]
    axis.barh(places, [row["median"] for row in rows.values()], color=colours)
    axis.set_yticks(places, list(rows))
    axis.invert_yaxis()
    axis.set_xlabel(f"seconds, {part['slices']} slices of {part['size']} pixels a side", fontsize=8)
