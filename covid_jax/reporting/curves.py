"""Training curves: losses, validation Dice and learning rate of each epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from covid_jax.reporting.drawing import HIT, MISS, label_axis, new_figure, save_figure

DRAWN = ("train_loss", "val_loss", "val_dice", "learning_rate")  # numbers of an epoch


def draw_curves(rows: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Writes losses, validation Dice and learning rate against epochs.

    Args:
      rows: of metrics.jsonl, one for each epoch.
      path: of the figure.
      title: of the figure.
    """
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(rows) == 1 else None  # one epoch draws no line
    figure = new_figure(7.2, 2.6)
    figure.suptitle(title, fontsize=9)
    loss, dice, rate = figure.subplots(1, 3)
    for name, colour, label in (
        ("train_loss", MISS, "training (augmented)"),
        ("val_loss", HIT, "validation"),
    ):
        loss.plot(epochs, [row[name] for row in rows], color=colour, label=label, marker=marker)
    loss.legend(fontsize=7, frameon=False)
    dice.plot(epochs, [row["val_dice"] for row in rows], color=HIT, marker=marker)
    rate.plot(epochs, [row["learning_rate"] for row in rows], color="black", marker=marker)
    best = min(rows, key=lambda row: row["val_loss"])
    for axis in (loss, dice):
        axis.axvline(best["epoch"], color="grey", linewidth=0.8, linestyle=":")
    rate.set_yscale("log")
    titles = {
        loss: "loss",
        dice: f"validation Dice (best epoch {best['epoch']})",
        rate: "learning rate",
    }
    for axis, name in titles.items():
        label_axis(axis, name, "epoch", "")
    save_figure(figure, path)
