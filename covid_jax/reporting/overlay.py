"""Masks drawn on their slices: contours, and a sheet of a volume's slices."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image, ImageDraw

from covid_jax.data.statistics import scale_of
from covid_jax.reporting.drawing import LUNG_WINDOW, class_colour, class_regions, outline, painted
from covid_jax.transforms.preprocessing import resize, resize_mask

_SIDE = 200  # pixels of a thumbnail
_COLUMNS = 6
_LINE = 14  # pixels of a line of text
_MOST = 36


def window_of(low: float, high: float) -> tuple[float, float]:
    """Intensities shown black and white: the lung window for HU, else the scan's own range."""
    return LUNG_WINDOW if scale_of(low, high) == "HU" else (low, high)


def contours(
    image: Num[np.ndarray, "h w"],
    ids: UInt8[np.ndarray, "h w"],
    window: tuple[float, float],
) -> UInt8[np.ndarray, "h w 3"]:
    """The slice with each class outlined in its colour.

    Args:
      image: raw intensities.
      ids: class ids.
      window: shown black and white.
    """
    regions = [(outline(region), colour) for region, colour in class_regions(ids)]
    return painted(_grey(image, window), regions, strength=1.0)


def contact_sheet(
    stack: Num[np.ndarray, "n h w"],
    masks: UInt8[np.ndarray, "n h w"],
    window: tuple[float, float],
    title: str,
    classes: Sequence[str],
) -> Image.Image:
    """Slices spread evenly over a volume, their lesions outlined.

    Args:
      stack: raw intensities.
      masks: class ids.
      window: shown black and white.
      title: over the sheet.
      classes: names of class ids 1, 2, ...
    """
    shown = np.linspace(0, len(stack) - 1, min(_MOST, len(stack))).round().astype(int)
    height, width = _fitted(*stack.shape[1:])
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    cell = max(width, 90) + 4, height + _LINE + 4
    sheet = Image.new("RGB", (max(columns * cell[0], 480), 2 * _LINE + 8 + rows * cell[1]), "black")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 2), _printable(title), fill="white")
    draw.text((4, 2 + _LINE), f"{len(shown)} of {len(stack)} slices.", fill="white")
    start = 170
    for number, name in enumerate(classes, start=1):
        colour = tuple(round(255 * part) for part in class_colour(number))
        draw.text((start, 2 + _LINE), _printable(name), fill=colour)
        start += 8 * len(name) + 16
    for place, index in enumerate(shown):
        x, y = place % columns * cell[0] + 2, 2 * _LINE + 8 + place // columns * cell[1]
        draw.text((x, y), f"{index}: {_share(masks[index])}", fill="white")
        small = resize(stack[index], height, width)
        picture = contours(small, resize_mask(masks[index], height, width), window)
        sheet.paste(Image.fromarray(picture), (x, y + _LINE))
    return sheet


def _grey(image: Num[np.ndarray, "h w"], window: tuple[float, float]) -> UInt8[np.ndarray, "h w"]:
    low, high = window
    values = (image.astype(np.float32) - low) / max(high - low, 1e-6)
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def _fitted(height: int, width: int) -> tuple[int, int]:
    longest = max(height, width)
    return max(1, round(_SIDE * height / longest)), max(1, round(_SIDE * width / longest))


def _share(ids: UInt8[np.ndarray, "h w"]) -> str:
    share = np.count_nonzero(ids) / ids.size
    return f"{100 * share:.2g} %" if share else "none"


def _printable(text: str) -> str:
    """Names of files may be no UTF-8, and the font has few scripts."""
    return text.encode("ascii", "backslashreplace").decode()
