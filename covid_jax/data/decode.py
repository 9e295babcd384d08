"""Scans and masks to slices: read, checked against each other, written to a cache."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Num, Shaped, UInt8

from covid_jax.data.cache import Plan
from covid_jax.data.scan import ScanFiles, Scans
from covid_jax.errors import DataError
from covid_jax.files import reading as reading_file
from covid_jax.io.formats import files_of
from covid_jax.io.read_scan import read_mask, read_scan
from covid_jax.transforms.grey_scale import GreyScale
from covid_jax.transforms.input_form import InputForm, find_form

DECODER_VERSION = 7  # of the cached data: a new number makes every old cache stale
WORKERS = 4
Progress = Callable[[int, int], None]
Codings = dict[tuple[str, int], Path | None]  # by source and value, the first such mask


@dataclass(frozen=True)
class Reading:
    """How scans are to be read.

    Attributes:
      classes: class names; a mask's ids are positions in it, counted from 1.
      lesion_slices_only: leave out slices without a lesion.
      series: SeriesInstanceUIDs to read from DICOM folders with several series.
      crop: look for the lungs' box of each slice.
      grey_scale: look for the grey scale of each slice.
    """

    classes: tuple[str, ...]
    lesion_slices_only: bool = True
    series: tuple[str, ...] = ()
    crop: bool = False
    grey_scale: bool = False


class Decoded(NamedTuple):
    """A decoded scan.

    Attributes:
      images, masks: slices as displayed; masks hold class ids.
      spacing: of a slice's rows and columns in mm; None if unknown.
      warnings: about the mask's file and the grey scale.
      forms: how each slice becomes the network's input.
      values: of the mask's pixels, as stored.
    """

    images: Num[np.ndarray, "n h w"]
    masks: UInt8[np.ndarray, "n h w"]
    spacing: tuple[float, float] | None
    warnings: tuple[str, ...]
    forms: list[InputForm]
    values: frozenset = frozenset()


def decode_all(scans: Scans, reading: Reading, folder: Path, progress: Progress) -> Plan:
    """Decodes scans in parallel into ``images.bin`` and ``masks.bin``.

    Args:
      scans: in the dataset's order.
      reading: what to keep of them.
      folder: to write into.
      progress: called with the number of scans done and of all scans.

    Returns:
      The record: ``scans`` (number of slices, warnings) and ``slices`` (offset, digest, range and
      spacing of each).

    Raises:
      DataError: on files that cannot be read or do not belong together, naming them.
    """
    record: dict[str, list[dict[str, Any]]] = {"scans": [], "slices": []}
    codings: Codings = {}
    with (folder / "images.bin").open("wb") as images, (folder / "masks.bin").open("wb") as masks:
        for number, decoded in enumerate(in_order(lambda scan: decode(scan, reading), scans)):
            _check_coding(scans[number], decoded.values, codings)
            record["scans"].append({"slices": len(decoded.images), "warnings": decoded.warnings})
            slices = zip(decoded.images, decoded.masks, decoded.forms, strict=True)
            for index, (image, mask, form) in enumerate(slices):
                if reading.lesion_slices_only and not mask.any():
                    continue
                box = form.box and [(side.start, side.stop) for side in form.box]
                row = {"scan": number, "index": index, "spacing": decoded.spacing}
                row |= {"box": box, "scale": form.scale}
                record["slices"].append(row | _write(image, mask, images, masks))
            progress(number + 1, len(scans))
        sizes = {"images": images.tell(), "masks": masks.tell()}
    return Plan(record, {name: ("uint8", (size,)) for name, size in sizes.items()})


def decode(scan: ScanFiles, reading: Reading) -> Decoded:
    """Reads a scan and its mask.

    Raises:
      DataError: if either is unreadable, shapes differ, an intensity is NaN or infinite, or the
        mask has an unknown value.
    """
    images, geometry = read_scan(scan.image, reading.series)
    if scan.mask is None:
        masks, warnings = np.zeros(images.shape, np.uint8), ()
    else:
        masks, warnings = read_mask(scan.mask, scan.image, images.shape, geometry)
    spacing = geometry.spacing[1:] if geometry is not None and geometry.oriented else None
    values = require_labels(masks, scan.mask or scan.image, scan.labels)
    ids = np.zeros(masks.shape, np.uint8)
    for value, name in scan.labels.items():
        ids[masks == value] = 1 + reading.classes.index(name)
    form = find_form(images, crop=reading.crop, grey_scale=reading.grey_scale)
    return Decoded(images, ids, spacing, (*warnings, *form.warnings), form.slices, values)


def read_form(row: Mapping[str, Any]) -> InputForm:
    """The input form that a slice's row of the index describes, without the lungs' hull."""
    box = row["box"] and (slice(*row["box"][0]), slice(*row["box"][1]))
    return InputForm(box, row["scale"] and GreyScale(*row["scale"]))


def content_key(scans: Scans, reading: Reading) -> str:
    """Digest of every byte of every file and of how it is to be read, in 32 letters."""
    paths = sorted({path for scan in scans for path in (scan.image, scan.mask) if path})
    digests = dict(zip(paths, in_order(_digest, paths), strict=True))
    whole = hashlib.sha256(repr((DECODER_VERSION, reading)).encode())
    for scan in scans:
        files = digests[scan.image], scan.mask and digests[scan.mask]
        whole.update(repr(((scan.name, sorted(scan.labels.items())), files)).encode())
    return whole.hexdigest()[:32]


def require_labels(
    masks: Shaped[np.ndarray, "n h w"], path: Path, labels: Mapping[int, str], advice: str = ""
) -> frozenset:
    """The values of a mask; refuses unknown ones, with ``advice`` at the end of the message.

    Raises:
      DataError: naming the file, its unknown values and the known ones.
    """
    values = np.unique(masks)
    if (unknown := np.setdiff1d(values, [0, *labels])).size:
        shown = ", ".join(f"{value:g}" for value in unknown[:5])
        known = ", ".join(f"{value} {name}" for value, name in sorted(labels.items()))
        fix = f"renumber them, or have them named in the dataset.json of nnU-Net's layout{advice}"
        raise DataError(f"{path}: unknown labels {shown}; expected 0 background, {known}; {fix}")
    return frozenset(values.tolist())


def _check_coding(scan: ScanFiles, values: frozenset, codings: Codings) -> None:
    """Refuses a source with masks of both 1 and 255 for one class: 255 often means "ignore".

    Args:
      scan: the scan.
      values: of its mask.
      codings: the first mask of each source with each of the two values; this scan is added.
    """
    label = scan.labels.get(255)
    if label is None or label != scan.labels.get(1):
        return
    for value in (value for value in (1, 255) if value in values):
        codings.setdefault((scan.source, value), scan.mask)
    ones, whites = (codings.get((scan.source, value)) for value in (1, 255))
    if ones and whites:
        masks = "in one mask" if ones == whites else f"in masks of one dataset (255 in {whites})"
        why = f"either alone is {label}, but next to 1, 255 often marks pixels to be ignored"
        fix = "give each meaning one value, and ignored pixels 0"
        raise DataError(f"{ones}: labels 1 and 255 {masks}; {why}: {fix}")


def _write(
    image: Num[np.ndarray, "h w"], mask: UInt8[np.ndarray, "h w"], images: BinaryIO, masks: BinaryIO
) -> dict[str, Any]:
    image = np.ascontiguousarray(image, image.dtype.newbyteorder("="))
    images.write(b"\0" * (-images.tell() % image.itemsize))  # aligned, so that it can be mapped
    row = {
        "dtype": image.dtype.str,
        "shape": image.shape,
        "image": images.tell(),
        "mask": masks.tell(),
        "range": (float(image.min()), float(image.max())),
        "label_pixels": np.bincount(mask.ravel()).tolist(),
        "digest": pixel_digest(image),
        "mask_digest": pixel_digest(mask),
    }
    images.write(image.tobytes())
    masks.write(mask.tobytes())
    return row


def pixel_digest(pixels: Num[np.ndarray, "h w"]) -> str:
    """Digest of a slice's values and shape, in 16 letters; the number type does not count."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(pixels, np.float32).tobytes())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    """Digest of the bytes of a scan's files; the reader checks everything else."""
    whole = hashlib.sha256()
    with reading_file(path):
        for item in files_of(path):
            with item.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            whole.update(os.fsencode(item.name) + content)  # names may not be UTF-8
    return whole.hexdigest()


def in_order(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Maps in threads (decoders release the GIL), at most ``WORKERS`` items ahead."""
    with ThreadPoolExecutor(WORKERS) as pool:
        source = iter(items)
        ahead: list[Future] = [pool.submit(function, item) for item in islice(source, WORKERS)]
        try:
            while ahead:
                yield ahead.pop(0).result()
                ahead += [pool.submit(function, item) for item in islice(source, 1)]
        finally:
            pool.shutdown(cancel_futures=True)
