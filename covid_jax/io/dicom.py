"""DICOM series of CT slices to stacks in HU, in display orientation (anterior up).

The only module that imports pydicom. Stored values become HU by each slice's rescale slope and
intercept. MONOCHROME1 only concerns display, so nothing is inverted. Padding outside the scanner's
circular field of view keeps its value, below that of air (such as -2000), as in NIfTI conversions.
"""

import contextlib
import functools
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Num

from covid_jax.errors import DataError, need
from covid_jax.files import reading, require_file
from covid_jax.io.dicom_series import SeriesSlice, arrange
from covid_jax.io.formats import DICOM, is_dicom, stem_of
from covid_jax.io.geometry import Geometry, Stack, as_displayed

if TYPE_CHECKING:
    from pydicom import Dataset

_CT = "CT"
_CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage, one file of many frames
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
)
_POSITION_TAGS = {  # with the values of a lone slice that lacks them
    "PixelSpacing": (1.0, 1.0),
    "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "ImagePositionPatient": (0.0, 0.0, 0.0),
}
_SCALE_TAGS = {"SliceThickness": (1.0,), "RescaleSlope": (1.0,), "RescaleIntercept": (0.0,)}
_OF_EACH_FRAME = (
    *("PixelMeasuresSequence", "PixelValueTransformationSequence"),
    *("PlaneOrientationSequence", "PlanePositionSequence"),
)
_TAGS = (
    *("SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesDescription", "Rows"),
    *("Columns", "NumberOfFrames", "SharedFunctionalGroupsSequence", *_POSITION_TAGS, *_SCALE_TAGS),
    "PerFrameFunctionalGroupsSequence",
)
_LARGEST = 1e6  # no position in mm, rescale slope or intercept is beyond it
_COMPRESSION = 10_000  # no CT slice shrinks as much: a small file cannot claim a huge picture
_HEADER, _UNPACKED = 1 << 24, 1 << 30  # most bytes of a header, and of a deflated file


def read_series(path: Path, series: Collection[str] = ()) -> tuple[Stack, Geometry]:
    """Reads one CT series, sorted by its slices' positions.

    Localizers, DICOM objects other than CT, subfolders and hidden files are skipped, and so are
    files that do not begin as DICOM does unless they are named ``.dcm``.

    Args:
      path: the folder of a series, with files of any names, or one DICOM file.
      series: SeriesInstanceUIDs to choose from where a folder holds several series.

    Returns:
      The stack in HU, int16 where all values are whole and fit, else float32; and its geometry,
      as a NIfTI conversion of the series has it. A single slice without position is not oriented.

    Raises:
      DataError: if pydicom is not installed; if there is no CT series or more than one; if a file
        is damaged, coloured, or compressed in a format for which no decoder is installed; if slices
        differ in size, spacing or orientation, have no position or the same position, if a slice is
        missing, or if the series is tilted.
    """
    need("pydicom.pixels", f"{path}: DICOM", "dicom", DataError)
    slices, affine = arrange(_choose(path, series))
    array = _hounsfield(slices).transpose(2, 1, 0)
    geometry = Geometry(affine, array.shape, oriented=not slices[0].lacks)
    return as_displayed(array, geometry, str(path))


def read_headers(path: Path, series: Collection[str] = ()) -> "list[tuple[Path, Dataset]]":
    """The files of one CT series in the order of its slices, with headers but no pixel data.

    Arguments and errors are those of ``read_series``.
    """
    slices, _ = arrange(_choose(path, series))
    files = dict.fromkeys(ct_slice.path for ct_slice in slices)
    return [(file, _read(file, _HEADER, stop_before_pixels=True)) for file in files]


def _choose(path: Path, wanted: Collection[str]) -> list[SeriesSlice]:
    by_series: dict[str, list[SeriesSlice]] = {}
    others: Counter[str] = Counter()
    for file in _dicom_files(path):
        kind, slices = _inspect(file)
        others[kind] += 1
        for ct_slice in slices:
            by_series.setdefault(ct_slice.series, []).append(ct_slice)
    if not by_series:
        what = ", ".join(f"{count} x {kind}" for kind, count in others.items())
        raise DataError(f"{path}: expected CT slices, found {what or 'no DICOM file right in it'}")
    chosen = [uid for uid in by_series if len(by_series) == 1 or uid in wanted]
    if len(chosen) != 1:
        listed = "".join(
            f"\n  {uid or '(no UID)'} {slices[0].description!r}, {len(slices)} slices"
            for uid, slices in by_series.items()
        )
        raise DataError(f"{path}: {len(by_series)} series; choose one with --series UID:{listed}")
    return by_series[chosen[0]]


def _dicom_files(path: Path) -> Iterator[Path]:
    with reading(path):
        for entry in sorted(path.iterdir()) if path.is_dir() else [path]:
            if entry != path and (entry.name.startswith(".") or entry.is_dir()):
                continue
            require_file(entry)
            if is_dicom(entry):
                yield entry
            elif entry == path or stem_of(entry, DICOM) is not None:
                raise DataError(f"{entry}: not DICOM by its start; copy it again, or remove it")


def _inspect(path: Path) -> tuple[str, list[SeriesSlice]]:
    """A file's kind of DICOM object and, if it is CT, its slices: one, or one per frame."""
    with _damage_named(path):
        header = _read(path, _HEADER, stop_before_pixels=True, specific_tags=list(_TAGS))
        if (kind := _kind(header)) != _CT:
            return kind, []
        enhanced = "PerFrameFunctionalGroupsSequence" in header
        frames = _functional_groups(header) if enhanced else [header]
        if len(frames) != (count := int(header.get("NumberOfFrames") or 1)):
            raise _HeaderError(f"{count} frames, but positions for {len(frames)}")
        return kind, [_slice(path, header, number, frame) for number, frame in enumerate(frames)]


def _read(path: Path, most: int, **options: Any) -> "Dataset":
    """A file's data set with its transfer syntax; of a deflated file at most ``most`` bytes."""
    from pydicom import dcmread, uid
    from pydicom.filereader import read_file_meta_info

    with path.open("rb") as file:  # in memory, to read past its end as a damaged length asks for
        content = io.BytesIO(file.read())
    meta = None
    if content.getvalue()[128:132] == b"DICM":
        meta = read_file_meta_info(path)
        if meta.TransferSyntaxUID == uid.DeflatedExplicitVRLittleEndian:
            start = 132 + 12 + meta.FileMetaInformationGroupLength
            unpacked = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content.read()[start:], most)
            content, meta.TransferSyntaxUID = io.BytesIO(unpacked), uid.ExplicitVRLittleEndian
    dataset = dcmread(content, force=True, **options)
    if meta is not None:
        dataset.file_meta = meta
    elif "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _kind(header: "Dataset") -> str:
    from pydicom.uid import UID

    uid = UID(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
    if uid and uid not in _CT_CLASSES:
        return uid.name if uid.name != uid else "an unknown object"  # no text of the header's
    if not uid and (modality := header.get("Modality") or _CT) != _CT:
        return modality if re.fullmatch("[A-Z]{2}", str(modality)) else "another modality"
    return "localizer" if "LOCALIZER" in (header.get("ImageType") or ()) else _CT


def _functional_groups(header: "Dataset") -> "list[Dataset]":
    """A data set per frame with the tags that a single slice's file has."""
    from pydicom import Dataset

    shared = (*header.get("SharedFunctionalGroupsSequence", ()), Dataset())[0]
    frames = []
    for groups in header.PerFrameFunctionalGroupsSequence:
        frames.append(Dataset())
        for name in _OF_EACH_FRAME:
            for group in groups.get(name) or shared.get(name) or ():
                frames[-1].update(group)
    return frames


def _slice(path: Path, header: "Dataset", number: int, frame: "Dataset") -> SeriesSlice:
    spacing, orientation, position, (thickness,), (slope,), (intercept,) = (
        _numbers(frame, tag, default) for tag, default in (_POSITION_TAGS | _SCALE_TAGS).items()
    )
    axes = np.reshape(orientation, (2, 3))
    if min(spacing) < 1e-3 or slope == 0 or not np.allclose(axes @ axes.T, np.eye(2), atol=0.01):
        raise _HeaderError(f"spacing {spacing}, orientation {orientation}, rescale slope {slope}")
    series = str(header.get("SeriesInstanceUID") or "")
    description = str(header.get("SeriesDescription") or "")
    lacks = next((tag for tag in _POSITION_TAGS if not frame.get(tag)), "")
    about = path, number, series, description, lacks, (int(header.Rows), int(header.Columns))
    thickness = thickness if thickness > 0 else 1.0
    return SeriesSlice(*about, spacing, orientation, position, thickness, slope, intercept)


def _numbers(frame: "Dataset", tag: str, default: tuple[float, ...]) -> tuple[float, ...]:
    if (value := frame.get(tag)) in (None, ""):
        return default
    numbers = tuple(np.atleast_1d(np.asarray(value, float)).ravel().tolist())
    if len(numbers) != len(default) or not all(abs(number) <= _LARGEST for number in numbers):
        raise _HeaderError(f"{tag} is {numbers}")
    return numbers


def _hounsfield(slices: list[SeriesSlice]) -> Num[np.ndarray, "n h w"]:
    """Decodes the slices one by one; if one of them needs float32, the stack is float32."""
    frames = Counter(ct_slice.path for ct_slice in slices)
    decode = functools.lru_cache(maxsize=2)(_pixels)  # a file of many frames is decoded once
    stack = []
    for ct_slice in slices:
        pixels = decode(ct_slice.path, (frames[ct_slice.path], *ct_slice.size))
        values = pixels[ct_slice.frame] * ct_slice.slope + ct_slice.intercept
        whole = np.abs(values).max() < 2**15 and (values == np.rint(values)).all()
        stack.append(values.astype(np.int16 if whole else np.float32))
    return np.stack(stack)


def _pixels(path: Path, shape: tuple[int, int, int]) -> Num[np.ndarray, "n h w"]:
    """A file's frames as stored, checked against the shape in its header."""
    from pydicom.pixels.decoders.base import get_decoder

    with _damage_named(path):
        dataset = _read(path, min(math.prod(shape) * 8 + _HEADER, _UNPACKED))
        samples, colours = dataset.SamplesPerPixel, str(dataset.PhotometricInterpretation)
        if samples != 1 or not colours.startswith("MONOCHROME"):
            raise DataError(f"{path}: expected grey values, found {samples} samples of colour")
        if "ModalityLUTSequence" in dataset:
            raise DataError(f"{path}: a table of HU instead of a rescale slope is not supported")
        syntax = dataset.file_meta.TransferSyntaxUID
        available = False
        with contextlib.suppress(NotImplementedError):
            available = get_decoder(syntax).is_available
        if not available:
            advice = 'pip install "covid_jax[dicom]", or decompress the files (gdcmconv --raw)'
            form = f"compressed as {syntax.name}, which nothing installed decodes"
            raise DataError(f"{path}: {form}: {advice}")
        claimed = -(-math.prod(shape) * dataset.BitsAllocated // 8)
        pixels = dataset.PixelData if "PixelData" in dataset else b""
        if syntax.is_encapsulated:
            fits = claimed <= _COMPRESSION * len(pixels)
        else:  # beyond its pixels there may be padding (PS3.5, 8.1.1), but no other pixels
            fits = claimed <= len(pixels) and len(set(pixels[claimed:])) < 2
        if not fits:
            claim = f"{claimed} bytes of pixels ({' x '.join(map(str, shape))})"
            raise DataError(f"{path}: its header claims {claim}, but {len(pixels)} are there")
        if len(pixels) > claimed + claimed % 2 and not syntax.is_encapsulated:
            dataset["PixelData"].value = pixels[: claimed + claimed % 2]  # or it makes more frames
        return dataset.pixel_array.reshape(shape)


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns the errors of any kind that pydicom raises on damaged files into a DataError.

    The text of these errors is not shown: it quotes the header, which may contain a patient's name.
    """
    try:
        yield
    except DataError:
        raise
    except _HeaderError as error:
        reason = str(error)
    except AttributeError as error:
        reason = f"it has no {error.name}"
    except Exception as error:
        reason = type(error).__name__
    else:
        return
    raise DataError(f"{path}: not a readable DICOM file ({reason}); copy it again")


class _HeaderError(ValueError):
    """An impossible value in a header; its message contains no text from the header."""
