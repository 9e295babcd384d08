"""A few tiny slices with a bright blob as lesion, for tests that need data but not its looks."""

import numpy as np

from covid_jax.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from covid_jax.data import Slice, SliceDataset

SIZE = 32
TINY = (4, 8)  # two levels: a quarter of the compilation of four


def blob_dataset(patients: int = 6, slices: int = 2, size: int = SIZE) -> SliceDataset:
    """``patients * slices`` noisy slices of differing sizes, with a bright disc in each."""
    rng = np.random.default_rng(0)
    items = []
    for patient in range(patients):
        for number in range(slices):
            height, width = size + 4 * patient, size + 6 * number
            y, x = np.mgrid[:height, :width]
            centre_y, centre_x = rng.uniform(10, height - 10), rng.uniform(10, width - 10)
            mask = (y - centre_y) ** 2 + (x - centre_x) ** 2 < rng.uniform(4, 8) ** 2
            image = rng.normal(-800, 30, mask.shape) + 500 * mask
            name = f"{patient}:{number}"
            items.append(
                Slice(
                    name,
                    "blobs",
                    f"p{patient}",
                    None,
                    image.astype(np.int16),
                    mask.astype(np.uint8),
                )
            )
    return SliceDataset("blobs", tuple(items), size)


def tiny_config(**changes) -> TrainConfig:
    """Two epochs of a tiny network."""
    settings = {
        "data": DataConfig(image_size=SIZE, split="patient"),
        "model": ModelConfig(features=TINY),
        "optimizer": OptimizerConfig(learning_rate=3e-3),
        "epochs": 2,
        "batch_size": 3,
        "augment": "standard",
    }
    return TrainConfig(**(settings | changes))
