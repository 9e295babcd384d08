"""A scan's files, each written beside and renamed: mask, probabilities, pictures."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Num, UInt8
from PIL import Image

from covid_jax.errors import DataError
from covid_jax.files import replacing
from covid_jax.io.nifti import write_like
from covid_jax.prediction.pipeline import LoadedScan
from covid_jax.reporting.contact_sheet import volume_sheet
from covid_jax.reporting.drawing import class_colour, outlined, to_bytes, window_of


def map_on_disk(shape: tuple[int, ...], folder: Path) -> Float32[np.ndarray, "n h w"]:
    """An array for a volume's probabilities, kept in a file that no kill leaves behind."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def write_mask(
    scan: LoadedScan, masks: UInt8[np.ndarray, "n h w"], base: Path, classes: Sequence[str]
) -> Path:
    """Writes ``<name>_mask``: a NIfTI file in the scan's own grid, or a PNG of a picture.

    Args:
      scan: the scan.
      masks: class ids.
      base: folder and name of the results.
      classes: names of ids 1, 2, ... One class is white on black in a PNG; several are positions in
        its palette.
    """
    if scan.geometry is not None:
        return _write_nifti(base, "mask", masks, scan)
    if len(classes) == 1:
        picture = Image.fromarray(np.where(masks[0] > 0, 255, 0).astype(np.uint8))
    else:
        picture = Image.fromarray(masks[0])
        colours = [to_bytes(class_colour(k)) for k in range(1, len(classes) + 1)]
        picture.putpalette([0, 0, 0, *(part for colour in colours for part in colour)])
    return _save(picture, _named(base, "_mask.png"))


def write_maps(
    scan: LoadedScan, maps: Mapping[str, Float32[np.ndarray, "n h w"]], base: Path
) -> list[Path]:
    """Writes each as ``<name>_<its name>``: float32 NIfTI, or a PNG whose 65535 stands for 1."""
    written = []
    for name, values in maps.items():
        if scan.geometry is not None:
            written.append(_write_nifti(base, name, values, scan))
        else:
            picture = Image.fromarray(np.rint(65535.0 * values[0]).astype(np.uint16))
            written.append(_save(picture, _named(base, f"_{name}.png")))
    return written


def write_overlays(
    scan: LoadedScan, masks: UInt8[np.ndarray, "n h w"], base: Path, classes: Sequence[str]
) -> list[Path]:
    """Writes ``<name>_overlay.png``, a volume's as a sheet beside a folder of its slices."""
    window = window_of(*scan.range)
    sheet = _named(base, "_overlay.png")
    if len(masks) == 1:
        return [_save(Image.fromarray(outlined(scan.stack[0], masks[0], window)), sheet)]
    folder = _named(base, "_overlay")
    folder.mkdir(exist_ok=True)
    written = []
    for index, (image, ids) in enumerate(zip(scan.stack, masks, strict=True)):
        picture = Image.fromarray(outlined(image, ids, window))
        written.append(_save(picture, folder / f"slice_{index:03d}.png"))
    drawn = volume_sheet(scan.stack, masks, window, scan.source.name, classes)
    return [*written, _save(drawn, sheet)]


def _named(base: Path, ending: str) -> Path:
    return base.with_name(base.name + ending)


def _write_nifti(base: Path, name: str, stack: Num[np.ndarray, "n h w"], scan: LoadedScan) -> Path:
    path = _named(base, f"_{name}.nii.gz")
    if scan.geometry is None:
        raise DataError(f"{scan.source.path}: a picture has no place in space")
    write_like(path, stack, scan.geometry)
    return path


def _save(picture: Image.Image, path: Path) -> Path:
    with replacing(path) as partial:
        picture.save(partial)
    return path
