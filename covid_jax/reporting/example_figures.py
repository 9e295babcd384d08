"""The best, typical and worst slices of a run, with truth, prediction and their agreement."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from covid_jax.reporting.drawing import (
    FALSE_ALARM,
    HIT,
    MISS,
    Ids,
    Image,
    Regions,
    class_colour,
    class_regions,
    painted,
    picture_grid,
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
    image: Image
    truth: Ids
    prediction: Ids
    dice: float


def example_grid(
    examples: Sequence[Example], caption: str, classes: Sequence[str] = ("mask",)
) -> Figure:
    """Draws slice, truth, prediction and overlay of the best, typical and worst slices.

    The columns follow Fig. 6 of Zhou, Canu, Ruan 2020; the overlay shows true positives, false
    positives and false negatives. Typical slices are those at the quartiles of Dice.

    Args:
      examples: all scored slices; up to seven are shown.
      caption: sentence above the figure.
      classes: names of class ids 1, 2, ...
    """
    rows = choose(examples)
    pictures = []
    for _, example in rows:
        grey = to_grey(example.image)
        truth, prediction = class_regions(example.truth), class_regions(example.prediction)
        overlays = (truth, prediction, agreement(example.truth, example.prediction))
        pictures.append([grey, *(painted(grey, regions) for regions in overlays)])
    figure, axes = picture_grid(("slice", "truth", "prediction", "overlay"), pictures, 0.7)
    for axis, (label, example) in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(f"{label}\n{example.id}\nDice {example.dice:.3f}", fontsize=8)
    legend = [Patch(color=class_colour(k), label=name) for k, name in enumerate(classes, start=1)]
    add_legend(figure, [*legend, *AGREEMENT])
    figure.suptitle(caption, fontsize=8)
    return figure


def add_legend(figure: Figure, patches: Sequence[Patch]) -> None:
    """Adds one row of colours and their meanings below the pictures."""
    place = "outside lower center"
    figure.legend(handles=patches, loc=place, ncols=len(patches), fontsize=8, frameon=False)


def choose(examples: Sequence[Example]) -> list[tuple[str, Example]]:
    """The two best, the three at the quartiles and the two worst slices by Dice, without repeats.

    Returns:
      Label and example, from the best to the worst.
    """
    ranked = sorted(examples, key=lambda example: -example.dice)
    last = len(ranked) - 1
    ranks = {
        "best": 0,
        "2nd best": 1,
        "upper quartile": round(0.25 * last),
        "median": round(0.5 * last),
        "lower quartile": round(0.75 * last),
        "2nd worst": last - 1,
        "worst": last,
    }
    chosen: dict[int, str] = {}
    for label, rank in ranks.items():
        if 0 <= rank <= last:
            chosen.setdefault(rank, label)
    return [(label, ranked[rank]) for rank, label in sorted(chosen.items())]


def agreement(truth: Ids, prediction: Ids) -> Regions:
    """True positive, false positive and false negative pixels; a wrong class counts as missed."""
    hit = (truth == prediction) & (truth > 0)
    missed = (truth > 0) & ~hit
    return [(hit, HIT), ((prediction > 0) & (truth == 0), FALSE_ALARM), (missed, MISS)]
