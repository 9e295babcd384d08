"""Slices and masks to colour pictures; figures drawn without a display."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from covid_jax.data.statistics import HU_BELOW
from covid_jax.files import replacing

Colour = tuple[float, float, float]

# Okabe and Ito's palette: told apart under every common colour blindness, and on grey.
HIT: Colour = (0.00, 0.62, 0.45)  # bluish green
FALSE_ALARM: Colour = (0.90, 0.62, 0.00)  # orange
MISS: Colour = (0.34, 0.71, 0.91)  # sky blue
CLASSES: tuple[Colour, ...] = (
    (0.80, 0.47, 0.65),  # reddish purple
    (0.94, 0.89, 0.26),  # yellow
    (0.00, 0.45, 0.70),  # blue
    (0.84, 0.37, 0.00),  # vermillion
)
LUNG_WINDOW = (-1350.0, 150.0)  # HU: level -600, width 1500


def class_colour(number: int) -> Colour:
    """Of class id ``number``, from 1; a fifth class has the first one's again."""
    return CLASSES[(number - 1) % len(CLASSES)]


def to_grey(image: Num[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Intensities for the eye: HU through a lung window, anything else by its own range."""
    values = np.asarray(image, float)
    low, high = LUNG_WINDOW if values.min() < HU_BELOW else (values.min(), values.max())
    return (np.clip((values - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)


def painted(
    grey: UInt8[np.ndarray, "h w"],
    regions: Sequence[tuple[Bool[np.ndarray, "h w"], Colour]],
    strength: float = 0.65,
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with regions tinted, in this order."""
    picture: Float[np.ndarray, "h w 3"] = np.repeat(grey[..., None] / 255.0, 3, axis=-1)
    for region, colour in regions:
        picture[region] = (1 - strength) * picture[region] + strength * np.asarray(colour)
    return (picture * 255).astype(np.uint8)


def class_regions(ids: UInt8[np.ndarray, "h w"]) -> list[tuple[Bool[np.ndarray, "h w"], Colour]]:
    """The pixels of each class that is there, with its colour."""
    return [(ids == number, class_colour(number)) for number in range(1, int(ids.max()) + 1)]


def outline(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask's pixels that touch its outside (up, down, left or right)."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, on a canvas that needs no display."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes the figure whole or not at all; the path's ending chooses the format.

    Its texts show names of files, in which a dollar sign begins no formula, and which may be no
    UTF-8 or in a script that the font lacks: such letters become numbers or boxes.
    """
    for text in figure.findobj(Text):
        printable = text.get_text().encode("utf-8", "backslashreplace").decode()
        if printable:  # ticks of logarithmic axes have no text yet, and write powers as formulas
            text.set(text=printable, parse_math=False)
    with replacing(path) as partial, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(partial)
