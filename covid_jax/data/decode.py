"""Scans to slices: read, checked against each other, written one after the other into a cache."""

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
from covid_jax.data.scan import ScanFiles
from covid_jax.errors import DataError
from covid_jax.io.read_scan import read_mask, read_scan
from covid_jax.transforms.grey_scale import GreyScale
from covid_jax.transforms.input_form import InputForm, find_form

DECODER_VERSION = 4  # of what the cache holds: a new number makes every old cache stale
WORKERS = 4
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Reading:
    """How scans are to be read.

    Attributes:
      classes: class names; a mask's ids are positions in it, counted from 1.
      lesion_slices_only: leave out slices without a lesion.
      series: SeriesInstanceUIDs to take from DICOM folders that hold several.
      crop: look for the lungs' box of each slice.
      grey_scale: look for the grey scale of each slice.
    """

    classes: tuple[str, ...]
    lesion_slices_only: bool = True
    series: tuple[str, ...] = ()
    crop: bool = False
    grey_scale: bool = False


class Decoded(NamedTuple):
    """A scan read whole.

    Attributes:
      images, masks: slices as displayed; masks hold class ids.
      spacing: of a slice's rows and columns in mm; None where the file does not say.
      warnings: what is odd about the mask's file.
      forms: how each slice becomes the network's input.
    """

    images: Num[np.ndarray, "n h w"]
    masks: UInt8[np.ndarray, "n h w"]
    spacing: tuple[float, float] | None
    warnings: tuple[str, ...]
    forms: list[InputForm]


def decode_all(
    scans: Sequence[ScanFiles], reading: Reading, folder: Path, progress: Progress
) -> Plan:
    """Decodes scans in parallel into ``images.bin`` and ``masks.bin``.

    Args:
      scans: in the dataset's order.
      reading: what to keep of them.
      folder: to write into.
      progress: told how many of how many scans are done.

    Returns:
      The record: ``scans`` (slices there were, warnings) and ``slices`` (where each lies, and its
      digest, range and spacing).

    Raises:
      DataError: on files that cannot be read or do not belong together, naming them.
    """
    record: dict[str, list[dict[str, Any]]] = {"scans": [], "slices": []}
    with (folder / "images.bin").open("wb") as images, (folder / "masks.bin").open("wb") as masks:
        results = in_order(lambda scan: decode(scan, reading), scans)
        for number, decoded in enumerate(results):
            record["scans"].append({"slices": len(decoded.images), "warnings": decoded.warnings})
            for index, (image, mask, form) in enumerate(
                zip(decoded.images, decoded.masks, decoded.forms, strict=True)
            ):
                if reading.lesion_slices_only and not mask.any():
                    continue
                row = {"scan": number, "index": index, "spacing": decoded.spacing}
                row |= _form_record(form)
                record["slices"].append(row | _write(image, mask, images, masks))
            progress(number + 1, len(scans))
        sizes = images.tell(), masks.tell()
    arrays = {"images": ("uint8", (sizes[0],)), "masks": ("uint8", (sizes[1],))}
    return Plan(record, arrays)


def decode(scan: ScanFiles, reading: Reading) -> Decoded:
    """Reads a scan and its mask.

    Raises:
      DataError: if either is unreadable, shapes differ, an intensity is NaN or infinite, or the
        mask has a value without a meaning.
    """
    images, geometry = read_scan(scan.image, reading.series)
    if scan.mask is None:
        masks, warnings = np.zeros(images.shape, np.uint8), ()
    else:
        masks, warnings = read_mask(scan.mask, scan.image, images.shape, geometry)
    spacing = geometry.spacing[1:] if geometry is not None and geometry.oriented else None
    ids = _class_ids(masks, scan, reading.classes)
    form = find_form(images, crop=reading.crop, grey_scale=reading.grey_scale)
    return Decoded(images, ids, spacing, (*warnings, *form.warnings), form.slices)


def _form_record(form: InputForm) -> dict[str, Any]:
    """What ``read_form`` reads back from the cache's index."""
    box = form.box and [(side.start, side.stop) for side in form.box]
    return {"box": box, "scale": form.scale}


def read_form(row: Mapping[str, Any]) -> InputForm:
    """The input form that a slice's row of the index describes, without the lungs' hull."""
    box = None
    if row["box"]:
        rows, columns = (slice(*ends) for ends in row["box"])
        box = rows, columns
    return InputForm(box, row["scale"] and GreyScale(*row["scale"]))


def content_key(scans: Sequence[ScanFiles], reading: Reading) -> str:
    """Digest of every byte of every file and of how it is to be read, in 32 letters."""
    paths = sorted({path for scan in scans for path in (scan.image, scan.mask) if path})
    digests = dict(zip(paths, in_order(_digest, paths), strict=True))
    whole = hashlib.sha256(repr((DECODER_VERSION, reading)).encode())
    for scan in scans:
        described = (scan.name, sorted(scan.labels.items()))
        files = digests[scan.image], scan.mask and digests[scan.mask]
        whole.update(repr((described, files)).encode())
    return whole.hexdigest()[:32]


def _class_ids(
    masks: Shaped[np.ndarray, "n h w"], scan: ScanFiles, classes: Sequence[str]
) -> UInt8[np.ndarray, "n h w"]:
    values = np.unique(masks)
    unknown = np.setdiff1d(values, [0, *scan.labels])
    if unknown.size:
        shown = ", ".join(f"{value:g}" for value in unknown[:5])
        known = ", ".join(f"{value} {name}" for value, name in sorted(scan.labels.items()))
        raise DataError(
            f"{scan.mask}: unknown labels {shown}; expected 0 background, {known}; renumber them, "
            "or have them named in the dataset.json of nnU-Net's layout"
        )
    if {1, 255} <= set(values.tolist()) and scan.labels.get(1) == scan.labels.get(255):
        raise DataError(
            f"{scan.mask}: labels 1 and 255 in one mask; either alone is {scan.labels[1]}, but "
            "beside 1, 255 often marks pixels to be ignored: give what each means one value, and "
            "what is to be ignored 0"
        )
    ids = np.zeros(masks.shape, np.uint8)
    for value, name in scan.labels.items():
        ids[masks == value] = 1 + classes.index(name)
    return ids


def _write(
    image: Num[np.ndarray, "h w"], mask: UInt8[np.ndarray, "h w"], images: BinaryIO, masks: BinaryIO
) -> dict[str, Any]:
    image = np.ascontiguousarray(image, image.dtype.newbyteorder("="))
    images.write(b"\0" * (-images.tell() % image.itemsize))  # aligned, to be mapped as it stands
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
    """Of a file's bytes, or of all files of a folder; what is neither its reader refuses."""
    whole, item = hashlib.sha256(), path
    try:
        items = sorted(path.iterdir()) if path.is_dir() else [path]
        for item in filter(Path.is_file, items):
            with item.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            whole.update(os.fsencode(item.name) + content)  # names may be no UTF-8
    except OSError as error:
        raise DataError(f"{error.filename or item}: cannot be read ({error.strerror})") from error
    return whole.hexdigest()


def in_order(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Maps in threads (decoders leave the interpreter), a few items ahead and no more."""
    with ThreadPoolExecutor(WORKERS) as pool:
        source = iter(items)
        ahead: list[Future] = [pool.submit(function, item) for item in islice(source, WORKERS)]
        try:
            while ahead:
                yield ahead.pop(0).result()
                ahead += [pool.submit(function, item) for item in islice(source, 1)]
        finally:
            for future in ahead:
                future.cancel()
