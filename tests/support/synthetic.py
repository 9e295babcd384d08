"""A few tiny slices with a bright blob as lesion, for tests that need data but not its looks."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from covid_jax.data import Slice, SliceDataset
from covid_jax.runs.config import DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from covid_jax.transforms.augmentation import AugmentConfig

SIZE = 32
TINY = (4, 8)  # two levels: a quarter of the compilation of four
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # 1 mm voxels


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
        "augmentation": AugmentConfig.named("standard"),
    }
    return TrainConfig(**(settings | changes))


def write_nifti(path: Path, stack: np.ndarray, affine: np.ndarray | None = LPS) -> None:
    """Writes slices as displayed with nibabel: x to the left, y to the back, z up.

    Without an affine the file does not say how it lies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(stack.transpose(2, 1, 0), affine, dtype=stack.dtype), path)


KINDS = ("ground_glass", "consolidation", "effusion")


def kinds_dataset(targets: tuple[str, ...] = KINDS, patients: int = 6) -> SliceDataset:
    """A slice a patient, of the network's own size, with a disc of each kind of lesion."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:SIZE, :SIZE]
    items = []
    for patient in range(patients):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        for kind, (row, column) in enumerate(((8, 8), (8, 24), (24, 16)), start=1):
            mask[(y - row) ** 2 + (x - column) ** 2 < rng.uniform(3, 7) ** 2] = kind
        image = (rng.normal(-800, 30, mask.shape) + 200 * mask).astype(np.int16)
        items.append(Slice(f"{patient}", "kinds", f"p{patient}", None, image, mask))
    return SliceDataset("kinds", tuple(items), SIZE, classes=KINDS, targets=targets)


def write_dicom_series(
    folder: Path, images: np.ndarray, spacing: tuple[float, float], series: str = "1.2.3"
) -> None:
    """An axial series 2 mm apart, its files named against their order, stored 1024 above HU."""
    pydicom = pytest.importorskip("pydicom", minversion="3")
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        made = pydicom.Dataset()
        made.file_meta = pydicom.dataset.FileMetaDataset()
        made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        made.SOPClassUID = pydicom.uid.CTImageStorage
        made.SOPInstanceUID = f"{series}.{number + 1}"
        made.SeriesInstanceUID = series
        made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        made.ImagePositionPatient = [0, 0, 2 * number]
        made.PixelSpacing = list(spacing)
        made.RescaleSlope, made.RescaleIntercept = 1, -1024
        made.Rows, made.Columns = image.shape
        made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
        made.BitsAllocated = made.BitsStored = 16
        made.HighBit, made.PixelRepresentation = 15, 0
        made.PixelData = (image + 1024).astype("<u2").tobytes()
        made.save_as(folder / f"{series}.{9 - number}.dcm", enforce_file_format=True)
