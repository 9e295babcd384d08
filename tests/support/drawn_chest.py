"""A drawn chest in HU, whose lungs and tissues are known."""

import numpy as np

SIZE = 160
LUNGS = (slice(45, 115), slice(30, 130))  # rows, columns of the box around both


def chest() -> np.ndarray:
    """Three equal slices in HU: air, a body of soft tissue (40), two lungs (-860)."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.where((y - 80) ** 2 / 60**2 + (x - 80) ** 2 / 75**2 < 1, 40.0, -1000.0)
    for centre in (52, 108):
        image[(y - 80) ** 2 / 35**2 + (x - centre) ** 2 / 22**2 < 1] = -860.0
    return np.stack([image] * 3)
