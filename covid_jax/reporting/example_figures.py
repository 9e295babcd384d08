"""The best, typical and worst slices of a run, or of several: truth, predictions, agreement."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from covid_jax.data import SliceDataset
from covid_jax.errors import RunError, shorten
from covid_jax.evaluation.compare import ScoredRun
from covid_jax.evaluation.slice_table import load_masks
from covid_jax.files import writing_to
from covid_jax.reporting import drawing, figures
from covid_jax.reporting.drawing import FALSE_ALARM, HIT, MISS, class_regions, painted, to_grey
from covid_jax.reporting.plots import scatter_figure

_MEANINGS = {"found (TP)": HIT, "false alarm (FP)": FALSE_ALARM, "missed (FN)": MISS}
AGREEMENT = [Patch(color=colour, label=label) for label, colour in _MEANINGS.items()]
_LABELS = ("best", "2nd best", "upper quartile", "median", "lower quartile", "2nd worst", "worst")


class Example(NamedTuple):
    """One scored slice, all arrays on its own grid."""

    id: str
    image: drawing.Image
    truth: drawing.Ids
    prediction: drawing.Ids
    dice: float


def example_grid(examples: Sequence[Example], caption: str, classes: Sequence[str]) -> Figure:
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
        regions = map(class_regions, (example.truth, example.prediction))
        overlays = (*regions, agreement(example.truth, example.prediction))
        pictures.append([grey, *(painted(grey, regions) for regions in overlays)])
    figure, axes = figures.picture_grid(("slice", "truth", "prediction", "overlay"), pictures, 0.7)
    for axis, (label, example) in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(f"{label}\n{example.id}\nDice {example.dice:.3f}", fontsize=8)
    colours = map(drawing.class_colour, range(1, len(classes) + 1))
    legend = [Patch(color=c, label=name) for c, name in zip(colours, classes, strict=True)]
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
    quarters = (round(part * last) for part in (0.25, 0.5, 0.75))
    chosen: dict[int, str] = {}
    for label, rank in zip(_LABELS, (0, 1, *quarters, last - 1, last), strict=True):
        if 0 <= rank <= last:
            chosen.setdefault(rank, label)
    return [(label, ranked[rank]) for rank, label in sorted(chosen.items())]


def agreement(truth: drawing.Ids, prediction: drawing.Ids) -> drawing.Regions:
    """True positive, false positive and false negative pixels; a wrong class counts as missed."""
    hit = (truth == prediction) & (truth > 0)
    return [(hit, HIT), ((prediction > 0) & (truth == 0), FALSE_ALARM), ((truth > 0) & ~hit, MISS)]


def draw_comparison(scored: Sequence[ScoredRun], dataset: SliceDataset, out: Path) -> None:
    """Writes the scatter plot and the example slices of compared runs as PNG and PDF.

    Args:
      scored: the runs, from ``read_scored``.
      dataset: contains their slices.
      out: folder of scatter and methods.

    Raises:
      RunError: if the dataset is not the one they were scored on, masks.npz of a run is damaged,
        or ``out`` cannot be written.
    """
    names, dices = [run.name for run in scored], [run.column("dice") for run in scored]
    methods, scatter = example_slices(scored, dataset), scatter_figure(names, dices, "Dice")
    with writing_to(out):
        figures.save_figures({"methods": methods, "scatter": scatter}, out)


def example_slices(scored: Sequence[ScoredRun], dataset: SliceDataset) -> Figure:
    """The best, typical and worst slices of the first run, as every run predicts them."""
    first = scored[0]
    if first.report.data_fingerprint != dataset.fingerprint():
        raise RunError(f"{first.folder}: was scored on other data than is given for figures")
    items = {item.id: item for item in dataset.slices}
    if unknown := [name for name in first.slices if name not in items]:
        raise RunError(f"{first.folder}: the data has no slice {shorten(unknown)}")
    slices = [items[name] for name in first.slices]
    examples: dict[str, list[Example]] = {}
    for run in scored:
        masks = load_masks(run.folder / "masks.npz")
        if [mask.shape for mask in masks] != [item.mask.shape for item in slices]:
            raise RunError(f"{run.folder}: masks.npz is not of its slices; score the run again")
        examples[run.name] = [
            Example(item.id, item.image, dataset.target_ids(item.mask), mask, float(dice))
            for item, mask, dice in zip(slices, masks, run.column("dice"), strict=True)
        ]
    chosen = {example.id for _, example in choose(examples[first.name])}
    shown = {name: [e for e in each if e.id in chosen] for name, each in examples.items()}
    return method_grid(shown)


def method_grid(methods: Mapping[str, Sequence[Example]]) -> Figure:
    """Fig. 6 of Zhou, Canu, Ruan 2020: slice, each method's prediction, truth.

    Args:
      methods: by name, the same slices in the same order.
    """
    slices = list(zip(*methods.values(), strict=True))  # each as predicted by every method
    rows = []
    for examples in slices:
        grey = to_grey(examples[0].image)
        overlays = [agreement(one.truth, one.prediction) for one in examples]
        overlays.append(class_regions(examples[0].truth))
        rows.append([grey, *(painted(grey, regions) for regions in overlays)])
    figure, axes = figures.picture_grid(("slice", *methods, "truth"), rows, 0.4)
    for axis_row, examples in zip(axes, slices, strict=True):
        axis_row[0].set_ylabel(examples[0].id, fontsize=6)
        for axis, example in zip(axis_row[1:], examples, strict=False):
            axis.set_xlabel(f"Dice {example.dice:.3f}", fontsize=6)
    add_legend(figure, AGREEMENT)
    return figure
