"""Masks lie where their scans do: checked by nibabel, in mm, voxel by voxel."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from covid_jax.errors import DataError
from tests.support.bright_runs import BrightRun, predicted
from tests.support.synthetic import SIZE, write_dicom_series

PLACE = ("dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z")
QUATERNION = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
SHAPE = (SIZE, SIZE, SIZE)  # the network's own: resizing changes nothing, whichever axis is up


def turned(degrees: float) -> np.ndarray:
    """About an axis that is none of the scanner's."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.cross(np.eye(3), axis)
    angle = np.radians(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def affine_of(orientation: str) -> np.ndarray:
    """Voxels of 0.7 x 0.8 x 2.5 mm, the axes named after where they run to."""
    affine = np.eye(4)
    affine[:3, 3] = -30, 40, -500
    if orientation == "oblique":
        affine[:3, :3] = turned(17) @ np.diag([-0.7, -0.8, 2.5])
        return affine
    rows = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    for column, (letter, size) in enumerate(zip(orientation, (0.7, 0.8, 2.5), strict=True)):
        row, sign = rows[letter]
        affine[:3, column] = 0
        affine[row, column] = sign * size
    return affine


def with_a_lesion() -> tuple[np.ndarray, np.ndarray]:
    """Specks, some of them in every slice along every axis, and where they are."""
    lesion = np.random.default_rng(0).random(SHAPE) < 0.1
    return np.where(lesion, 60, -900).astype(np.int16), lesion


def world(image: nib.Nifti1Image, where: np.ndarray) -> np.ndarray:
    """Where voxels lie, in mm, in an order that does not depend on the array's."""
    points = nib.affines.apply_affine(image.affine, np.argwhere(where)).round(2)
    return points[np.lexsort(points.T)]


@pytest.mark.parametrize(
    "orientation", ["RAS", "LPS", "LAS", "RPI", "PIR", "SLA", "ASL", "oblique"]
)
def test_a_mask_lies_where_its_lesion_does(tmp_path: Path, orientation: str) -> None:
    array, lesion = with_a_lesion()
    scan = nib.Nifti1Image(array, affine_of(orientation))
    scan.set_sform(scan.affine, 2)
    scan.set_qform(scan.affine, 1)
    scan.header.set_xyzt_units("mm", "sec")
    nib.save(scan, tmp_path / "scan.nii.gz")
    predicted(BrightRun(), tmp_path / "scan.nii.gz", tmp_path / "out")
    mask = nib.load(tmp_path / "out" / "scan_mask.nii.gz")
    found = np.asarray(mask.dataobj)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, lesion)
    np.testing.assert_allclose(world(mask, found > 0), world(scan, lesion))
    saved = nib.load(tmp_path / "scan.nii.gz").header
    for field in (*PLACE, *QUATERNION):
        np.testing.assert_array_equal(mask.header[field], saved[field], field)


def test_the_same_patient_turned_in_the_file_gets_the_same_mask(tmp_path: Path) -> None:
    """Reoriented by nibabel: other axes, one place in the patient, so one mask in mm."""
    array, _ = with_a_lesion()
    scan = nib.Nifti1Image(array, affine_of("LPS"))
    places = []
    for codes in ("RAS", "PIR"):
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(codes)
        )
        nib.save(scan.as_reoriented(turn), tmp_path / f"{codes}.nii")
        predicted(BrightRun(), tmp_path / f"{codes}.nii", tmp_path / "out", threshold=0.7)
        mask = nib.load(tmp_path / "out" / f"{codes}_mask.nii.gz")
        places.append(world(mask, np.asarray(mask.dataobj) > 0))
    np.testing.assert_allclose(*places)


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (SIZE, SIZE, 1), (SIZE, SIZE, 1, 1)])
def test_a_lone_slice_keeps_its_shape_and_its_silence_on_where_it_lies(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    array, lesion = (part[..., 5].reshape(shape) for part in with_a_lesion())
    nib.save(nib.Nifti1Image(array, None), tmp_path / "slice.nii")
    outcome, _ = predicted(BrightRun(), tmp_path / "slice.nii", tmp_path / "out")
    mask = nib.load(tmp_path / "out" / "slice_mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), lesion)
    assert (mask.header["sform_code"], mask.header["qform_code"]) == (0, 0)
    assert (outcome.predicted[0]["spacing_mm"], outcome.predicted[0]["lesion_ml"]) == (None, None)


def test_a_lone_slice_with_a_place_has_no_volume(tmp_path: Path) -> None:
    """Nobody says how thick it is: only its pixels' area is known."""
    array, _ = with_a_lesion()
    nib.save(nib.Nifti1Image(array[..., :1], affine_of("LPS")), tmp_path / "slice.nii")
    outcome, _ = predicted(BrightRun(), tmp_path / "slice.nii", tmp_path / "out")
    assert outcome.predicted[0]["lesion_ml"] is None
    assert outcome.predicted[0]["spacing_mm"] == pytest.approx([2.5, 0.8, 0.7])


def test_an_oblique_volume_counts_its_voxels_own_size(tmp_path: Path) -> None:
    array, lesion = with_a_lesion()
    nib.save(nib.Nifti1Image(array, affine_of("oblique")), tmp_path / "scan.nii")
    outcome, _ = predicted(BrightRun(), tmp_path / "scan.nii", tmp_path / "out")
    expected = np.count_nonzero(lesion) * 0.7 * 0.8 * 2.5 / 1000
    assert outcome.predicted[0]["lesion_ml"] == pytest.approx(expected, rel=1e-5)


def test_a_dicom_series_becomes_a_nifti_mask_in_patient_space(tmp_path: Path) -> None:
    """The writer puts pixel (row, column) of slice k at (0.6 column, 0.5 row, 2 k), left-back-up;
    NIfTI counts right and front."""
    rng = np.random.default_rng(0)
    lesion = rng.random((3, SIZE, SIZE)) < 0.1
    write_dicom_series(tmp_path / "series", np.where(lesion, 50, -800), (0.5, 0.6))
    predicted(BrightRun(), tmp_path / "series", tmp_path / "out", probabilities=True)
    mask = nib.load(tmp_path / "out" / "series_mask.nii.gz")
    assert mask.header["sform_code"] > 0
    slices, rows, columns = np.nonzero(lesion)
    expected = np.stack([-0.6 * columns, -0.5 * rows, 2.0 * slices], axis=1).round(2) + 0.0
    expected = expected[np.lexsort(expected.T)]
    np.testing.assert_allclose(world(mask, np.asarray(mask.dataobj) > 0), expected)
    soft = nib.load(tmp_path / "out" / "series_probability.nii.gz")
    assert soft.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(soft.dataobj) > 0.5, np.asarray(mask.dataobj) > 0)


def test_predict_volume_returns_the_mask_with_its_place(tmp_path: Path) -> None:
    array, lesion = with_a_lesion()
    scan = nib.Nifti1Image(array, affine_of("oblique"))
    nib.save(scan, tmp_path / "scan.nii.gz")
    run = BrightRun()
    found = run.predict_volume(tmp_path / "scan.nii.gz", batch_size=5)
    assert found.mask.shape == found.probabilities.shape == (SIZE, SIZE, SIZE)
    np.testing.assert_allclose(found.geometry.affine, scan.affine, atol=1e-6)
    assert found.geometry.spacing == pytest.approx((2.5, 0.8, 0.7))
    np.testing.assert_array_equal(found.probabilities > 0.5, found.mask > 0)
    found.save(str(tmp_path / "mask.nii.gz"))
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj), lesion)
    assert run.batches == [(5, 5)] * 6 + [(2, 5)]
    with pytest.raises(DataError, match="no such file"):
        run.predict_volume(tmp_path / "other.nii")


def test_real_scans_keep_shape_and_header(tmp_path: Path, real_data: Path) -> None:
    names = ["io/chest_ct_hu.nii.gz", "radiopaedia/rp_im/1.nii.gz", "radiopaedia/rp_im/5.nii.gz"]
    outcome, _ = predicted(BrightRun(), [real_data / name for name in names], tmp_path)
    assert [one["slices"] for one in outcome.predicted] == [112, 11, 2]
    for name in names:
        scan = nib.load(real_data / name)
        mask = nib.load(tmp_path / Path(name).name.replace(".nii", "_mask.nii"))
        assert mask.shape == scan.shape
        for field in (*PLACE, *QUATERNION):
            np.testing.assert_array_equal(mask.header[field], scan.header[field], field)
    series, _ = predicted(BrightRun(), real_data / "io" / "chest_slice_1.dcm", tmp_path)
    assert series.predicted[0]["spacing_mm"] == [1.0, 0.625, 0.625]
    assert nib.load(tmp_path / "chest_slice_1_mask.nii.gz").shape == (512, 512, 1)
