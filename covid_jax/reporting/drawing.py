"""Colour pictures of slices and masks; figures drawn without a display."""

import io
import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import ndimage

from covid_jax.data import SliceDataset
from covid_jax.data.statistics import scale_of
from covid_jax.errors import printable
from covid_jax.files import replacing
from covid_jax.metrics.surface_distance import boundary

Image = Num[np.ndarray, "h w"]  # raw intensities
Ids = UInt8[np.ndarray, "h w"]  # class ids
Map = Float[np.ndarray, "h w"]  # probabilities
Stack = Num[np.ndarray, "n h w"]  # raw intensities of a volume
Masks = UInt8[np.ndarray, "n h w"]  # class ids of a volume
Picture = UInt8[np.ndarray, "_ _ 3"]
Panel = UInt8[np.ndarray, "n s s 3"]
Grid = Sequence[Sequence[UInt8[np.ndarray, "..."]]]  # rows of grey or colour pictures
Colour = tuple[float, float, float]
Regions = Sequence[tuple[Bool[np.ndarray, "h w"], Colour]]  # masks and their colours
Window = tuple[float, float]  # intensities shown black and white

# The palette of Okabe and Ito: distinct with every common colour blindness, and on grey.
HIT: Colour = (0.00, 0.62, 0.45)  # bluish green
FALSE_ALARM: Colour = (0.90, 0.62, 0.00)  # orange
MISS: Colour = (0.34, 0.71, 0.91)  # sky blue
CLASSES: tuple[Colour, ...] = (
    (0.80, 0.47, 0.65),  # reddish purple
    (0.94, 0.89, 0.26),  # yellow
    (0.00, 0.45, 0.70),  # blue
    (0.84, 0.37, 0.00),  # vermillion
)
LUNG_WINDOW: Window = (-1350.0, 150.0)  # HU: level -600, width 1500
COLUMN, PAGE = 3.5, 7.2  # inches: one and two columns of a journal


def class_colour(number: int) -> Colour:
    """The colour of class id ``number`` (from 1); colours repeat after the fourth class."""
    return CLASSES[(number - 1) % len(CLASSES)]


def to_bytes(colour: Colour) -> tuple[int, int, int]:
    """The colour in 0 to 255."""
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue


def window_of(low: float, high: float) -> Window:
    """The window of intensities from low to high: the lung window for HU, else their range."""
    return LUNG_WINDOW if scale_of(low, high) == "HU" else (low, high)


def to_grey(image: Image, window: Window | None = None) -> UInt8[np.ndarray, "h w"]:
    """Intensities as grey values, by default through the window of the image's range."""
    low, high = window or window_of(float(image.min()), float(image.max()))
    values = (np.asarray(image, np.float32) - low) / max(high - low, 1e-6)
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def painted(grey: UInt8[np.ndarray, "h w"], regions: Regions, strength: float = 0.65) -> Picture:
    """The grey picture with regions tinted in this order."""
    picture: Float[np.ndarray, "h w 3"] = np.repeat(grey[..., None] / 255.0, 3, axis=-1)
    for region, colour in regions:
        picture[region] = (1 - strength) * picture[region] + strength * np.asarray(colour)
    return (picture * 255).astype(np.uint8)


def class_regions(ids: Ids) -> Regions:
    """The pixels of each class up to the highest id, with its colour."""
    return [(ids == number, class_colour(number)) for number in range(1, int(ids.max()) + 1)]


def outlined(image: Image, ids: Ids, window: Window | None = None) -> Picture:
    """The slice with each class outlined in its colour; a dark line around sets it off from bone.

    Args:
      image: raw intensities.
      ids: class ids.
      window: as in ``to_grey``.
    """
    edges = [(boundary(region), colour) for region, colour in class_regions(ids)]
    around = ndimage.binary_dilation(ids > 0, np.ones((3, 3))) & (ids == 0)
    return painted(to_grey(image, window), [(around, (0.0, 0.0, 0.0)), *edges], strength=1.0)


def draw_panel(dataset: SliceDataset, positions: Iterable[int], predicted: Masks) -> Panel:
    """Draws slices at the network's size with the outlines of truth (blue) and prediction (green).

    Args:
      dataset: contains the slices.
      positions: of the slices.
      predicted: class ids of each slice.
    """
    images, masks = dataset.network
    panel = []
    for position, ids in zip(positions, predicted, strict=True):
        grey = to_grey(images.take([position]).decode()[0])
        truth = dataset.target_ids(masks[position])
        panel.append(painted(grey, [(boundary(truth > 0), MISS), (boundary(ids > 0), HIT)], 1.0))
    return np.stack(panel)


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, on a canvas that needs no display."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


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
