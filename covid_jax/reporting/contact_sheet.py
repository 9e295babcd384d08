"""Pictures of a dataset, to be looked at before training on it."""

from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from covid_jax.data.dataset import Slice, SliceDataset
from covid_jax.reporting.drawing import (
    class_colour,
    class_regions,
    new_figure,
    outline,
    painted,
    save_figure,
    to_grey,
)
from covid_jax.reporting.gallery import augmentation_gallery
from covid_jax.transforms.augmentation import AugmentConfig
from covid_jax.transforms.preprocessing import (
    Normalization,
    QuantizedSlices,
    normalize,
    resize,
    resize_mask,
)

_SIDE = 240  # pixels of a thumbnail: an outline of one pixel is seen
_COLUMNS = 6


def contact_sheet(dataset: SliceDataset, path: Path, most: int = 48) -> None:
    """Writes slices spread evenly over the dataset, their lesions outlined.

    Args:
      dataset: every source gets its share of the page.
      path: of the PNG; its folder is made.
      most: slices shown.
    """
    count = min(most, len(dataset))
    chosen = [
        dataset.slices[i] for i in np.linspace(0, len(dataset) - 1, count).round().astype(int)
    ]
    rows = -(-count // _COLUMNS)
    figure = new_figure(10.8, 2.0 * rows + 0.8)
    figure.suptitle(
        f"{dataset.layout}: {count} of {len(dataset)} slices. Research use only.", fontsize=9
    )
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, item in zip(axes, chosen, strict=False):
        axis.imshow(_thumbnail(item), interpolation="nearest")
        height, width = item.mask.shape
        axis.set_title(f"{item.id}\n{height}x{width}, {_lesion(item)}", fontsize=6)
    handles = [
        Line2D([], [], color=class_colour(number), label=name)
        for number, name in enumerate(dataset.classes, start=1)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)


def augmentation_examples(dataset: SliceDataset, strengths: AugmentConfig, path: Path) -> None:
    """Writes what augmentation makes of three slices spread over the dataset.

    Args:
      dataset: its slices are shown at the network's size, z-scored.
      strengths: of the random changes.
      path: of the PNG; its folder is made.
    """
    few = np.linspace(0, len(dataset) - 1, 3).round().astype(int)
    packed = QuantizedSlices(*(array[few] for array in dataset.network.images))
    images = np.asarray(normalize(packed, Normalization()))
    path.parent.mkdir(parents=True, exist_ok=True)
    augmentation_gallery(images, dataset.network.masks[few][..., None], strengths, path)


def _thumbnail(item: Slice) -> np.ndarray:
    """The slice with its aspect kept, its lesions outlined."""
    height, width = (max(1, round(_SIDE * side / max(item.mask.shape))) for side in item.mask.shape)
    grey = np.clip(resize(to_grey(item.image), height, width), 0, 255).astype(np.uint8)
    large = resize_mask(item.mask, height, width)
    contours = [(outline(region), colour) for region, colour in class_regions(large)]
    return painted(grey, contours, strength=1.0)


def _lesion(item: Slice) -> str:
    return f"lesion {100 * item.lesion_share:.2g} %" if item.lesion_share else "no lesion"
