"""Figures drawn without a display, with one look."""

import io
import itertools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from covid_jax.errors import printable
from covid_jax.files import replacing

Grid = Sequence[Sequence[UInt8[np.ndarray, "..."]]]  # rows of grey or colour pictures
COLUMN, PAGE = 3.5, 7.2  # inches: one and two columns of a journal


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, which needs no display."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def picture_grid(titles: Sequence[str], rows: Grid, margin: float) -> tuple[Figure, np.ndarray]:
    """Rows of pictures under column titles.

    Args:
      titles: of the columns.
      rows: grey or colour pictures, one for each column.
      margin: height in inches for title and legend.

    Returns:
      The figure, of the width of a page or less, and its axes by row and column.
    """
    side = PAGE / max(len(titles), 4)
    figure = new_figure(side * len(titles), len(rows) * (side + 0.2) + margin)
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=8)
    for axis, picture in zip(axes.flat, itertools.chain.from_iterable(rows), strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
    return figure, axes


def label_axis(axis: Axes, title: str, x: str, y: str) -> None:
    """Sets title and labels in the font sizes of all figures."""
    axis.set_title(title, fontsize=8)
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    axis.tick_params(labelsize=7)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes the figure completely or not at all; the path's suffix selects the format.

    Texts may contain file names: dollar signs do not start a formula, bytes that are not UTF-8 are
    shown as numbers, and letters that are not in the font as boxes.
    """
    for text in figure.findobj(Text):
        # Ticks of logarithmic axes have no text yet, and write powers as formulas.
        if words := printable(text.get_text()):
            text.set(text=words, parse_math=False)
    drawn = io.BytesIO()  # on a full disk matplotlib's PDF writer fails with an error of its own
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(drawn, format=path.suffix[1:])
    with replacing(path) as partial:
        partial.write_bytes(drawn.getvalue())


def save_figures(figures: Mapping[str, Figure], folder: Path) -> None:
    """Writes each figure as PNG and PDF under its name; the folder is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        for ending in ("png", "pdf"):
            save_figure(figure, folder / f"{name}.{ending}")
