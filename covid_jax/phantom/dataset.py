"""Synthetic phantom: chest CT that no one was scanned for, written as the real datasets are.

A patient is drawn once in three dimensions (``phantom_patient``); a slice cuts it at a level and is
painted (``phantom_slice``). It shows what makes the task hard (lesions as bright as
vessels, heart and chest wall; soft edges; many small ones), not what a disease does: a number
measured on it says something about code, nothing about patients.
"""

import csv
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int16, UInt8

from covid_jax.errors import ConfigError, DataError
from covid_jax.io.nifti import write_stack
from covid_jax.phantom.anatomy import LABELS, RANGES, draw_patient
from covid_jax.phantom.rendering import FIELD_OF_VIEW, SCAN_LENGTH, cut, render

GENERATOR_VERSION = 1
_MARKER = {
    "kind": "synthetic phantom",
    "notice": "Synthetic: drawn by covid_jax from random numbers. No patient was scanned.",
    "generator_version": GENERATOR_VERSION,
    "labels": LABELS,
    "field_of_view_mm": FIELD_OF_VIEW,
    "scan_length_mm": SCAN_LENGTH,
}


def phantom_slices(
    seed: int, patient: int, num_slices: int, size: int = 256
) -> tuple[Int16[np.ndarray, "n h w"], UInt8[np.ndarray, "n h w"]]:
    """One synthetic patient's slices, from the feet up, evenly spaced over 100 mm.

    Of many slices about a quarter, at the ends, are without lesion; one or two slices always lie
    where the lesions are. The same arguments give the same pixels.

    Args:
      seed: of the dataset.
      patient: with the seed it decides the body and its lesions.
      num_slices: how finely the scan is cut.
      size: side of the square picture, which shows 360 mm whatever its size.

    Returns:
      images: (n, size, size) int16, Hounsfield units.
      masks: (n, size, size) uint8, 0 or a key of ``LABELS``.
    """
    rng = np.random.default_rng([seed, patient])
    person = draw_patient(rng)
    sections = cut(person.body, num_slices, size)
    images, masks = zip(*(render(person, at, rng) for at in sections), strict=True)
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
    """Writes a synthetic dataset in the layout of Dataset-1 and Dataset-2, whole or not at all.

    Args:
      folder: new, or empty.
      seed: decides every pixel.
      size: side of the slices.
      num_patients: of Dataset-1 (``tr_im.nii.gz``, ``tr_mask.nii.gz``), ...
      slices_per_patient: ... with so many slices each.
      num_volumes: of Dataset-2 (``rp_im/N.nii.gz``, ``rp_msk/N.nii.gz``), a new patient each, ...
      slices_per_volume: ... of so many slices, about a quarter of them without lesion.

    Returns:
      The folder; ``patients.csv`` says whose a slice is, ``phantom.json`` that all is made up.

    Raises:
      DataError: if the folder holds something already, or cannot be written.
      ConfigError: on a number that is too small.
    """
    settings = {
        "seed": seed,
        "size": size,
        "num_patients": num_patients,
        "slices_per_patient": slices_per_patient,
        "num_volumes": num_volumes,
        "slices_per_volume": slices_per_volume,
    }
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
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".phantom-", dir=folder.parent) as temporary:
            whole = Path(temporary, "whole")
            _write_scans(whole, scans, num_patients, FIELD_OF_VIEW / size)
            marker = {**_MARKER, **settings, "anatomy": RANGES}
            (whole / "phantom.json").write_text(json.dumps(marker, indent=2) + "\n")
            whole.replace(folder)
    except OSError as error:
        raise DataError(f"{folder}: the phantom cannot be written there ({error})") from error
    return folder


def _write_scans(
    folder: Path, scans: list[tuple[np.ndarray, np.ndarray]], num_patients: int, pixel: float
) -> None:
    """The first patients' slices become Dataset-1's one stack, each further patient a volume."""
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
