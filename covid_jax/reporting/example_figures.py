"""Slices with truth, prediction and their agreement: the best, typical and worst of a run."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Num, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from covid_jax.reporting.drawing import (
    FALSE_ALARM,
    HIT,
    MISS,
    PAGE,
    Colour,
    class_colour,
    class_regions,
    new_figure,
    painted,
    to_grey,
)

AGREEMENT = [
    Patch(color=HIT, label="found (TP)"),
    Patch(color=FALSE_ALARM, label="false alarm (FP)"),
    Patch(color=MISS, label="missed (FN)"),
]


class Example(NamedTuple):
    """One scored slice, all arrays on its own grid."""

    id: str
    image: Num[np.ndarray, "h w"]
    truth: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]
    dice: float


def example_grid(
    examples: Sequence[Example], caption: str, classes: Sequence[str] = ("mask",)
) -> Figure:
    """Draws slice, truth, prediction and overlay of the best, typical and worst slices.

    The columns follow Fig. 6 of Zhou, Canu, Ruan 2020; the overlay tells true positives, false
    positives and false negatives apart. Typical ones stand at the quartiles of Dice.

    Args:
      examples: all scored slices; up to seven are shown.
      caption: one sentence over the figure.
      classes: names of class ids 1, 2, ...
    """
    rows = choose(examples)
    figure = new_figure(PAGE, 1.85 * len(rows) + 0.7)
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for column, title in enumerate(("slice", "truth", "prediction", "overlay")):
        axes[0][column].set_title(title, fontsize=9)
    for axis_row, (label, example) in zip(axes, rows, strict=True):
        grey = to_grey(example.image)
        panels = (
            grey,
            painted(grey, class_regions(example.truth)),
            painted(grey, class_regions(example.prediction)),
            painted(grey, agreement(example.truth, example.prediction)),
        )
        for axis, panel in zip(axis_row, panels, strict=True):
            axis.imshow(panel, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        axis_row[0].set_ylabel(f"{label}\n{example.id}\nDice {example.dice:.3f}", fontsize=8)
    legend = [
        *(Patch(color=class_colour(k), label=name) for k, name in enumerate(classes, start=1)),
        *AGREEMENT,
    ]
    figure.legend(
        handles=legend, loc="outside lower center", ncols=len(legend), fontsize=8, frameon=False
    )
    figure.suptitle(caption, fontsize=8)
    return figure


def choose(examples: Sequence[Example]) -> list[tuple[str, Example]]:
    """The two best, the three at the quartiles and the two worst by Dice, each once."""
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


def agreement(
    truth: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"]
) -> list[tuple[Bool[np.ndarray, "h w"], Colour]]:
    """Found, falsely marked and missed pixels with their colours; a wrong class is a miss."""
    found = (truth == prediction) & (truth > 0)
    missed = (truth > 0) & ~found
    return [(found, HIT), ((prediction > 0) & (truth == 0), FALSE_ALARM), (missed, MISS)]
