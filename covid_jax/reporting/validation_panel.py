"""A few validation slices with truth and prediction, shown during training."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import UInt8

from covid_jax.data import SliceDataset
from covid_jax.metrics.surface_distance import boundary
from covid_jax.reporting.drawing import HIT, MISS, painted, to_grey


def draw_panel(
    dataset: SliceDataset, positions: Iterable[int], predicted: UInt8[np.ndarray, "n s s"]
) -> UInt8[np.ndarray, "n s s 3"]:
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
