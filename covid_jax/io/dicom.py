"""DICOM series of CT slices to stacks in HU, as a radiologist sees them. Only it knows pydicom.

Grey values are the scanner's, through the rescale slope and intercept of each slice. MONOCHROME1
only asks a viewer to show low values bright, so nothing is inverted; what pads the picture outside
the scanner's circle keeps its value, below that of air (-2000, say), as in NIfTI conversions.
"""

import contextlib
import importlib
import io
import logging
import math
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Num

from covid_jax.errors import DataError
from covid_jax.io.dicom_series import SeriesSlice, arrange
from covid_jax.io.geometry import Geometry
from covid_jax.io.quiet import suppress_warnings

if TYPE_CHECKING:
    from pydicom import Dataset

_CT = "CT"
_CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage, one file of many frames
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
)
_PLACE = {  # with the values of a lone slice that lacks them
    "PixelSpacing": (1.0, 1.0),
    "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "ImagePositionPatient": (0.0, 0.0, 0.0),
}
_SCALE = {"SliceThickness": (1.0,), "RescaleSlope": (1.0,), "RescaleIntercept": (0.0,)}
_OF_EACH_FRAME = (
    *("PixelMeasuresSequence", "PixelValueTransformationSequence"),
    *("PlaneOrientationSequence", "PlanePositionSequence"),
)
_TAGS = (
    *("SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesDescription", "Rows"),
    *("Columns", "NumberOfFrames", "SharedFunctionalGroupsSequence", *_PLACE, *_SCALE),
    "PerFrameFunctionalGroupsSequence",
)
_LARGEST = 1e6  # no position in mm, rescale slope or intercept is beyond it
_COMPRESSION = 10_000  # no CT slice shrinks as much: a small file cannot claim a huge picture


def read_series(
    path: Path, series: Collection[str] = ()
) -> tuple[Num[np.ndarray, "n h w"], Geometry]:
    """Reads one CT series, sorted by where its slices lie.

    Localizers and DICOM objects other than CT are passed over, and so are subfolders, hidden
    files and files without DICOM's mark unless they are called ``.dcm``.

    Args:
      path: the folder of a series, whatever its files are called, or one DICOM file.
      series: SeriesInstanceUIDs, one of which is taken where a folder holds several.

    Returns:
      The stack in HU, int16 where all values are whole and fit, else float32; and its geometry,
      as a NIfTI conversion of the series has it. A single slice without position is not oriented.

    Raises:
      DataError: if pydicom is not installed; if nothing, or not one CT series, is found; if a file
        is damaged, coloured or compressed in a way nothing installed decodes; if slices differ in
        size, spacing or orientation, lack a position, share one, miss a neighbour or are tilted.
    """
    try:
        importlib.import_module("pydicom.pixels")
    except ImportError as error:
        need = 'DICOM files need pydicom 3: pip install "covid_jax[dicom]"'
        raise DataError(f"{path}: {need}") from error
    with _quiet():
        slices, affine = arrange(_choose(path, series))
        array = _hounsfield(slices).transpose(2, 1, 0)
    geometry = Geometry.of(affine, array.shape, oriented=not slices[0].lacks)
    return np.ascontiguousarray(geometry.to_stack(array)), geometry


def _choose(path: Path, wanted: Collection[str]) -> list[SeriesSlice]:
    found: dict[str, list[SeriesSlice]] = {}
    others: Counter[str] = Counter()
    for file in _dicom_files(path):
        kind, slices = _inspect(file)
        others[kind] += 1
        for one in slices:
            found.setdefault(one.series, []).append(one)
    if not found:
        what = ", ".join(f"{count} x {kind}" for kind, count in others.items())
        raise DataError(f"{path}: expected CT slices, found {what or 'no DICOM file right in it'}")
    chosen = [uid for uid in found if len(found) == 1 or uid in wanted]
    if len(chosen) != 1:
        listed = "".join(
            f"\n  {uid or '(no UID)'} {slices[0].description!r}, {len(slices)} slices"
            for uid, slices in found.items()
        )
        raise DataError(f"{path}: {len(found)} series; choose one with --series UID:{listed}")
    return found[chosen[0]]


def _dicom_files(path: Path) -> Iterator[Path]:
    try:
        for entry in sorted(path.iterdir()) if path.is_dir() else [path]:
            if entry != path and (entry.name.startswith(".") or entry.is_dir()):
                continue
            if not entry.is_file():
                raise DataError(f"{entry}: no such file, or a link to nothing")
            with entry.open("rb") as file:
                marked = file.read(132)[128:] == b"DICM"
            if marked:
                yield entry
            elif entry == path or entry.suffix.lower() == ".dcm":
                raise DataError(f"{entry}: not a DICOM file (no DICM after 128 bytes); remove it")
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read ({error.strerror})") from error


def _inspect(path: Path) -> tuple[str, list[SeriesSlice]]:
    """What kind of object a file is and, if it is CT, its slices: one, or one for each frame."""
    from pydicom import dcmread

    with _damage_named(path):
        header = dcmread(_whole(path), stop_before_pixels=True, specific_tags=list(_TAGS))
        if (kind := _kind(header)) != _CT:
            return kind, []
        enhanced = "PerFrameFunctionalGroupsSequence" in header
        frames = _functional_groups(header) if enhanced else [header]
        if len(frames) != (count := int(header.get("NumberOfFrames") or 1)):
            raise ValueError(f"{count} frames, but positions for {len(frames)}")
        return kind, [_slice(path, header, number, frame) for number, frame in enumerate(frames)]


def _whole(path: Path) -> io.BytesIO:
    """A file in memory: to read past its end, as a damaged length asks for, costs nothing there."""
    with path.open("rb") as file:
        return io.BytesIO(file.read())


def _kind(header: "Dataset") -> str:
    from pydicom.uid import UID

    uid = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    if uid and uid not in _CT_CLASSES:
        return UID(uid).name
    if not uid and header.get("Modality") not in (None, "", _CT):
        return str(header.Modality)
    return "localizer" if "LOCALIZER" in (header.get("ImageType") or ()) else _CT


def _functional_groups(header: "Dataset") -> "list[Dataset]":
    """Each frame's own tags, or those all frames share, as a single slice's file has them."""
    from pydicom import Dataset

    shared = (*header.get("SharedFunctionalGroupsSequence", ()), Dataset())[0]
    frames = []
    for own in header.PerFrameFunctionalGroupsSequence:
        frames.append(Dataset())
        for name in _OF_EACH_FRAME:
            for group in own.get(name) or shared.get(name) or ():
                frames[-1].update(group)
    return frames


def _slice(path: Path, header: "Dataset", number: int, frame: "Dataset") -> SeriesSlice:
    spacing, orientation, position, (thickness,), (slope,), (intercept,) = (
        _numbers(frame, tag, default) for tag, default in (_PLACE | _SCALE).items()
    )
    axes = np.reshape(orientation, (2, 3))
    if min(spacing) < 1e-3 or slope == 0 or not np.allclose(axes @ axes.T, np.eye(2), atol=0.01):
        raise ValueError(f"spacing {spacing}, orientation {orientation}, rescale slope {slope}")
    return SeriesSlice(
        path=path,
        frame=number,
        series=str(header.get("SeriesInstanceUID") or ""),
        description=str(header.get("SeriesDescription") or ""),
        lacks=next((tag for tag in _PLACE if not frame.get(tag)), ""),
        size=(int(header.Rows), int(header.Columns)),
        spacing=spacing,
        orientation=orientation,
        position=position,
        thickness=thickness if thickness > 0 else 1.0,
        slope=slope,
        intercept=intercept,
    )


def _numbers(frame: "Dataset", tag: str, default: tuple[float, ...]) -> tuple[float, ...]:
    if (value := frame.get(tag)) in (None, ""):
        return default
    numbers = np.atleast_1d(np.asarray(value, float))
    if numbers.shape != (len(default),) or not (np.abs(numbers) <= _LARGEST).all():
        raise ValueError(f"{tag} is {value}")
    return tuple(numbers.tolist())


def _hounsfield(slices: list[SeriesSlice]) -> Num[np.ndarray, "n h w"]:
    """Decodes file by file; where one slice needs float32, all become it."""
    files: dict[Path, list[int]] = {}
    for place, one in enumerate(slices):
        files.setdefault(one.path, []).append(place)
    stack: dict[int, np.ndarray] = {}
    for path, places in files.items():
        pixels = _pixels(path, (len(places), *slices[places[0]].size))
        for place in places:
            one = slices[place]
            values = pixels[one.frame] * one.slope + one.intercept
            whole = np.abs(values).max() < 2**15 and (values == np.rint(values)).all()
            stack[place] = values.astype(np.int16 if whole else np.float32)
    return np.stack([stack[place] for place in range(len(slices))])


def _pixels(path: Path, shape: tuple[int, int, int]) -> Num[np.ndarray, "n h w"]:
    """A file's frames as stored, as many and as large as its header promised."""
    from pydicom import dcmread
    from pydicom.pixels.decoders.base import get_decoder

    with _damage_named(path):
        dataset = dcmread(_whole(path))
        colours = str(dataset.PhotometricInterpretation)
        if (samples := dataset.SamplesPerPixel) != 1 or not colours.startswith("MONOCHROME"):
            raise DataError(f"{path}: expected grey values, found {samples} samples of {colours}")
        if "ModalityLUTSequence" in dataset:
            raise DataError(f"{path}: a table of HU instead of a rescale slope is not supported")
        syntax = dataset.file_meta.TransferSyntaxUID
        try:
            available = get_decoder(syntax).is_available
        except NotImplementedError:
            available = False
        if not available:
            raise DataError(
                f"{path}: compressed as {syntax.name}, which nothing installed decodes: pip "
                'install "pylibjpeg[all]", or decompress the files (gdcmconv --raw)'
            )
        claimed = -(-math.prod(shape) * dataset.BitsAllocated // 8)
        held = len(dataset.PixelData) if "PixelData" in dataset else 0
        fits = held in (claimed, claimed + claimed % 2)
        if not (claimed <= _COMPRESSION * held if syntax.is_encapsulated else fits):
            raise DataError(
                f"{path}: its header claims {claimed} bytes of pixels ({shape[0]} x {shape[1]} x "
                f"{shape[2]}), but {held} are there; it is cut short or damaged: copy it again"
            )
        return dataset.pixel_array.reshape(shape)


@contextlib.contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """On damaged files pydicom raises errors of any kind, which become one."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        if isinstance(error, AttributeError):
            reason = f"it has no {error.name}"
        raise DataError(f"{path}: not a readable DICOM file ({reason}); copy it again") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what pydicom says of every small fault, in its log and once more as a warning."""
    log = logging.getLogger("pydicom")
    with suppress_warnings("pydicom", "PIL"):
        level = log.level
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            log.setLevel(level)
