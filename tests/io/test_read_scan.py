"""Scans and masks of every format, read by their paths and checked against each other."""

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from covid_jax.errors import DataError
from covid_jax.io.read_scan import read_mask, read_scan, suppress_warnings
from tests.support.synthetic import LPS, write_dicom_series, write_nifti

STACK = np.random.default_rng(0).integers(-1000, 400, (3, 4, 5)).astype(np.int16)
MASK = np.zeros((3, 4, 5), np.uint8)
MASK[1, 0, :3] = 1


def save_png(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


def mask_of(path: Path, image: Path) -> np.ndarray:
    stack, geometry = read_scan(image)
    mask, notes = read_mask(path, image, stack.shape, geometry)
    assert notes == ()
    return mask


def refusal(path: Path, image: Path) -> str:
    with pytest.raises(DataError) as caught:
        mask_of(path, image)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


# The scan


def test_each_format_is_read_by_its_path(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.NII", STACK, LPS)
    write_dicom_series(
        tmp_path / "study.nii", STACK, (1.0, 1.0)
    )  # a folder is a series whatever its name
    for name in ("a.NII", "study.nii"):
        stack, geometry = read_scan(tmp_path / name)
        np.testing.assert_array_equal(stack, STACK)
        assert geometry is not None
        assert geometry.oriented
    stack, geometry = read_scan(save_png(tmp_path / "b.PNG", MASK[1]))
    np.testing.assert_array_equal(stack, MASK[1:2])
    assert geometry is None


def test_what_is_no_scan_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("text")
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        ("notes", "no volume, DICOM file or picture"),
        ("pipe", "named pipe"),
        ("gone", "no such"),
    ):
        with pytest.raises(DataError, match=f"{name}: .*{said}"):
            read_scan(tmp_path / name)


@pytest.mark.parametrize("flat", [(40, 1, 48), (1, 40, 48)], ids=["coronal", "sagittal"])
def test_one_slice_of_another_plane_is_refused(tmp_path: Path, flat: tuple[int, ...]) -> None:
    """Its 48 axial slices would be one pixel high or wide; a lone axial slice is one."""
    nib.save(nib.Nifti1Image(np.zeros(flat, np.int16), LPS), tmp_path / "flat.nii")
    with pytest.raises(DataError, match=r"flat\.nii: 48 axial slices of (1 x 40|40 x 1) pixels"):
        read_scan(tmp_path / "flat.nii")
    nib.save(nib.Nifti1Image(np.zeros((40, 48, 1), np.int16), LPS), tmp_path / "axial.nii")
    assert read_scan(tmp_path / "axial.nii")[0].shape == (1, 48, 40)


def test_thick_coronal_slices_make_a_volume(tmp_path: Path) -> None:
    """30 rows of 5 mm beside 256 columns of 0.7 mm: 150 by 179 mm."""
    volume = nib.Nifti1Image(np.zeros((256, 30, 2), np.int16), np.diag([-0.7, -5.0, 0.7, 1.0]))
    nib.save(volume, tmp_path / "thick.nii")
    assert read_scan(tmp_path / "thick.nii")[0].shape == (2, 30, 256)


# The mask


@pytest.mark.parametrize("values", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8])
def test_masks_tolerate_the_rounding_of_their_scale_factor(
    tmp_path: Path, values: int, dtype: type
) -> None:
    """A float mask saved with a CT's header: nibabel scales it to the range of its integers."""
    write_nifti(tmp_path / "a.nii", STACK, LPS)
    labels = np.random.default_rng(1).choice([0, 1, values], STACK.shape)
    header = nib.load(tmp_path / "a.nii").header
    header.set_data_dtype(dtype)
    scaled = nib.Nifti1Image(labels.transpose(2, 1, 0).astype(float), LPS, header)
    nib.save(scaled, tmp_path / "m.nii")
    assert nib.load(tmp_path / "m.nii").dataobj.slope != 1
    np.testing.assert_array_equal(mask_of(tmp_path / "m.nii", tmp_path / "a.nii"), labels)


def test_255_with_a_slope_of_a_255th_is_1(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", STACK, LPS)
    image = nib.Nifti1Image(255 * MASK.transpose(2, 1, 0), LPS)
    content = bytearray(image.to_bytes())
    content[112:116] = np.float32(1 / 255).tobytes()  # scl_slope, by nifti1.h
    (tmp_path / "m.nii").write_bytes(content)
    assert np.asarray(nib.load(tmp_path / "m.nii").dataobj).max() != 1.0
    np.testing.assert_array_equal(mask_of(tmp_path / "m.nii", tmp_path / "a.nii"), MASK)


def test_a_part_of_a_label_stays_what_it_is(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", STACK, LPS)
    parts = np.full(STACK.shape, 0.98, np.float32)
    write_nifti(tmp_path / "m.nii", parts, LPS)
    np.testing.assert_array_equal(mask_of(tmp_path / "m.nii", tmp_path / "a.nii"), parts)


@pytest.mark.parametrize("partner", ["picture", "nifti"])
def test_a_picture_and_a_turned_nifti_file_are_no_pair(tmp_path: Path, partner: str) -> None:
    """numpy.eye(4) says that rows run to the front: displayed, the array is turned by 180 degrees.

    Whether its partner is drawn as displayed or as stored, nobody says.
    """
    eye = nib.Nifti1Image(MASK[1].T[..., None], np.eye(4))
    nib.save(eye, tmp_path / "eye.nii")
    picture = save_png(tmp_path / "seen.png", MASK[1])
    mask, image = tmp_path / "eye.nii", picture
    message = refusal(mask, image) if partner == "picture" else refusal(image, mask)
    assert "axes R-A-S" in message
    assert "a 2-D image without a geometry" in message


@pytest.mark.parametrize("affine", [None, LPS], ids=["no orientation", "as displayed"])
def test_a_nifti_file_that_is_not_turned_lies_on_its_picture(
    tmp_path: Path, affine: np.ndarray | None
) -> None:
    write_nifti(tmp_path / "m.nii", MASK[1:2], affine)
    picture = save_png(tmp_path / "seen.png", MASK[1])
    np.testing.assert_array_equal(mask_of(tmp_path / "m.nii", picture), MASK[1:2])
    np.testing.assert_array_equal(mask_of(picture, tmp_path / "m.nii"), MASK[1:2])


def test_a_mask_elsewhere_is_noted(tmp_path: Path) -> None:
    """(3, 4, 12) mm away: 13 mm."""
    shifted = LPS.copy()
    shifted[:3, 3] = (3, 4, 12)
    write_nifti(tmp_path / "a.nii", STACK, LPS)
    write_nifti(tmp_path / "m.nii", MASK, shifted)
    stack, geometry = read_scan(tmp_path / "a.nii")
    _, (note,) = read_mask(tmp_path / "m.nii", tmp_path / "a.nii", stack.shape, geometry)
    assert "13 mm away from its scan" in note


def test_a_mask_of_another_shape_names_both(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", STACK, LPS)
    write_nifti(tmp_path / "m.nii", MASK[:2], LPS)
    message = refusal(tmp_path / "m.nii", tmp_path / "a.nii")
    assert "(2, 4, 5) (slices, rows, columns) differs from its scan's, (3, 4, 5) of" in message
    assert str(tmp_path / "a.nii") in message


# Threads


def test_pictures_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four decoders wait for each other: one at a time they would wait in vain."""
    paths = [save_png(tmp_path / f"{k}.png", MASK[1]) for k in range(4)]
    meet, decode = threading.Barrier(4, timeout=100), PngImagePlugin.PngImageFile.load_prepare

    def load_prepare(picture: Image.Image) -> None:
        meet.wait()
        decode(picture)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load_prepare", load_prepare)
    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(read_scan, paths))) == 4
    assert warnings.filters == filters


def test_warnings_are_silenced_until_the_last_reader_is_done() -> None:
    first, second = suppress_warnings(), suppress_warnings()
    filters = list(warnings.filters)
    with first:
        second.__enter__()
    warnings.warn_explicit("noise", UserWarning, "file", 1, "PIL.Image")  # an error in pytest
    warnings.warn_explicit("noise", UserWarning, "file", 1, "pydicom.values")
    with pytest.raises(UserWarning, match="ours"):
        warnings.warn_explicit("ours", UserWarning, "file", 1, "covid_jax.io")
    second.__exit__(None, None, None)
    assert warnings.filters == filters
