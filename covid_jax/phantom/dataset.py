"""Synthetic phantom: computed chest CT, written in the layout of the real datasets.

A patient is drawn once in three dimensions (``anatomy``); a slice is a cut through it at one level
(``rendering``). The phantom has what makes the task hard (lesions as bright as vessels, heart and
chest wall; soft edges; many small lesions) but does not model a disease: numbers measured on it
test the code and say nothing about patients.
"""

import csv
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int16, UInt8

from covid_jax.errors import ConfigError, DataError
from covid_jax.files import write_json, writing_to
from covid_jax.io.nifti import write_stack
from covid_jax.phantom.anatomy import LABELS, RANGES, draw_patient
from covid_jax.phantom.rendering import FIELD_OF_VIEW, SCAN_LENGTH, cut, render

Scan = tuple[Int16[np.ndarray, "_ h w"], UInt8[np.ndarray, "_ h w"]]  # images and masks
GENERATOR_VERSION = 1
_MARKER = {
    "kind": "synthetic phantom",
    "notice": "Synthetic: drawn by covid_jax from random numbers. No patient was scanned.",
    "generator_version": GENERATOR_VERSION,
    "labels": LABELS,
    "field_of_view_mm": FIELD_OF_VIEW,
    "scan_length_mm": SCAN_LENGTH,
}


def phantom_slices(seed: int, patient: int, num_slices: int, size: int = 256) -> Scan:
    """The slices of one synthetic patient, from the feet up, evenly spaced over 100 mm.

    The slices at both ends, about a quarter of all, have no lesion; a scan of one or two slices
    always has lesions in each. The same arguments give the same pixels.

    Args:
      seed: of the dataset.
      patient: number of the patient; body and lesions depend on it and on the seed.
      num_slices: number of slices.
      size: rows and columns of the image, which always shows 360 mm.

    Returns:
      images: (n, size, size) int16, Hounsfield units.
      masks: (n, size, size) uint8, 0 or a key of ``LABELS``.
    """
    rng = np.random.default_rng([seed, patient])
    drawn = draw_patient(rng)
    sections = cut(drawn.body, num_slices, size)
    images, masks = zip(*(render(drawn, section, rng) for section in sections), strict=True)
    return np.stack(images), np.stack(masks)


def write_phantom(
    folder: str | Path,
    *,
    seed: int = 0,
    size: int = 256,
    num_patients: int = 24,
    slices_per_patient: int = 2,
    num_volumes: int = 9,
    slices_per_volume: int = 12,
) -> Path:
    """Writes a synthetic dataset, laid out as Dataset-1 and Dataset-2, completely or not at all.

    Args:
      folder: new, or empty.
      seed: of all random numbers.
      size: rows and columns of the slices.
      num_patients: number of patients in Dataset-1 (``tr_im.nii.gz``, ``tr_mask.nii.gz``).
      slices_per_patient: slices of each of these patients.
      num_volumes: number of volumes in Dataset-2 (``rp_im/N.nii.gz``, ``rp_msk/N.nii.gz``), each of
        another patient.
      slices_per_volume: slices of each volume, about a quarter of them without lesion.

    Returns:
      The folder. ``patients.csv`` has the patient of each slice; ``phantom.json`` marks the data as
      synthetic.

    Raises:
      DataError: if the folder is not empty or cannot be written.
      ConfigError: if a number is too small.
    """
    settings = dict(seed=seed, size=size, num_patients=num_patients, num_volumes=num_volumes)
    settings |= dict(slices_per_patient=slices_per_patient, slices_per_volume=slices_per_volume)
    for name, value in settings.items():
        least = {"seed": 0, "size": 32}.get(name, 1)
        if value < least:
            raise ConfigError(f"{name} = {value}: a phantom needs at least {least}")
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: exists and is not empty; remove it or name another folder")
    counts = [slices_per_patient] * num_patients + [slices_per_volume] * num_volumes
    with ThreadPoolExecutor() as pool:
        draw = partial(phantom_slices, seed, size=size)
        scans = list(pool.map(draw, range(1, len(counts) + 1), counts))
    with writing_to(folder, "name another folder", DataError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".phantom-", dir=folder.parent) as temporary:
            complete = Path(temporary, "complete")
            _write_scans(complete, scans, num_patients, FIELD_OF_VIEW / size)
            write_json(complete / "phantom.json", {**_MARKER, **settings, "anatomy": RANGES})
            complete.replace(folder)
    return folder


def _write_scans(
    folder: Path, scans: list[tuple[np.ndarray, np.ndarray]], num_patients: int, pixel: float
) -> None:
    """Writes the first patients as the stack of Dataset-1, and each other one as a volume."""
    images, masks = zip(*scans[:num_patients], strict=True)
    owners = [patient for patient, stack in enumerate(images, 1) for _ in stack]
    rows = [("tr_im", str(i), f"p{patient:02d}") for i, patient in enumerate(owners)]
    (folder / "rp_im").mkdir(parents=True)
    (folder / "rp_msk").mkdir()
    write_stack(folder / "tr_im.nii.gz", np.concatenate(images), (1.0, pixel, pixel))
    write_stack(folder / "tr_mask.nii.gz", np.concatenate(masks), (1.0, pixel, pixel))
    for volume, (image, mask) in enumerate(scans[num_patients:], 1):
        spacing = (SCAN_LENGTH / len(image), pixel, pixel)
        write_stack(folder / f"rp_im/{volume}.nii.gz", image, spacing)
        write_stack(folder / f"rp_msk/{volume}.nii.gz", mask, spacing)
        rows.append((str(volume), "", f"p{num_patients + volume:02d}"))
    with (folder / "patients.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("volume", "slice", "patient"), *rows])
