"""Figures that compare runs: their slices next to each other, their Dice against each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from covid_jax.data import SliceDataset
from covid_jax.errors import RunError, shorten
from covid_jax.evaluation.compare import ScoredRun
from covid_jax.evaluation.slice_table import load_masks
from covid_jax.reporting.drawing import (
    HIT,
    PAGE,
    class_regions,
    label_axis,
    new_figure,
    painted,
    save_figures,
    to_grey,
)
from covid_jax.reporting.example_figures import AGREEMENT, Example, agreement, choose


def draw_comparison(scored: Sequence[ScoredRun], dataset: SliceDataset, out: Path) -> None:
    """Writes the scatter plot and the example slices of compared runs as PNG and PDF.

    Args:
      scored: the runs, as ``read_scored`` gives them.
      dataset: contains their slices.
      out: folder of scatter and methods.

    Raises:
      RunError: if the dataset is not the one they were scored on, masks.npz of a run is damaged,
        or ``out`` cannot be written.
    """
    figures = {
        "methods": example_slices(scored, dataset),
        "scatter": scatter_figure(
            [run.name for run in scored], [run.column("dice") for run in scored], "Dice"
        ),
    }
    try:
        save_figures(figures, out)
    except OSError as error:
        raise RunError(f"{out}: cannot be written ({error.strerror})") from error


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
    return method_grid(
        {name: [one for one in each if one.id in chosen] for name, each in examples.items()}
    )


def method_grid(methods: Mapping[str, Sequence[Example]]) -> Figure:
    """Fig. 6 of Zhou, Canu, Ruan 2020: slice, each method's prediction, truth.

    Args:
      methods: by name, the same slices in the same order.
    """
    first = next(iter(methods.values()))
    columns = len(methods) + 2
    side = PAGE / max(columns, 4)
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
            axis.imshow(painted(grey, agreement(examples[row].truth, examples[row].prediction)))
            axis.set_xlabel(f"Dice {examples[row].dice:.3f}", fontsize=6)
        for axis in axis_row:
            axis.set(xticks=[], yticks=[])
    figure.legend(handles=AGREEMENT, loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    return figure


def scatter_figure(
    names: Sequence[str], columns: Sequence[Float[np.ndarray, " n"]], metric: str
) -> Figure:
    """The values of each run against those of the first one, a point for each slice."""
    others = len(columns) - 1
    figure = new_figure(min(PAGE, 3.2 * others + 0.3), 3.2 if others < 3 else 2.6)
    for axis, name, values in zip(
        np.atleast_1d(figure.subplots(1, others)), names[1:], columns[1:], strict=True
    ):
        axis.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
        axis.plot(columns[0], values, ".", color=HIT, markersize=5, alpha=0.7)
        axis.set_aspect("equal")
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        label_axis(axis, "", f"{metric}, {names[0]}", f"{metric}, {name}")
    return figure
