"""MedSeg, COVID-SemiSeg, Zenodo 3757476 and MosMedData, in empty files and as they really are."""

import json
from pathlib import Path

import pytest

from covid_jax.data.layouts import list_scans
from covid_jax.data.scan import Listing
from tests.support.trees import SEMISEG, files, names, refused, touch

MEDSEG_LABELS = {1: "ground_glass", 2: "consolidation", 3: "effusion"}


def test_dataset_1_is_a_stack_of_unknown_patients(tmp_path: Path) -> None:
    touch(tmp_path, "tr_im.nii.gz", "tr_mask.nii.gz", "val_im.nii.gz")
    listing = list_scans(tmp_path)
    (scan,) = listing.scans
    assert files(tmp_path, scan) == ("tr_im.nii.gz", "tr_mask.nii.gz")
    assert (scan.name, scan.source, scan.patient) == ("tr_im", "Dataset-1", None)
    assert not scan.volume
    assert scan.published is None
    assert scan.labels == MEDSEG_LABELS
    assert listing == Listing("MedSeg Dataset-1", (scan,))


def test_dataset_2_lists_volumes_2_before_10(tmp_path: Path) -> None:
    touch(tmp_path, *(f"rp_im/{n}.nii.gz" for n in (10, 2, 1)))
    touch(tmp_path, *(f"rp_msk/{n}.nii" for n in (10, 2, 1)))
    touch(tmp_path, "rp_lung_msk/1.nii.gz", "notes.txt")
    listing = list_scans(tmp_path)
    assert listing.layout == "MedSeg Dataset-2 (3 volumes)"
    assert listing.notes == ("no patients.csv: each Dataset-2 volume counts as one patient",)
    assert names(listing) == ["rp_im/1", "rp_im/2", "rp_im/10"]
    last = listing.scans[-1]
    assert files(tmp_path, last) == ("rp_im/10.nii.gz", "rp_msk/10.nii")
    assert (last.source, last.patient, last.volume) == ("Dataset-2", "volume 10", True)
    assert last.labels == MEDSEG_LABELS


def test_both_datasets_list_as_one(tmp_path: Path) -> None:
    touch(tmp_path, "tr_im.nii", "tr_mask.nii.gz", "rp_im/1.NII.GZ", "rp_msk/1.nii.gz")
    listing = list_scans(tmp_path)
    assert listing.layout == "MedSeg Dataset-1 + Dataset-2 (1 volumes)"
    assert names(listing) == ["tr_im", "rp_im/1"]


def test_the_phantom_says_what_it_is(tmp_path: Path) -> None:
    touch(tmp_path, "tr_im.nii.gz", "tr_mask.nii.gz", "rp_im/1.nii.gz", "rp_msk/1.nii.gz")
    (tmp_path / "phantom.json").write_text(json.dumps({"seed": 17}))
    listing = list_scans(tmp_path)
    parts = "Dataset-1 + Dataset-2 (1 volumes)"
    assert listing.layout == f"synthetic phantom in the MedSeg layout: {parts}"
    assert [scan.source for scan in listing.scans] == ["phantom Dataset-1", "phantom Dataset-2"]
    assert listing.notes[0] == "synthetic phantom (seed 17): no patient was scanned"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"seed": 1e999}', "[" * 100_000])
def test_a_damaged_phantom_marker_is_refused(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "rp_im/1.nii.gz", "rp_msk/1.nii.gz")
    (tmp_path / "phantom.json").write_text(text)
    assert refused(tmp_path).startswith(f"{tmp_path / 'phantom.json'}: ")


def make_semiseg(root: Path, train: str = "1 2 10", test: str = "3 12") -> None:
    for half, numbers in (("train", train.split()), ("test", test.split())):
        folder, multiple = SEMISEG[half]
        touch(root / folder, *(f"Imgs/{n}.jpg" for n in numbers))
        touch(root / folder, *(f"GT/{n}.png" for n in numbers))
        touch(root / multiple, *(f"GT/{n}.png" for n in numbers))


def test_semiseg_keeps_its_published_split(tmp_path: Path) -> None:
    make_semiseg(tmp_path)
    listing = list_scans(tmp_path)
    assert listing.layout == "COVID-SemiSeg (3 training and 2 test slices, published split)"
    assert listing.notes == ()
    assert names(listing) == ["train/1", "train/2", "train/10", "test/3", "test/12"]
    assert [scan.published for scan in listing.scans] == ["train"] * 3 + ["test"] * 2
    for scan in listing.scans:
        assert (scan.source, scan.patient, scan.volume) == ("COVID-SemiSeg", None, False)
        assert scan.labels == {255: "lesion"}
    folder = SEMISEG["test"][0]
    assert files(tmp_path, listing.scans[-1]) == (f"{folder}/Imgs/12.jpg", f"{folder}/GT/12.png")


def test_semiseg_takes_its_multi_class_masks_where_classes_are_told_apart(tmp_path: Path) -> None:
    make_semiseg(tmp_path)
    listing = list_scans(tmp_path, ("consolidation",))
    assert "multi-class masks" in listing.layout
    assert files(tmp_path, listing.scans[0]) == (
        "TrainingSet/LungInfection-Train/Doctor-label/Imgs/1.jpg",
        "TrainingSet/MultiClassInfection-Train/GT/1.png",
    )
    for scan in listing.scans:
        assert scan.labels == {1: "ground_glass", 2: "consolidation"}
    assert list_scans(tmp_path, ("lesion",)) == list_scans(tmp_path)


@pytest.mark.parametrize("gone", ["TrainingSet", "TestingSet"])
def test_half_of_semiseg_is_refused(tmp_path: Path, gone: str) -> None:
    make_semiseg(tmp_path)
    (tmp_path / gone).rename(tmp_path / "elsewhere")
    assert str(tmp_path / gone) in refused(tmp_path)


CASES = [  # in the archive, as unpacked under their first names, the patient
    ("coronacases_001", "coronacases_org_001", "coronacases_001"),
    ("coronacases_007", "coronacases_org_case007", "coronacases_007"),
    ("coronacases_009", "case009", "coronacases_009"),
    ("radiopaedia_4_85506_1", "radiopaedia_org_covid-19-pneumonia-4_85506_1-dcm", "radiopaedia_4"),
    *(
        (f"radiopaedia_{n}", f"radiopaedia_org_covid-19-pneumonia-{n}-dcm", patient)
        for n, patient in (
            ("10_85902_1", "radiopaedia_10"),
            ("10_85902_3", "radiopaedia_10"),
            ("29_86490_1", "radiopaedia_29"),
            ("29_86491_1", "radiopaedia_29"),
        )
    ),
]


@pytest.mark.parametrize(
    ("column", "images", "masks"),
    [
        (0, "COVID-19-CT-Seg_20cases", "Infection_Mask"),
        (1, "COVID-19-CT-Seg_20cases/COVID-19-CT-Seg_20cases", "Infection_Mask/Infection_Mask"),
        (1, "ct_scans", "infection_mask"),
    ],
    ids=["as archived", "unpacked twice over", "as mirrored"],
)
def test_zenodo_groups_the_studies_of_a_case(
    tmp_path: Path, column: int, images: str, masks: str
) -> None:
    touch(tmp_path, *(f"{images}/{case[column]}.nii.gz" for case in CASES))
    touch(tmp_path, *(f"{masks}/{case[0]}.nii.gz" for case in CASES))
    touch(tmp_path, "Lung_Mask/coronacases_001.nii.gz", "Lung_and_Infection_Mask/other.nii.gz")
    listing = list_scans(tmp_path)
    assert listing.layout == "COVID-19-CT-Seg, Zenodo 3757476 (8 volumes)"
    assert listing.notes == ()
    found = {scan.name: scan for scan in listing.scans}
    assert len(found) == len(CASES)
    for name, first_name, patient in CASES:
        scan = found[name]
        stem = (name, first_name)[column]
        assert files(tmp_path, scan) == (f"{images}/{stem}.nii.gz", f"{masks}/{name}.nii.gz")
        assert scan.patient == patient
        assert scan.source == ("Coronacases" if "corona" in name else "Radiopaedia")
        assert scan.volume
        assert scan.labels == {1: "lesion"}


@pytest.mark.parametrize("name", ["patient7", "coronacases_001_old", "radiopaedia_10_85902"])
def test_zenodo_refuses_a_name_that_is_not_of_it(tmp_path: Path, name: str) -> None:
    image = f"COVID-19-CT-Seg_20cases/{name}.nii.gz"
    touch(tmp_path, image, f"Infection_Mask/{name}.nii.gz")
    assert f"{tmp_path / image}: expected a name" in refused(tmp_path)


def test_zenodo_refuses_one_case_under_two_names(tmp_path: Path) -> None:
    for name in ("coronacases_001.nii.gz", "coronacases_org_001.nii"):
        touch(tmp_path, f"COVID-19-CT-Seg_20cases/{name}", "Infection_Mask/coronacases_001.nii.gz")
    message = refused(tmp_path)
    assert "coronacases_001.nii.gz" in message
    assert "coronacases_org_001.nii" in message


def test_mosmed_lists_the_studies_that_have_a_mask(tmp_path: Path) -> None:
    touch(tmp_path, *(f"studies/CT-{k}/study_{k:04d}.nii.gz" for k in range(5)))
    touch(tmp_path, "studies/CT-1/study_0255.nii.gz", "dataset_registry.xlsx")
    touch(tmp_path, "masks/study_0255_mask.nii.gz", "masks/study_0001_mask.nii.gz")
    listing = list_scans(tmp_path)
    assert listing.layout == "MosMedData (2 volumes)"
    assert listing.notes == ("4 of 6 studies have no mask and were left out",)
    assert names(listing) == ["CT-1/study_0001", "CT-1/study_0255"]
    scan = listing.scans[1]
    assert files(tmp_path, scan) == (
        "studies/CT-1/study_0255.nii.gz",
        "masks/study_0255_mask.nii.gz",
    )
    assert (scan.source, scan.patient, scan.volume) == ("MosMedData", "study_0255", True)
    assert scan.labels == {1: "lesion"}


def test_mosmed_refuses_a_study_in_two_grades(tmp_path: Path) -> None:
    touch(tmp_path, *(f"studies/CT-{k}/study_0255.nii.gz" for k in (1, 2)))
    touch(tmp_path, "masks/study_0255_mask.nii.gz")
    message = refused(tmp_path)
    assert "CT-1/study_0255.nii.gz" in message
    assert "CT-2/study_0255.nii.gz" in message


def test_mosmed_without_studies_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "studies/readme.txt", "masks/study_0255_mask.nii.gz")
    assert f"{tmp_path / 'studies'}: no studies" in refused(tmp_path)


def test_real_covid_semiseg(real_data: Path) -> None:
    """98 of 100 slices: 50 train, 48 test; the same names in both kinds of masks."""
    root = real_data / "covid_semiseg"
    binary, multiple = list_scans(root), list_scans(root, ("ground_glass", "consolidation"))
    published = [scan.published for scan in binary.scans]
    assert (published.count("train"), published.count("test")) == (50, 48)
    assert names(binary) == names(multiple)
    assert all("MultiClass" in str(scan.mask) for scan in multiple.scans)
    assert all(path.is_file() for scan in multiple.scans for path in (scan.image, scan.mask))


def test_real_radiopaedia(real_data: Path) -> None:
    """Ten volumes of eight patients: 1 and 2 share a study, 5 and 6 a case."""
    listing = list_scans(real_data / "radiopaedia")
    assert names(listing) == [f"rp_im/{n}" for n in range(1, 11)]
    assert listing.notes == ()
    patients = [scan.owners[None] for scan in listing.scans]
    assert len(set(patients)) == 8
    assert patients[0] == patients[1] != patients[2]
    assert patients[4] == patients[5]
