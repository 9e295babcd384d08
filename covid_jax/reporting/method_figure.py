"""Figures that compare runs: example slices side by side, and scatter plots of their Dice."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from covid_jax.data import SliceDataset
from covid_jax.errors import RunError, shorten
from covid_jax.evaluation.compare import ScoredRun
from covid_jax.evaluation.slice_table import load_masks
from covid_jax.files import writing_to
from covid_jax.reporting.drawing import (
    HIT,
    PAGE,
    class_regions,
    label_axis,
    new_figure,
    painted,
    picture_grid,
    save_figures,
    to_grey,
)
from covid_jax.reporting.example_figures import AGREEMENT, Example, add_legend, agreement, choose


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
        save_figures({"methods": methods, "scatter": scatter}, out)


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
    slices = list(zip(*methods.values(), strict=True))  # each as predicted by every method
    rows = []
    for examples in slices:
        grey = to_grey(examples[0].image)
        overlays = [agreement(one.truth, one.prediction) for one in examples]
        overlays.append(class_regions(examples[0].truth))
        rows.append([grey, *(painted(grey, regions) for regions in overlays)])
    figure, axes = picture_grid(("slice", *methods, "truth"), rows, 0.4)
    for axis_row, examples in zip(axes, slices, strict=True):
        axis_row[0].set_ylabel(examples[0].id, fontsize=6)
        for axis, example in zip(axis_row[1:], examples, strict=False):
            axis.set_xlabel(f"Dice {example.dice:.3f}", fontsize=6)
    add_legend(figure, AGREEMENT)
    return figure


def scatter_figure(
    names: Sequence[str], columns: Sequence[Float[np.ndarray, " n"]], metric: str
) -> Figure:
    """Plots the values of each run against those of the first run, one point for each slice."""
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
