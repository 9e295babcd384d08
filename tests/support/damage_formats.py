"""Damage to what a file of each format says, which its bytes alone do not know of.

A kind is a plain function of a generator and a path. ``refused``: the file cannot be opened;
``same``: nothing may change; ``any``: it depends on the bytes that are hit.
"""

import gzip
import json
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np
from PIL import Image

from tests.support.damage import damaged_nifti

Harm = Callable[[np.random.Generator, Path], Any]
Outcome = Literal["refused", "same", "any"]


class Kind(NamedTuple):
    harm: Harm
    outcome: Outcome


def kinds(outcome: Outcome, **harms: Harm) -> dict[str, Kind]:
    return {name.replace("_", " "): Kind(harm, outcome) for name, harm in harms.items()}


# NIfTI


def _rewrite(change: Callable[[np.ndarray], np.ndarray]) -> Harm:
    def harm(rng: np.random.Generator, path: Path) -> None:
        image = nib.Nifti1Image.from_filename(path)
        array = change(np.asarray(image.dataobj))
        nib.save(nib.Nifti1Image(array, image.affine, dtype=array.dtype), path)

    return harm


def _with(value: float, array: np.ndarray) -> np.ndarray:
    array = array.astype(np.float32)
    array[1, 2, 1] = value
    return array


def _header(start: int, kind: str, *values: float | bytes) -> Harm:
    """A field of the header replaced, in a file of less than a kilobyte."""

    def harm(rng: np.random.Generator, path: Path) -> None:
        content = path.read_bytes()
        packed = content[:2] == b"\x1f\x8b"
        content = bytearray(gzip.decompress(content) if packed else content)
        struct.pack_into(kind, content, start, *values)
        path.write_bytes(gzip.compress(content, mtime=0) if packed else content)

    return harm


def _packed_otherwise(rng: np.random.Generator, path: Path) -> None:
    content = path.read_bytes()
    packed = content[:2] == b"\x1f\x8b"
    path.write_bytes(gzip.decompress(content) if packed else gzip.compress(content))


def _colours(array: np.ndarray) -> np.ndarray:
    return np.zeros(array.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])


NIFTI = {
    **kinds("any", a_header_that_lies_or_damaged_bytes=damaged_nifti),
    **kinds(
        "refused",
        a_wrong_magic=_header(344, "4s", b"ni1"),
        no_slices=_header(46, "<h", 0),
        a_slice_too_many=_header(46, "<h", 5),
        claims_10_GB=_header(40, "<4h", 3, 32767, 32767, 5),
        negative_rows=_header(44, "<h", -3),
        four_dimensions=_rewrite(lambda array: np.stack([array, array], axis=-1)),
        complex_numbers=_rewrite(lambda array: array.astype(np.complex64)),
        colours=_rewrite(_colours),
        a_row_fewer=_rewrite(lambda array: array[:, 1:]),
        a_slice_fewer=_rewrite(lambda array: array[..., 1:]),
        NaN=_rewrite(partial(_with, np.nan)),
        infinity=_rewrite(partial(_with, np.inf)),
    ),
    **kinds(
        "same",
        packed_otherwise=_packed_otherwise,
        doubles=_rewrite(lambda array: array.astype(np.float64)),
    ),
}
NIFTI_MASK = kinds(
    "refused",
    half_a_label=_rewrite(partial(_with, 0.5)),
    a_negative_label=_rewrite(partial(_with, -1.0)),
    an_unknown_label=_rewrite(partial(_with, 9.0)),
)

# Pictures


def _repaint(change: Callable[[np.ndarray], np.ndarray]) -> Harm:
    """Saved losslessly as PNG, whatever its name says."""

    def harm(rng: np.random.Generator, path: Path) -> None:
        with Image.open(path) as picture:
            array = np.asarray(picture)
        Image.fromarray(change(array)).save(path, "PNG")

    return harm


def _claim(rng: np.random.Generator, path: Path) -> None:
    """A PNG header of 100,000 x 100,000 pixels with its right checksum."""
    _repaint(np.array)(rng, path)
    content = bytearray(path.read_bytes())
    struct.pack_into(">2I", content, 16, 100_000, 100_000)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    path.write_bytes(content)


def _pages(rng: np.random.Generator, path: Path) -> None:
    with Image.open(path) as picture:
        page = Image.fromarray(np.asarray(picture))
    page.save(path, "TIFF", save_all=True, append_images=[page])


def _postscript(rng: np.random.Generator, path: Path) -> None:
    """A program, which Pillow hands to Ghostscript."""
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")


def _stained(array: np.ndarray) -> np.ndarray:
    stained = np.stack([array] * 3, axis=-1)
    stained[1, 2] = (0, 128, 0)
    return stained


PICTURE = {
    **kinds(
        "refused",
        a_wrong_magic=lambda rng, path: path.write_bytes(b"\x89PIG" + path.read_bytes()[4:]),
        claims_10_GB=_claim,
        several_pages=_pages,
        a_program=_postscript,
        a_row_fewer=_repaint(lambda array: array[1:]),
    ),
    **kinds("same", three_equal_colours=_repaint(lambda array: np.stack([array] * 3, axis=-1))),
}
PICTURE_MASK = kinds(
    "refused",
    grey=_repaint(lambda array: array // 2),
    a_stain=_repaint(_stained),
    clear=_repaint(lambda array: np.dstack([array] * 3 + [array])),
)

# DICOM slices


def _tags(**values: Any) -> Harm:
    def harm(rng: np.random.Generator, path: Path) -> None:
        import pydicom

        made = pydicom.dcmread(path)
        for tag, value in values.items():
            setattr(made, tag, value)
        made.save_as(path, enforce_file_format=True)

    return harm


def _unmarked(rng: np.random.Generator, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:128] + b"DICE" + path.read_bytes()[132:])


DICOM = kinds(
    "refused",
    a_wrong_magic=_unmarked,
    claims_10_GB=_tags(Rows=65535, Columns=65535, BitsAllocated=32, BitsStored=32, HighBit=31),
    a_row_too_many=_tags(Rows=99),
    colours=_tags(SamplesPerPixel=3, PhotometricInterpretation="RGB"),
    no_position=_tags(ImagePositionPatient=None),
    another_orientation=_tags(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
    another_spacing=_tags(PixelSpacing=[0.5, 0.5]),
    another_series=_tags(SeriesInstanceUID="1.2.9"),
    a_slice_moved_sideways=_tags(ImagePositionPatient=[3, 0, 2]),
    no_slope=_tags(RescaleSlope=0),
    endless_spacing=_tags(PixelSpacing=["1e39", "1e39"]),
    no_pixels=_tags(PixelData=b""),
    frames=_tags(NumberOfFrames=7),
    an_unknown_compression=lambda rng, path: path.write_bytes(
        path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0", 1)
    ),
)

# Tables


def _lines(change: Callable[[list[str]], list[str]]) -> Harm:
    def harm(rng: np.random.Generator, path: Path) -> None:
        lines = path.read_text().splitlines()
        path.write_text("\n".join(change(lines)))

    return harm


PATIENTS = kinds(
    "refused",
    no_columns=_lines(lambda lines: lines[1:]),
    another_column=_lines(lambda lines: ["volume,slice,person", *lines[1:]]),
    a_volume_twice=_lines(lambda lines: [*lines, lines[-1]]),
    a_row_too_short=_lines(lambda lines: [*lines, "tr_im"]),
    a_row_too_long=_lines(lambda lines: [*lines[:-1], f"{lines[-1]},Roe"]),
    a_slice_beyond=_lines(lambda lines: [*lines, f"{lines[-1].split(',')[0]},99,Doe"]),
    a_slice_below=_lines(lambda lines: [*lines, f"{lines[-1].split(',')[0]},-1,Doe"]),
    a_slice_in_words=_lines(lambda lines: [*lines, f"{lines[-1].split(',')[0]},first,Doe"]),
    another_encoding=lambda rng, path: path.write_text(path.read_text(), encoding="utf-16"),
) | kinds("same", an_unknown_volume=_lines(lambda lines: [*lines, "nobody,,Doe"]))


def _json(**values: Any) -> Harm:
    def harm(rng: np.random.Generator, path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return harm


DATASET_JSON = kinds(
    "refused",
    a_list=lambda rng, path: path.write_text("[1, 2]"),
    a_tower=lambda rng, path: path.write_text("[" * 100_000),
    an_endless_number=lambda rng, path: path.write_text('{"labels": ' + "9" * 10_000 + "}"),
    labels_in_a_list=_json(labels=["background", "lesion"]),
    no_label=_json(labels={"background": 0}),
    two_of_one_number=_json(labels={"lesion": 1, "effusion": "1"}),
    a_region=_json(labels={"background": 0, "lesion": [1, 2]}),
    a_float=_json(labels={"background": 0, "lesion": 1.5}),
    ignored=_json(labels={"background": 0, "lesion": 1, "ignore": 2}),
    another_label=_json(labels={"background": 0, "lesion": 2}),
    another_ending=_json(file_ending=".mha"),
    no_ending=_json(file_ending=None),
)
