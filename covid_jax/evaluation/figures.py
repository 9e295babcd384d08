"""Pictures of predictions, drawn without a display."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

# Okabe and Ito's palette: told apart under every common colour blindness, and on grey.
HIT = (0.00, 0.62, 0.45)  # bluish green
FALSE_ALARM = (0.90, 0.62, 0.00)  # orange
MISS = (0.34, 0.71, 0.91)  # sky blue
MASK = (0.80, 0.47, 0.65)  # reddish purple
LUNG_WINDOW = (-1350.0, 150.0)  # HU: level -600, width 1500


class Example(NamedTuple):
    """One judged slice, all arrays on its own grid."""

    id: str
    image: Num[np.ndarray, "h w"]
    truth: Bool[np.ndarray, "h w"]
    prediction: Bool[np.ndarray, "h w"]
    dice: float


def example_grid(examples: Sequence[Example], path: Path, caption: str) -> None:
    """Writes slice, truth, prediction and overlay of the best, typical and worst slices.

    The columns follow Fig. 6 of Zhou, Canu, Ruan 2020; the overlay tells true positives, false
    positives and false negatives apart. Typical ones stand at the quartiles of Dice.

    Args:
      examples: all judged slices; up to seven are shown.
      path: of the PNG.
      caption: one sentence under the figure.
    """
    rows = choose(examples)
    figure = Figure(figsize=(7.2, 1.85 * len(rows) + 0.7), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for column, title in enumerate(("slice", "truth", "prediction", "overlay")):
        axes[0][column].set_title(title, fontsize=9)
    for axis_row, (label, example) in zip(axes, rows, strict=True):
        grey = to_grey(example.image)
        panels = (
            grey,
            _painted(grey, [(example.truth, MASK)]),
            _painted(grey, [(example.prediction, MASK)]),
            overlay(grey, example.truth, example.prediction),
        )
        for axis, panel in zip(axis_row, panels, strict=True):
            axis.imshow(panel, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        axis_row[0].set_ylabel(f"{label}\n{example.id}\nDice {example.dice:.3f}", fontsize=8)
    legend = [
        Patch(color=MASK, label="mask"),
        Patch(color=HIT, label="found (TP)"),
        Patch(color=FALSE_ALARM, label="false alarm (FP)"),
        Patch(color=MISS, label="missed (FN)"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(caption, fontsize=8)
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, format="png")
    partial.replace(path)


def choose(examples: Sequence[Example]) -> list[tuple[str, Example]]:
    """The two best, the three at the quartiles, the two worst by Dice; none twice."""
    ranked = sorted(examples, key=lambda example: -example.dice)
    last = len(ranked) - 1
    places = [
        ("best", 0),
        ("2nd best", 1),
        ("upper quartile", round(0.25 * last)),
        ("median", round(0.5 * last)),
        ("lower quartile", round(0.75 * last)),
        ("2nd worst", last - 1),
        ("worst", last),
    ]
    chosen: dict[int, str] = {}
    for label, place in places:
        if 0 <= place <= last:
            chosen.setdefault(place, label)
    return [(label, ranked[place]) for place, label in sorted(chosen.items())]


def to_grey(image: Num[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Intensities for the eye: HU through a lung window, anything else by its own range."""
    values = np.asarray(image, float)
    low, high = LUNG_WINDOW if values.min() < -300 else (values.min(), values.max())
    return (np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)


def overlay(
    grey: UInt8[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "h w"],
    prediction: Bool[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """The slice with found, falsely marked and missed pixels in three colours."""
    regions = [
        (truth & prediction, HIT),
        (prediction & ~truth, FALSE_ALARM),
        (truth & ~prediction, MISS),
    ]
    return _painted(grey, regions)


def _painted(
    grey: UInt8[np.ndarray, "h w"], regions: list[tuple[Bool[np.ndarray, "h w"], tuple[float, ...]]]
) -> UInt8[np.ndarray, "h w 3"]:
    picture: Float[np.ndarray, "h w 3"] = np.repeat(grey[..., None] / 255.0, 3, axis=-1)
    for region, colour in regions:
        picture[region] = 0.35 * picture[region] + 0.65 * np.asarray(colour)
    return (picture * 255).astype(np.uint8)
