"""DICOM segmentations read back by pydicom and highdicom, voxel for voxel."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.support.bright_runs import BrightRun, KindsRun, predicted
from tests.support.synthetic import SIZE, write_dicom_series

pydicom = pytest.importorskip("pydicom", minversion="3")
hd = pytest.importorskip("highdicom")
UIDS = {"FrameOfReferenceUID": "1.2.9", "StudyInstanceUID": "1.2.8"}


def series(folder: Path, uids: dict[str, str] = UIDS, turned: bool = False) -> Path:
    """Four slices of noise; no tag of the patient is in them. Turned: rows to the front."""
    stack = np.random.default_rng(0).integers(-1000, 400, (4, SIZE, SIZE - 4))
    write_dicom_series(folder, stack, (0.5, 0.6))
    for path in folder.iterdir():
        header = pydicom.dcmread(path)
        for tag, value in uids.items():
            setattr(header, tag, value)
        if turned:
            header.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
        header.save_as(path)
    return folder


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("run", [BrightRun(), KindsRun()], ids=["one class", "two"])
def test_it_holds_the_mask_voxel_for_voxel(tmp_path: Path, run: BrightRun, turned: bool) -> None:
    """Compared with the NIfTI mask by each frame's place, and as highdicom finds the frames."""
    folder = series(tmp_path / "ct", turned=turned)
    for kind in ("nifti", "dicom-seg"):
        outcome, _ = predicted(run, folder, tmp_path / kind, format=kind)
        assert outcome.failures == []
    assert outcome.predicted[0]["outputs"] == ["ct_mask.dcm"]
    nifti = nib.load(tmp_path / "nifti/ct_mask.nii.gz")
    expected = np.asarray(nifti.dataobj).transpose(2, 1, 0)
    into_array = np.linalg.inv(nifti.affine) @ np.diag([-1, -1, 1, 1])  # from DICOM's mm
    assert set(np.unique(expected)) == ({0, 1} if len(run.config.data.classes) < 2 else {0, 2})
    path = tmp_path / "dicom-seg/ct_mask.dcm"

    made = pydicom.dcmread(path)
    frames = made.pixel_array.reshape(-1, *expected.shape[1:])
    found = np.zeros_like(expected)
    shared = made.SharedFunctionalGroupsSequence[0]  # where all frames are of one segment
    for frame, where in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
        place = where.PlanePositionSequence[0].ImagePositionPatient
        x, y, z, _ = into_array @ [*map(float, place), 1]
        assert (x, y) == pytest.approx((0, 0), abs=1e-4)
        groups = where if "SegmentIdentificationSequence" in where else shared
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[round(z)][frame > 0] = number
    np.testing.assert_array_equal(found, expected)
    assert made.PatientName == ""
    assert made.FrameOfReferenceUID == "1.2.9"
    assert made.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3"
    labels = [segment.SegmentLabel for segment in made.SegmentSequence]
    assert labels == list(run.config.data.classes or ("lesion",))
    assert "Research use only" in made.ContentDescription

    read = hd.seg.segread(path)
    order = [f"1.2.3.{number}" for number in range(1, 5)][:: -1 if turned else 1]
    planes = read.get_pixels_by_source_instance(
        order, combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(planes, expected)
    written = read.get_volume(combine_segments=True, allow_missing_positions=True)
    np.testing.assert_allclose(sorted(written.spacing), [0.5, 0.6, 2.0])


@pytest.mark.parametrize("lacks", UIDS)
def test_a_series_that_cannot_be_referred_to_is_refused(tmp_path: Path, lacks: str) -> None:
    folder = series(tmp_path / "ct", {tag: uid for tag, uid in UIDS.items() if tag != lacks})
    outcome, _printed = predicted(BrightRun(), folder, tmp_path / "out", format="dicom-seg")
    assert outcome.predicted == []
    assert f"no {lacks}, which --format dicom-seg needs" in outcome.failures[0][1]
    assert not (tmp_path / "out/ct_mask.dcm").exists()


@pytest.mark.filterwarnings("error")
def test_no_warning_quotes_the_patient(tmp_path: Path) -> None:
    """As highdicom's does of a name of one part."""
    folder = series(tmp_path / "ct", UIDS | {"PatientName": "MUELLER"})
    outcome, printed = predicted(BrightRun(), folder, tmp_path / "out", format="dicom-seg")
    assert outcome.failures == []
    assert "MUELLER" not in printed
    assert pydicom.dcmread(tmp_path / "out/ct_mask.dcm").PatientName == "MUELLER"


def test_only_dicom_can_be_referred_to(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 2), np.int16), np.eye(4)), tmp_path / "a.nii")
    outcome, _ = predicted(BrightRun(), tmp_path / "a.nii", tmp_path / "out", format="dicom-seg")
    assert "not DICOM, which --format dicom-seg refers to" in outcome.failures[0][1]
