"""Colour pictures of slices and masks; loads no matplotlib."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8
from scipy import ndimage

from covid_jax.data import SliceDataset
from covid_jax.data.statistics import scale_of
from covid_jax.metrics.surface_distance import boundary

Image = Num[np.ndarray, "h w"]  # raw intensities
Ids = UInt8[np.ndarray, "h w"]  # class ids
Map = Float[np.ndarray, "h w"]  # probabilities
Stack = Num[np.ndarray, "n h w"]  # raw intensities of a volume
Masks = UInt8[np.ndarray, "n h w"]  # class ids of a volume
Picture = UInt8[np.ndarray, "_ _ 3"]
Panel = UInt8[np.ndarray, "n s s 3"]
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
