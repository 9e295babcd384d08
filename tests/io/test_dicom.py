"""DICOM series written with pydicom itself, read back against hand-placed voxels and nibabel."""

import io
import itertools
import logging
import struct
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from covid_jax.errors import CovidJaxError, DataError
from covid_jax.io.dicom import read_series
from covid_jax.io.nifti import read_stack, write_like
from covid_jax.io.read_scan import read_scan

pydicom = pytest.importorskip("pydicom", minversion="3")
from pydicom import Dataset, uid  # noqa: E402
from pydicom.dataset import FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels.decoders import JPEGLosslessSV1Decoder  # noqa: E402
from pydicom.sequence import Sequence as Items  # noqa: E402

SERIES = "1.2.826.0.1.3680043.8.498.1"
AXIAL = (1, 0, 0, 0, 1, 0)  # rows run to the patient's left, columns to the back
TURN = np.deg2rad(20)
OBLIQUE = (1, 0, 0, 0, np.cos(TURN), np.sin(TURN))
ORIENTATIONS = {
    "axial": AXIAL,
    "prone": (-1, 0, 0, 0, -1, 0),
    "mirrored": (-1, 0, 0, 0, 1, 0),  # its normal points to the feet
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": OBLIQUE,
}
DY, DX, DZ = 0.75, 0.5, 2.0  # mm: between rows, columns, slices
ORIGIN = np.array([-30.0, 12.5, 400.0])  # of the first voxel, in DICOM's left-back-head mm
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def values(seed: int = 0, shape: tuple[int, ...] = (3, 6, 5)) -> np.ndarray:
    """Slices, rows, columns of HU as a scanner stores them."""
    return np.random.default_rng(seed).integers(-1000, 1500, shape).astype(np.int16)


def dataset(pixels: np.ndarray, position: Iterable[float] | None = ORIGIN, **tags: Any) -> Dataset:
    """One CT slice; any tag can be given another value, or left out as None."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", uid.ExplicitVRLittleEndian)
    known = {
        "SOPClassUID": uid.CTImageStorage,
        "SOPInstanceUID": uid.generate_uid(entropy_srcs=[repr(position)]),
        "SeriesInstanceUID": SERIES,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImageOrientationPatient": list(AXIAL),
        "ImagePositionPatient": None if position is None else [f"{x:.6f}" for x in position],
        "PixelSpacing": [DY, DX],
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": 8 * pixels.itemsize,
        "HighBit": 8 * pixels.itemsize - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    for tag, value in (known | tags).items():
        if value is not None:
            setattr(made, tag, value)
    if "PixelData" in made:
        made["PixelData"].VR = "OW" if pixels.itemsize > 1 else "OB"
    if made.file_meta.TransferSyntaxUID.is_encapsulated:
        made["PixelData"].VR, made["PixelData"].is_undefined_length = "OB", True
    return made


def save(path: Path, made: Dataset) -> Path:
    made.save_as(path, enforce_file_format=True)
    return path


def positions(count: int, orientation: Sequence[float] = AXIAL, step: float = DZ) -> np.ndarray:
    normal = np.cross(orientation[:3], orientation[3:])
    return ORIGIN + step * np.arange(count)[:, None] * normal


def save_series(
    folder: Path, hu: np.ndarray, places: np.ndarray | None = None, **tags: Any
) -> Path:
    """Files called IM0, IM1, ... without ending, at ``DZ`` along the normal unless told."""
    folder.mkdir(exist_ok=True)
    if places is None:
        places = positions(len(hu), tags.get("ImageOrientationPatient", AXIAL))
    for number, (pixels, place) in enumerate(zip(hu, places, strict=True)):
        save(folder / f"IM{number}", dataset(pixels, place, **tags))
    return folder


def refusal(path: Path, series: Sequence[str] = ()) -> str:
    with pytest.raises(DataError) as caught:
        read_series(path, series)
    return str(caught.value)


# Geometry


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_bright_voxel_stays_where_it_lies_in_the_patient(tmp_path: Path, name: str) -> None:
    orientation = ORIENTATIONS[name]
    row, column = np.reshape(orientation, (2, 3)).astype(float)
    hu = values()
    hu[2, 4, 1] = 2000  # slice 2, row 4, column 1
    point = ORIGIN + 1 * DX * row + 4 * DY * column + 2 * DZ * np.cross(row, column)
    folder = save_series(tmp_path / "series", hu, ImageOrientationPatient=list(orientation))

    stack, geometry = read_series(folder)
    right_front_head = LPS_TO_RAS @ [*point, 1.0]
    np.testing.assert_allclose(geometry.affine @ [1, 4, 2, 1], right_front_head, atol=1e-5)
    assert geometry.oriented

    write_like(tmp_path / "series.nii", stack, geometry)
    image = nib.load(tmp_path / "series.nii")
    voxel = np.linalg.inv(image.affine) @ right_front_head
    assert image.get_fdata()[tuple(np.rint(voxel[:3]).astype(int))] == 2000
    np.testing.assert_array_equal(image.get_fdata(), hu.transpose(2, 1, 0))
    np.testing.assert_allclose(image.header.get_zooms(), (DX, DY, DZ), rtol=1e-6)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_slices_are_in_display_orientation(tmp_path: Path, name: str) -> None:
    """By nibabel: the same array, its affine from DICOM's own formula, in its nearest axes."""
    row, column = np.reshape(ORIENTATIONS[name], (2, 3)).astype(float)
    hu = values()
    affine = np.eye(4)
    affine[:3, :3] = np.stack([DX * row, DY * column, DZ * np.cross(row, column)], axis=1)
    affine[:3, 3] = ORIGIN
    nifti = nib.Nifti1Image(hu.transpose(2, 1, 0), LPS_TO_RAS @ affine)
    canonical = nib.as_closest_canonical(nifti)
    shown = np.asarray(canonical.dataobj)[::-1, ::-1].transpose(2, 1, 0)

    folder = save_series(tmp_path, hu, ImageOrientationPatient=list(ORIENTATIONS[name]))
    stack, geometry = read_series(folder)
    np.testing.assert_array_equal(stack, shown)
    np.testing.assert_allclose(geometry.spacing, canonical.header.get_zooms()[::-1], rtol=1e-6)
    assert stack.flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "shape", "spacing", "corner"),
    [  # corner: (slice, row, column) where the first file's first pixel is displayed, by hand
        ("axial", (3, 6, 5), (DZ, DY, DX), (0, 0, 0)),
        ("prone", (3, 6, 5), (DZ, DY, DX), (0, 5, 4)),
        ("mirrored", (3, 6, 5), (DZ, DY, DX), (2, 0, 4)),
        ("coronal", (6, 3, 5), (DY, DZ, DX), (5, 0, 0)),  # slices run back, rows down
        ("sagittal", (6, 5, 3), (DY, DX, DZ), (5, 0, 2)),  # rows run back, slices to the right
    ],
)
def test_each_acquisition_is_turned_upright(
    tmp_path: Path, name: str, shape: tuple, spacing: tuple, corner: tuple
) -> None:
    hu = values()
    hu[0, 0, 0] = 3000
    folder = save_series(tmp_path, hu, ImageOrientationPatient=list(ORIENTATIONS[name]))
    stack, geometry = read_series(folder)
    assert stack.shape == shape
    assert stack[corner] == 3000
    np.testing.assert_allclose(geometry.spacing, spacing)


def test_a_nifti_mask_of_the_series_falls_on_it_in_any_axis_order(tmp_path: Path) -> None:
    hu = values()
    stack, geometry = read_series(
        save_series(tmp_path / "series", hu, ImageOrientationPatient=list(OBLIQUE))
    )
    volume = nib.Nifti1Image(hu.transpose(2, 1, 0), geometry.affine)
    for codes in ("RAS", "LPS", "PSR", "IAL"):
        target = nib.orientations.axcodes2ornt(codes)
        turn = nib.orientations.ornt_transform(nib.io_orientation(volume.affine), target)
        nib.save(volume.as_reoriented(turn), tmp_path / f"{codes}.nii")
        mask, _ = read_stack(tmp_path / f"{codes}.nii", like=geometry)
        np.testing.assert_array_equal(mask, stack)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_slices_are_sorted_by_position_not_name_or_number(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    hu, places = values(), positions(3)
    for number, place in enumerate(order):
        made = dataset(hu[place], places[place], InstanceNumber=number + 1)
        save(tmp_path / f"{number}.dcm", made)
    stack, geometry = read_series(tmp_path)
    np.testing.assert_array_equal(stack, hu)
    np.testing.assert_allclose((LPS_TO_RAS @ geometry.affine)[:3, 3], ORIGIN)


def test_positions_rounded_by_the_scanner_are_even_enough(tmp_path: Path) -> None:
    places = positions(9, step=0.625).round(1)  # 0.6 and 0.7 mm apart
    _, geometry = read_series(save_series(tmp_path, values(shape=(9, 2, 2)), places))
    assert geometry.spacing[0] == pytest.approx(0.625)  # 5.0 mm in 8 steps


def test_a_lone_slice_without_position_is_taken_as_it_is_stored(tmp_path: Path) -> None:
    hu = values()[0]
    path = save(tmp_path / "slice", dataset(hu, None, ImageOrientationPatient=None))
    stack, geometry = read_series(path)
    np.testing.assert_array_equal(stack, hu[None])
    assert not geometry.oriented
    assert geometry.spacing == (1.0, DY, DX)


@pytest.mark.parametrize(("said", "taken"), [(5, 5.0), (0, 1.0), (None, 1.0)])
def test_a_lone_slice_is_as_thick_as_it_says(
    tmp_path: Path, said: float | None, taken: float
) -> None:
    path = save(tmp_path / "slice", dataset(values()[0], SliceThickness=said))
    _, geometry = read_series(path)
    assert geometry.oriented
    assert geometry.spacing == (taken, DY, DX)


def test_real_slices_are_in_hounsfield_units(real_data: Path) -> None:
    stack, geometry = read_series(real_data / "io")  # its NIfTI file has no DICOM preamble
    assert (stack.shape, stack.dtype) == ((2, 512, 512), np.int16)
    assert (stack.min(), stack.max()) == (-2048, 1502)  # the scanner's padding, and bone
    assert geometry.spacing == (1.0, 0.625, 0.625)
    np.testing.assert_array_equal(geometry.affine, np.diag([-0.625, -0.625, 1.0, 1.0]))
    above_the_chest = stack[:, 40:80, 200:300]
    assert np.median(above_the_chest) == pytest.approx(-1000, abs=20)  # air
    for number in (0, 1):
        path = real_data / "io" / f"chest_slice_{number}.dcm"
        tail = np.frombuffer(path.read_bytes()[-512 * 512 * 2 :], "<i2").reshape(512, 512)
        np.testing.assert_array_equal(stack[number], tail)  # slope 1, intercept 0
        np.testing.assert_array_equal(read_series(path)[0][0], tail)


def test_a_real_jpeg_lossless_series_is_read(real_data: Path) -> None:
    pytest.importorskip("gdcm")
    stack, geometry = read_series(real_data / "io/jpeg_lossless_series")
    assert (stack.shape, stack.dtype) == ((8, 512, 512), np.int16)
    files = sorted((real_data / "io/jpeg_lossless_series").iterdir())
    slices = [pydicom.dcmread(file) for file in files]
    slices.sort(key=lambda one: one.ImagePositionPatient[2])
    for made, hu in zip(slices, stack, strict=True):  # by pydicom's own formula, on the same codec
        np.testing.assert_array_equal(hu, pydicom.pixels.apply_rescale(made.pixel_array, made))
    assert -1100 < np.median(stack[:, :, 250:260].min(axis=(1, 2))) < -900  # air
    assert geometry.oriented


# Values


@pytest.mark.parametrize(
    ("slopes", "intercept", "dtype"),
    [
        ((1, 1, 1), -1024, np.int16),
        ((2, 1, 3), -1000, np.int16),  # of each slice its own
        ((1, 0.5, 1), -1024, np.float32),
        ((1, 1, 1), -0.25, np.float32),
        ((1, 1, 1), 32000, np.float32),  # whole, but beyond int16
    ],
)
def test_rescale_gives_hounsfield_units(
    tmp_path: Path, slopes: tuple[float, ...], intercept: float, dtype: type
) -> None:
    stored = np.arange(2000, 2090).astype(np.uint16).reshape(3, 6, 5)
    for number, (slope, place) in enumerate(zip(slopes, positions(3), strict=True)):
        made = dataset(stored[number], place, RescaleSlope=slope, RescaleIntercept=intercept)
        save(tmp_path / str(number), made)
    stack, _ = read_series(tmp_path)
    expected = np.array(slopes)[:, None, None] * stored + intercept
    assert stack.dtype == dtype
    np.testing.assert_array_equal(stack, expected)


def test_without_rescale_tags_stored_values_are_hounsfield_units(tmp_path: Path) -> None:
    hu = values()
    stack, _ = read_series(save_series(tmp_path, hu, RescaleSlope=None, RescaleIntercept=None))
    np.testing.assert_array_equal(stack, hu)


def test_twelve_stored_bits_keep_their_sign(tmp_path: Path) -> None:
    raw = np.array([[0x0FFF, 0x0800, 0x07FF, 0xF001]], np.int32).astype(np.uint16)
    made = dataset(raw, BitsStored=12, HighBit=11, PixelRepresentation=1)
    stack, _ = read_series(save(tmp_path / "slice", made))
    np.testing.assert_array_equal(stack[0], [[-1, -2048, 2047, 1]])  # the upper four bits are void


def test_monochrome1_and_padding_change_no_value(tmp_path: Path) -> None:
    hu = values()
    hu[:, 0] = -2000
    tags = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": -2000}
    stack, _ = read_series(save_series(tmp_path, hu, **tags))
    np.testing.assert_array_equal(stack, hu)


@pytest.mark.parametrize(
    ("tag", "value", "named"),
    [
        ("RescaleSlope", 0, "rescale slope 0"),
        ("RescaleSlope", 1e300, "RescaleSlope is"),
        ("PixelSpacing", [0, 0.5], "spacing (0.0, 0.5)"),
        ("PixelSpacing", [0.5], "PixelSpacing is"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "orientation (1.0, 0.0, 0.0, 1.0"),
        ("ImagePositionPatient", [0, 0, 1e9], "ImagePositionPatient is"),
        ("ModalityLUTSequence", Items([Dataset()]), "table of HU"),
    ],
)
def test_impossible_headers_are_refused(
    tmp_path: Path, tag: str, value: object, named: str
) -> None:
    message = refusal(save(tmp_path / "slice", dataset(values()[0], **{tag: value})))
    assert "slice: " in message
    assert named in message


# Transfer syntaxes


def jpeg2000(stored: np.ndarray) -> dict[str, Any]:
    """Tags of a slice packed with Pillow, without loss."""
    if "JPEG2000" not in Image.registered_extensions().values():
        pytest.skip("Pillow was built without JPEG 2000")
    packed = io.BytesIO()
    Image.fromarray(stored).save(packed, "JPEG2000", no_jp2=True, irreversible=False)
    pixels = encapsulate([packed.getvalue()])
    return {"PixelData": pixels, "TransferSyntaxUID": uid.JPEG2000Lossless}


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.RLELossless,
        uid.JPEG2000Lossless,
    ],
    ids=lambda syntax: syntax.name,
)
def test_what_pydicom_decodes_is_read(tmp_path: Path, syntax: uid.UID) -> None:
    stored = (values(shape=(40, 32)) + 1024).astype(np.uint16)
    tags: dict[str, Any] = {"RescaleIntercept": -1024}
    if syntax == uid.JPEG2000Lossless:
        tags |= jpeg2000(stored)
    elif syntax == uid.ExplicitVRBigEndian:
        tags |= {"PixelData": stored.astype(">u2").tobytes(), "TransferSyntaxUID": syntax}
    elif syntax != uid.RLELossless:
        tags |= {"TransferSyntaxUID": syntax}
    made = dataset(stored, **tags)
    if syntax == uid.RLELossless:
        made.compress(syntax, generate_instance_uid=False)
    stack, _ = read_series(save(tmp_path / "slice", made))
    np.testing.assert_array_equal(stack[0], values(shape=(40, 32)))


def test_an_empty_slice_that_shrinks_to_nothing_is_read(tmp_path: Path) -> None:
    blank = np.zeros((512, 512), np.uint16)
    path = save(tmp_path / "slice", dataset(blank, **jpeg2000(blank)))
    assert path.stat().st_size < blank.nbytes / 400
    np.testing.assert_array_equal(read_series(path)[0][0], blank)


@pytest.mark.parametrize("excess", [1, 126, 2000])
def test_padding_beyond_the_pixels_is_passed_over(tmp_path: Path, excess: int) -> None:
    """PS3.5, 8.1.1 tells readers to accept it."""
    hu = values()[0]
    path = save(tmp_path / "slice", dataset(hu, PixelData=hu.tobytes() + bytes(2 * excess)))
    np.testing.assert_array_equal(read_series(path)[0][0], hu)


def test_an_odd_number_of_bytes_is_padded(tmp_path: Path) -> None:
    grey = np.arange(25, dtype=np.uint8).reshape(5, 5)
    path = save(tmp_path / "slice", dataset(grey, PixelData=grey.tobytes() + b"\0"))
    np.testing.assert_array_equal(read_series(path)[0][0], grey)


def test_a_missing_decoder_is_named_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JPEGLosslessSV1Decoder, "_available", {})
    for syntax, name in (
        (uid.JPEGLosslessSV1, "JPEG Lossless, Non-Hierarchical, First-Order Prediction"),
        (uid.MPEG2MPML, "MPEG2 Main Profile / Main Level"),  # no decoder in pydicom at all
    ):
        tags = {"PixelData": encapsulate([b"\xff\xd8\xff\xd9"]), "TransferSyntaxUID": syntax}
        message = refusal(save(tmp_path / "slice", dataset(values()[0], **tags)))
        assert name in message
        assert 'pip install "covid_jax[dicom]"' in message


# What a folder holds


def test_two_series_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    thin, thick = values(1), values(2)[:2]
    save_series(tmp_path, thin, SeriesInstanceUID="1.2.3", SeriesDescription="Lung 1.0")
    for number, pixels in enumerate(thick):
        tags = {"SeriesInstanceUID": "1.2.4", "SeriesDescription": "Soft 5.0"}
        save(tmp_path / f"thick{number}", dataset(pixels, positions(2)[number], **tags))
    for wanted in ((), ("9.9",), ("1.2.3", "1.2.4")):
        message = refusal(tmp_path, wanted)
        assert "--series UID" in message
        assert "1.2.3 'Lung 1.0', 3 slices" in message
        assert "1.2.4 'Soft 5.0', 2 slices" in message
    np.testing.assert_array_equal(read_series(tmp_path, ("1.2.3", "9.9"))[0], thin)
    np.testing.assert_array_equal(read_series(tmp_path, ("1.2.4",))[0], thick)


def test_one_series_needs_no_choice(tmp_path: Path) -> None:
    stack, _ = read_series(save_series(tmp_path, values()), ("a UID of another folder",))
    np.testing.assert_array_equal(stack, values())


@pytest.mark.parametrize("scout_series", [SERIES, "1.2.9"])
def test_what_is_no_ct_slice_is_passed_over(tmp_path: Path, scout_series: str) -> None:
    save_series(tmp_path, values())
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": scout_series}
    save(tmp_path / "AA", dataset(values(shape=(9, 9)), **scout))
    kind = {"SOPClassUID": uid.SegmentationStorage, "SeriesInstanceUID": "1.2.8", "Rows": None}
    save(tmp_path / "mask.dcm", dataset(values()[0], **kind))
    directory = dataset(values()[0], None, SOPClassUID=None)  # its class stands in its preface
    directory.file_meta.MediaStorageSOPClassUID = uid.MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.7"
    save(tmp_path / "DICOMDIR", directory)
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / ".DS_Store").write_bytes(b"\0" * 300)
    (tmp_path / "._IM0.dcm").write_bytes(b"\0\5\x16\7")  # macOS leaves such beside copied files
    (tmp_path / "more").mkdir()
    np.testing.assert_array_equal(read_series(tmp_path)[0], values())


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({"SOPClassUID": uid.MRImageStorage}, "MR Image Storage"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    ],
)
def test_other_objects_are_refused_by_kind(tmp_path: Path, tags: dict, kind: str) -> None:
    message = refusal(save_series(tmp_path, values(), **tags))
    assert str(tmp_path) in message
    assert f"3 x {kind}" in message


@pytest.mark.parametrize(
    ("sop_class", "modality", "readable"),
    [
        (None, "CT", True),
        (None, None, True),
        (None, "MR", False),
        (uid.CTImageStorage, "OT", True),
    ],
)
def test_without_a_class_the_modality_tells(
    tmp_path: Path, sop_class: str | None, modality: str | None, readable: bool
) -> None:
    made = dataset(values()[0], SOPClassUID=sop_class, Modality=modality)
    made.preamble = bytes(128)
    made.save_as(tmp_path / "slice", enforce_file_format=False)
    if readable:
        np.testing.assert_array_equal(read_series(tmp_path / "slice")[0][0], values()[0])
    else:
        assert "1 x MR" in refusal(tmp_path / "slice")


def test_empty_and_missing_places_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "deeper").mkdir()
    assert "empty: expected CT slices, found no DICOM file" in refusal(tmp_path / "empty")
    assert "absent: no such file" in refusal(tmp_path / "absent")


@pytest.mark.parametrize("name", ["slice.dcm", "SLICE.DCM"])
def test_a_dcm_file_that_is_not_dicom_is_refused_by_name(tmp_path: Path, name: str) -> None:
    save_series(tmp_path, values())
    (tmp_path / name).write_bytes(b"\x89PNG")
    for path in (tmp_path, tmp_path / name):
        assert f"{name}: not DICOM" in refusal(path)


@pytest.mark.parametrize("implicit", [True, False])
def test_slices_without_preamble_are_read(tmp_path: Path, implicit: bool) -> None:
    """A data set alone, as archives of before part 10 export it."""
    hu = values()
    for number, place in enumerate(positions(3)):
        made = dataset(hu[number], place)
        del made.file_meta
        made.save_as(
            tmp_path / f"IM{number}",
            implicit_vr=implicit,
            little_endian=True,
            enforce_file_format=False,
        )
    assert (tmp_path / "IM0").read_bytes()[:4] == b"\x08\0\x08\0"  # ImageType
    np.testing.assert_array_equal(read_series(tmp_path)[0], hu)


def test_a_single_file_without_the_mark_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "slice", dataset(values()[0]))
    path.write_bytes(path.read_bytes().replace(b"DICM", b"DICN", 1))
    assert "slice: not DICOM" in refusal(path)


def test_links_to_nothing_and_to_themselves_are_refused(tmp_path: Path) -> None:
    save_series(tmp_path, values())
    (tmp_path / "ring").symlink_to("ring")
    assert "ring: " in refusal(tmp_path)
    assert "ring: " in refusal(tmp_path / "ring")


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_series(tmp_path, values())
    opened = Path.open

    def deny(path: Path, *args: Any) -> Any:
        if path.name == "IM1":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args)

    monkeypatch.setattr(Path, "open", deny)
    assert "IM1: cannot be read (Permission denied)" in refusal(tmp_path)


# Slices that make no volume


def test_a_missing_slice_is_refused_between_its_neighbours(tmp_path: Path) -> None:
    places = positions(5)[[0, 1, 3, 4]]
    message = refusal(save_series(tmp_path, values(shape=(4, 2, 2)), places))
    assert message.startswith(f"{tmp_path}/IM1: slices are missing")
    assert f"{tmp_path}/IM2, 4.00 mm apart where 2.00 mm is usual" in message


def test_uneven_slices_are_refused(tmp_path: Path) -> None:
    places = positions(6)
    places[3:, 2] += 0.6  # a gap of 2.6 mm among 2.0
    message = refusal(save_series(tmp_path, values(shape=(6, 2, 2)), places))
    assert "even spacing" in message  # of 2.12 mm, so that the third lies 4.24 mm up, not 4


def test_a_slice_moved_sideways_is_refused_by_name(tmp_path: Path) -> None:
    places = positions(5)
    places[2, 0] += 3.0
    message = refusal(save_series(tmp_path, values(shape=(5, 2, 2)), places))
    assert "IM2: is 3.00 mm off" in message


def test_a_repeated_position_is_refused_with_both_names(tmp_path: Path) -> None:
    message = refusal(save_series(tmp_path, values(), positions(3)[[0, 1, 1]]))
    assert f"{tmp_path}/IM1: has the position of {tmp_path}/IM2" in message


@pytest.mark.parametrize(("degrees", "sign"), [(12.0, 1), (3.5, -1)])
def test_gantry_tilt_is_refused_with_its_angle(tmp_path: Path, degrees: float, sign: int) -> None:
    places = positions(4)
    places[:, 1] += sign * np.tan(np.deg2rad(degrees)) * (places[:, 2] - places[0, 2])
    message = refusal(save_series(tmp_path, values(shape=(4, 2, 2)), places))
    assert f"IM0: gantry tilt, its series is shifted {degrees} degrees" in message


@pytest.mark.parametrize("degrees", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("name", ["axial", "oblique", "coronal", "mirrored"])
def test_a_mask_of_a_slightly_sheared_series_is_one_that_itk_opens(
    tmp_path: Path, name: str, degrees: float
) -> None:
    """With the directions that ITK itself gives a series: its slices' own, and their normal."""
    orientation = ORIENTATIONS[name]
    row, column = np.reshape(orientation, (2, 3)).astype(float)
    places = positions(4, orientation)
    places += np.arange(4)[:, None] * DZ * np.tan(np.deg2rad(degrees)) * column
    folder = save_series(
        tmp_path / "series",
        values(shape=(4, 6, 5)),
        places,
        ImageOrientationPatient=list(orientation),
    )
    stack, geometry = read_series(folder)
    write_like(tmp_path / "mask.nii", stack, geometry)
    header = nib.load(tmp_path / "mask.nii").header
    expected = np.column_stack([DX * row, DY * column, DZ * np.cross(row, column)])
    for code, affine in (("qform", header.get_qform()), ("sform", header.get_sform())):
        assert header[f"{code}_code"] == 1  # scanner
        np.testing.assert_allclose((LPS_TO_RAS @ affine)[:3, :3], expected, atol=1e-5)
        np.testing.assert_allclose((LPS_TO_RAS @ affine)[:3, 3], places[0], atol=1e-4)
    itk = pytest.importorskip("SimpleITK")
    image = itk.ReadImage(str(tmp_path / "mask.nii"))
    directions = np.column_stack([row, column, np.cross(row, column)])
    np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)), directions, atol=1e-5)
    np.testing.assert_array_equal(itk.GetArrayFromImage(image), values(shape=(4, 6, 5)))


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"PixelSpacing": [0.8, 0.5]}, "spacing"),
        ({"ImageOrientationPatient": list(OBLIQUE)}, "orientation"),
        ({"Rows": 5, "PixelData": b"\0" * 50}, "size"),
    ],
)
def test_mixed_slices_are_refused_by_name(tmp_path: Path, other: dict, field: str) -> None:
    save_series(tmp_path, values())
    save(tmp_path / "IM1", dataset(values()[1], positions(3)[1], **other))
    message = refusal(tmp_path)
    assert "IM1" in message
    assert f"its {field} is" in message


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_series_without_its_place_is_refused(tmp_path: Path, tag: str) -> None:
    save_series(tmp_path, values())
    save(tmp_path / "IM2", dataset(values()[2], positions(3)[2], **{tag: None}))
    assert f"IM2: no {tag}" in refusal(tmp_path)


def test_colour_is_refused(tmp_path: Path) -> None:
    pixels = np.zeros((6, 15), np.uint8)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    path = save(tmp_path / "slice", dataset(pixels, Columns=5, **tags))
    assert "slice: expected grey values, found 3 samples of colour" in refusal(path)


# Many frames in one file


def enhanced(hu: np.ndarray, order: Sequence[int]) -> Dataset:
    """An Enhanced CT object: frames stored in ``order``, with slopes 1, 2, ... by position."""
    frames = []
    for place in order:
        frame, lies, scale = Dataset(), Dataset(), Dataset()
        lies.ImagePositionPatient = positions(len(hu))[place].tolist()
        scale.RescaleSlope, scale.RescaleIntercept = place + 1, -5
        frame.PlanePositionSequence = Items([lies])
        frame.PixelValueTransformationSequence = Items([scale])
        frames.append(frame)
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [DY, DX], 9
    plane.ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence = Items([measures])
    shared.PlaneOrientationSequence = Items([plane])
    return dataset(
        hu[list(order)],
        None,
        SOPClassUID=uid.EnhancedCTImageStorage,
        NumberOfFrames=len(hu),
        SharedFunctionalGroupsSequence=Items([shared]),
        PerFrameFunctionalGroupsSequence=Items(frames),
        **dict.fromkeys(
            ["ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"]
        ),
    )


def test_an_enhanced_object_reads_like_its_series(tmp_path: Path) -> None:
    hu = values()
    path = save(tmp_path / "enhanced.dcm", enhanced(hu, (2, 0, 1)))
    stack, geometry = read_series(path)
    np.testing.assert_array_equal(stack, hu * np.array([1, 2, 3]).reshape(3, 1, 1) - 5)
    _, single = read_series(save_series(tmp_path / "series", hu))
    np.testing.assert_allclose(geometry.affine, single.affine)
    assert geometry.spacing == single.spacing


def test_frames_in_one_place_or_without_place_are_refused(tmp_path: Path) -> None:
    twice = enhanced(values(), (0, 1, 2))
    groups = twice.PerFrameFunctionalGroupsSequence
    groups[2].PlanePositionSequence = groups[1].PlanePositionSequence
    message = refusal(save(tmp_path / "twice", twice))
    assert "(frame 2)" in message
    assert "has the position of" in message
    fewer = enhanced(values(), (0, 1, 2))
    fewer.PerFrameFunctionalGroupsSequence.pop()
    assert "3 frames, but positions for 2" in refusal(save(tmp_path / "fewer", fewer))
    plain = dataset(values(), NumberOfFrames=3)
    assert "3 frames, but positions for 1" in refusal(save(tmp_path / "plain", plain))


# Damage


@pytest.mark.parametrize("left", [0, 100, 131, 140, 400, -61, -1])
def test_a_file_cut_short_is_named(tmp_path: Path, left: int) -> None:
    path = save(tmp_path / "slice.dcm", dataset(values()[0]))
    path.write_bytes(path.read_bytes()[:left])
    assert "slice.dcm" in refusal(path)


@pytest.mark.parametrize("tag", ["Rows", "Columns", "BitsAllocated", "SamplesPerPixel"])
def test_a_missing_tag_is_named(tmp_path: Path, tag: str) -> None:
    message = refusal(save(tmp_path / "slice", dataset(values()[0], **{tag: None})))
    assert f"slice: not a readable DICOM file (it has no {tag})" in message


@pytest.mark.parametrize("lie", [{"Rows": 7}, {"Rows": 3}, {"Columns": 4}, {"Columns": 10}])
def test_a_header_that_lies_about_the_size_is_refused(tmp_path: Path, lie: dict) -> None:
    path = save(tmp_path / "slice", dataset(values()[0], **lie))
    assert "slice: its header claims" in refusal(path)


@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEGBaseline8Bit]
)
def test_a_claim_of_gigabytes_costs_no_memory(tmp_path: Path, syntax: uid.UID) -> None:
    tags = {"Rows": 50_000, "Columns": 50_000, "BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}
    if syntax.is_encapsulated:
        tags |= {"PixelData": encapsulate([bytes(100)])}
    made = dataset(values()[0], TransferSyntaxUID=syntax, **tags)
    path = save(tmp_path / "slice", made)
    assert path.stat().st_size < 2000
    read_or_refusal(path)  # imports pydicom's parts
    tracemalloc.start()
    try:
        message = refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert "claims 10000000000 bytes" in message


def test_a_deflated_file_is_unpacked_no_further_than_it_claims(tmp_path: Path) -> None:
    """160 MB of zeros behind a slice of 60 bytes; 160 KB on disk."""
    made = dataset(values()[0], TransferSyntaxUID=uid.DeflatedExplicitVRLittleEndian)
    content = save(tmp_path / "slice", made).read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")  # the group's length
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packer.compress(zlib.decompress(content[start:], -zlib.MAX_WBITS))
    head = struct.pack("<2H2s2xI", 0xFFFC, 0xFFFC, b"OB", 160 << 20)  # DataSetTrailingPadding
    packed += packer.compress(head)
    packed += b"".join(packer.compress(bytes(1 << 20)) for _ in range(160)) + packer.flush()
    path = tmp_path / "bomb"
    path.write_bytes(content[:start] + packed)
    tracemalloc.start()
    outcome = read_or_refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80e6
    if isinstance(outcome, CovidJaxError):
        assert str(path) in str(outcome)
    else:
        np.testing.assert_array_equal(outcome, values()[:1])


@pytest.mark.parametrize(
    "tag",
    [
        *("RescaleSlope", "PixelSpacing", "Rows", "NumberOfFrames", "SOPClassUID", "Modality"),
        *("PhotometricInterpretation", "ImagePositionPatient", "BitsAllocated"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, on writing
def test_no_text_of_a_header_is_in_a_message(tmp_path: Path, tag: str) -> None:
    """A shifted header has a patient's name where a number or a code is expected."""
    made = dataset(values()[0], SOPClassUID=None if tag == "Modality" else uid.CTImageStorage)
    number = pydicom.tag.Tag(tag)
    kind = pydicom.datadict.dictionary_VR(tag)
    made._dict[number] = pydicom.dataelem.RawDataElement(
        number, kind, 8, b"DOE^JANE", 0, False, True
    )
    made.preamble = bytes(128)
    made.save_as(tmp_path / "slice", enforce_file_format=False)
    assert b"DOE^JANE" in (tmp_path / "slice").read_bytes()
    message = refusal(tmp_path / "slice")
    assert message.startswith(f"{tmp_path}/slice: ")
    assert "DOE" not in message
    assert "JANE" not in message


def read_or_refusal(path: Path) -> np.ndarray | CovidJaxError:
    try:
        return read_series(path)[0]
    except CovidJaxError as error:
        return error


def damaged(healthy: bytes, random: np.random.Generator) -> bytes:
    if random.random() < 0.3:
        return healthy[: random.integers(len(healthy))]
    broken = np.frombuffer(healthy, np.uint8).copy()
    where = random.integers(128, len(broken), random.integers(1, 6))
    broken[where] = random.integers(0, 256, len(where))
    return broken.tobytes()


def test_sixty_damaged_files_read_or_are_refused_by_name(tmp_path: Path) -> None:
    packed = dataset(values()[0])
    packed.compress(uid.RLELossless, generate_instance_uid=False)
    kinds = {"plain": dataset(values()[0]), "packed": packed, "many": enhanced(values(), (0, 1, 2))}
    outcomes = []
    for name, made in kinds.items():
        healthy = save(tmp_path / name, made).read_bytes()
        for number in range(20):
            path = tmp_path / f"{name}{number}"
            path.write_bytes(damaged(healthy, np.random.default_rng(number)))
            outcomes.append(read_or_refusal(path))
            if isinstance(outcomes[-1], CovidJaxError):
                assert path.name in str(outcomes[-1])
            else:
                assert outcomes[-1].ndim == 3
                assert np.isfinite(outcomes[-1]).all()
    refused = sum(isinstance(outcome, CovidJaxError) for outcome in outcomes)
    assert 20 <= refused < 60  # the seeds hurt some files and spare others


# pydicom itself


def chatty(path: Path) -> Path:
    """A file of which pydicom warns: no part of a UID may begin with a 0."""
    with warnings.catch_warnings(action="ignore"):
        return save(path, dataset(values()[0], SeriesInstanceUID="1.02.3"))


def test_users_are_not_flooded_and_filters_are_put_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = chatty(tmp_path / "slice")
    with pytest.warns(UserWarning, match="Invalid value for VR UI"):
        assert pydicom.dcmread(path).SeriesInstanceUID == "1.02.3"
    assert caplog.records != []
    caplog.clear()
    filters, level = list(warnings.filters), logging.getLogger("pydicom").level
    read_scan(path)
    assert caplog.records == []
    assert warnings.filters == filters
    assert logging.getLogger("pydicom").level == level


def test_series_are_read_in_threads(tmp_path: Path) -> None:
    folders = [save_series(tmp_path / str(n), values(n)) for n in range(5)]
    noisy = [chatty(tmp_path / f"slice{n}") for n in range(5)]
    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        stacks = list(pool.map(lambda path: read_scan(path)[0], (folders + noisy) * 3))
    for number, stack in enumerate(stacks):
        expected = values(number % 5) if number % 10 < 5 else values()[:1]
        np.testing.assert_array_equal(stack, expected)
    assert warnings.filters == filters


def test_without_pydicom_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "pydicom"]:
        monkeypatch.setitem(sys.modules, module, None)
    assert 'pip install "covid_jax[dicom]"' in refusal(tmp_path)
