"""Pictures of predictions, drawn without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Num, UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from covid_jax.reporting.drawing import (
    FALSE_ALARM,
    HIT,
    MISS,
    class_colour,
    class_regions,
    new_figure,
    painted,
    save_figure,
    to_grey,
)

_AGREEMENT = [
    Patch(color=HIT, label="found (TP)"),
    Patch(color=FALSE_ALARM, label="false alarm (FP)"),
    Patch(color=MISS, label="missed (FN)"),
]


class Example(NamedTuple):
    """One judged slice, all arrays on its own grid."""

    id: str
    image: Num[np.ndarray, "h w"]
    truth: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]
    dice: float


def example_grid(
    examples: Sequence[Example], path: Path, caption: str, classes: Sequence[str] = ("mask",)
) -> None:
    """Writes slice, truth, prediction and overlay of the best, typical and worst slices.

    The columns follow Fig. 6 of Zhou, Canu, Ruan 2020; the overlay tells true positives, false
    positives and false negatives apart. Typical ones stand at the quartiles of Dice.

    Args:
      examples: all judged slices; up to seven are shown.
      path: of the PNG.
      caption: one sentence over the figure.
      classes: names of class ids 1, 2, ...
    """
    rows = choose(examples)
    figure = new_figure(7.2, 1.85 * len(rows) + 0.7)
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for column, title in enumerate(("slice", "truth", "prediction", "overlay")):
        axes[0][column].set_title(title, fontsize=9)
    for axis_row, (label, example) in zip(axes, rows, strict=True):
        grey = to_grey(example.image)
        panels = (
            grey,
            painted(grey, class_regions(example.truth)),
            painted(grey, class_regions(example.prediction)),
            painted(grey, _agreement(example.truth, example.prediction)),
        )
        for axis, panel in zip(axis_row, panels, strict=True):
            axis.imshow(panel, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        axis_row[0].set_ylabel(f"{label}\n{example.id}\nDice {example.dice:.3f}", fontsize=8)
    legend = [
        *(Patch(color=class_colour(k), label=name) for k, name in enumerate(classes, start=1)),
        *_AGREEMENT,
    ]
    figure.legend(
        handles=legend, loc="outside lower center", ncols=len(legend), fontsize=8, frameon=False
    )
    figure.suptitle(caption, fontsize=8)
    save_figure(figure, path)


def method_grid(methods: Mapping[str, Sequence[Example]]) -> Figure:
    """Fig. 6 of Zhou, Canu, Ruan 2020: slice, each method's prediction, truth.

    Args:
      methods: by name, the same slices in the same order.
    """
    first = next(iter(methods.values()))
    columns = len(methods) + 2
    side = 7.2 / max(columns, 4)
    figure = new_figure(side * columns, len(first) * (side + 0.2) + 0.4)
    axes = figure.subplots(len(first), columns, squeeze=False)
    for column, title in enumerate(("slice", *methods, "truth")):
        axes[0][column].set_title(title, fontsize=7)
    for row, (axis_row, example) in enumerate(zip(axes, first, strict=True)):
        grey = to_grey(example.image)
        axis_row[0].imshow(grey, cmap="gray", vmin=0, vmax=255)
        axis_row[0].set_ylabel(example.id, fontsize=6)
        axis_row[-1].imshow(painted(grey, class_regions(example.truth)))
        for axis, examples in zip(axis_row[1:-1], methods.values(), strict=True):
            one = examples[row]
            axis.imshow(painted(grey, _agreement(one.truth, one.prediction)))
            axis.set_xlabel(f"Dice {one.dice:.3f}", fontsize=6)
        for axis in axis_row:
            axis.set_xticks([])
            axis.set_yticks([])
    figure.legend(
        handles=_AGREEMENT, loc="outside lower center", ncols=3, fontsize=7, frameon=False
    )
    return figure


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


def _agreement(truth: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"]):
    """Found, falsely marked and missed pixels; of several classes, a wrong one is a miss."""
    found = (truth == prediction) & (truth > 0)
    missed = (truth > 0) & ~found
    return [(found, HIT), ((prediction > 0) & (truth == 0), FALSE_ALARM), (missed, MISS)]
