"""Plots: of a training; over slices, Dice against area, lesions by size, thresholds, runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from covid_jax.metrics.calibration import Calibration
from covid_jax.metrics.confusion import THRESHOLDS
from covid_jax.reporting.drawing import FALSE_ALARM, HIT, MISS
from covid_jax.reporting.figures import COLUMN, PAGE, label_axis, new_figure, save_figure

Values = Float[np.ndarray, " n"]  # one for each slice, or for each threshold
DRAWN = ("train_loss", "val_loss", "val_dice", "learning_rate")  # numbers of an epoch


def draw_curves(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Writes losses, validation Dice and learning rate against epochs.

    Args:
      rows: of metrics.jsonl, one for each epoch.
      path: of the figure.
      title: of the figure.
    """
    epochs = [row["epoch"] for row in rows]
    best = min(rows, key=lambda row: row["val_loss"])["epoch"]
    figure = new_figure(7.2, 2.6)
    figure.suptitle(title, fontsize=9)
    loss, dice, rate = figure.subplots(1, 3)
    for axis, name, colour, label in (
        (loss, "train_loss", MISS, "training (augmented)"),
        (loss, "val_loss", HIT, "validation"),
        (dice, "val_dice", HIT, None),
        (rate, "learning_rate", "black", None),
    ):
        marker = "o" if len(rows) == 1 else None  # one epoch draws no line
        axis.plot(epochs, [row[name] for row in rows], color=colour, label=label, marker=marker)
    loss.legend(fontsize=7, frameon=False)
    for axis in (loss, dice):
        axis.axvline(best, color="grey", linewidth=0.8, linestyle=":")
    rate.set_yscale("log")
    label_axis(loss, "loss", "epoch", "")
    label_axis(dice, f"validation Dice (best epoch {best})", "epoch", "")
    label_axis(rate, "learning rate", "epoch", "")
    save_figure(figure, path)


def area_figure(areas: Values, dices: Values, lesions: Mapping[str, Any], unit: str) -> Figure:
    """Plots the Dice of each slice against its lesion's area, and single lesions by size.

    Args:
      areas: lesion area of each slice; slices without lesion are left out.
      dices: of these slices.
      lesions: the bins of metrics.json's ``lesions``.
      unit: of the areas.
    """
    figure = new_figure(PAGE, 2.8)
    left, right = figure.subplots(1, 2)
    shown = areas > 0
    left.semilogx(areas[shown], dices[shown], ".", color=HIT, markersize=5, alpha=0.7)
    if shown.sum() >= 8:  # at least two slices in each quarter
        for part in np.array_split(np.argsort(areas[shown]), 4):
            x, y = areas[shown][part], dices[shown][part]
            left.plot([x.min(), x.max()], [np.median(y)] * 2, color="black", linewidth=1.5)
        left.plot([], [], color="black", label="median of a quarter of the slices")
        left.legend(fontsize=7, frameon=False, loc="lower right")
    left.set_ylim(-0.02, 1.02)
    left.xaxis.set_minor_formatter(NullFormatter())
    label_axis(left, "each slice", f"lesion area in the slice ({_unit(unit)})", "Dice")
    bins = lesions["bins"]
    x = np.arange(len(bins))
    detected = [part["detected"] for part in bins]
    right.bar(x, detected, color=HIT, label="found")
    right.bar(x, [part["missed"] for part in bins], bottom=detected, color=MISS, label="missed")
    right.bar(x, [-part["false"] for part in bins], color=FALSE_ALARM, label="false")
    right.axhline(0, color="black", linewidth=0.8)
    right.use_sticky_edges = False
    right.margins(y=0.12)
    right.set_xticks(x, [_range(part) for part in bins])
    right.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    right.legend(fontsize=7, frameon=False)
    label_axis(right, "each lesion", f"its area ({_unit(lesions['unit'])})", "lesions")
    return figure


def sweep_figure(curves: Mapping[str, Values], marks: Mapping[str, float]) -> Figure:
    """Plots the mean Dice at every threshold.

    Args:
      curves: by the name of a set of slices, their mean Dice at each of ``THRESHOLDS``.
      marks: thresholds to be marked, by name.
    """
    figure = new_figure(COLUMN, 2.6)
    axis = figure.subplots()
    for (name, curve), style in zip(curves.items(), ("-", "--", ":"), strict=False):
        axis.plot(THRESHOLDS, curve, style, color=HIT, label=name)
    for (name, at), colour in zip(marks.items(), (MISS, FALSE_ALARM), strict=False):
        axis.axvline(at, color=colour, linewidth=1, label=f"{name}: {at:g}")
    axis.set_ylim(0, 1)
    axis.legend(fontsize=7, frameon=False)
    label_axis(axis, "", "threshold", "mean Dice")
    return figure


def reliability_figure(total: Calibration) -> Figure:
    """Plots lesion frequency and number of pixels against the predicted probability."""
    figure = new_figure(COLUMN, 3.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":", label="calibrated")
    upper.plot(total.confidence, total.frequency, "o-", color=HIT, markersize=4, label="found")
    upper.set_ylim(-0.02, 1.02)
    upper.legend(fontsize=7, frameon=False)
    label_axis(upper, f"ECE {total.ece:.4f}, Brier {total.brier:.4f}", "", "share of lesion")
    bins = total.pixels.size
    lower.bar((np.arange(bins) + 0.5) / bins, total.pixels, 0.9 / bins, color=MISS)
    lower.set_yscale("log")
    label_axis(lower, "", "predicted probability", "pixels")
    return figure


def scatter_figure(names: Sequence[str], columns: Sequence[Values], metric: str) -> Figure:
    """Plots the values of each run against those of the first run, one point for each slice."""
    others = len(columns) - 1
    figure = new_figure(min(PAGE, 3.2 * others + 0.3), 3.2 if others < 3 else 2.6)
    axes = np.atleast_1d(figure.subplots(1, others))
    for axis, name, values in zip(axes, names[1:], columns[1:], strict=True):
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
        axis.plot(columns[0], values, ".", color=HIT, markersize=5, alpha=0.7)
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        label_axis(axis, "", f"{metric}, {names[0]}", f"{metric}, {name}")
    return figure


def _unit(unit: str) -> str:
    return {"mm2": "mm\N{SUPERSCRIPT TWO}", "px": "pixels"}[unit]


def _range(part: Mapping[str, Any]) -> str:
    low, high = part["low"], part["high"]
    if high is None:
        return f"from {low:g}"
    return f"{low:g}\N{EN DASH}{high:g}" if low else f"under {high:g}"
