"""Raw nnU-Net datasets of empty files, described as its two versions do."""

import json
from pathlib import Path

import pytest

from covid_jax.data.layouts import list_scans
from tests.support.trees import files, names, refused, touch


def make_nnunet(root: Path, record: dict, ending: str = ".nii.gz") -> Path:
    root = root / "Dataset101_Lesions"
    touch(root, *(f"imagesTr/case_{n}_0000{ending}" for n in (1, 2, 10)))
    touch(root, *(f"labelsTr/case_{n}{ending}" for n in (1, 2, 10)))
    (root / "dataset.json").write_text(json.dumps(record))
    return root


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(
            {
                "channel_names": {"0": "CT"},
                "labels": {"background": 0, "Ground-glass opacity": 1, "Consolidation": 2},
                "file_ending": ".nii.gz",
            },
            id="version 2",
        ),
        pytest.param(
            {"labels": {"0": "background", "1": "GGO", "2": "consolidation"}}, id="version 1"
        ),
        pytest.param(
            {"labels": {"background": "0", "ground_glass": "1", "consolidation": "2"}},
            id="numbers as text",
        ),
    ],
)
def test_nnunet_names_its_labels(tmp_path: Path, record: dict) -> None:
    root = make_nnunet(tmp_path, record)
    listing = list_scans(root)
    assert listing.layout == "nnU-Net dataset Dataset101_Lesions (3 scans)"
    assert listing.notes[0] == (
        "labels consolidation, ground_glass are merged to one; --classes chooses among them"
    )
    assert list_scans(root, ("ground_glass",)).notes == listing.notes[1:]
    assert names(listing) == ["imagesTr/case_1", "imagesTr/case_2", "imagesTr/case_10"]
    scan = listing.scans[2]
    assert files(root, scan) == ("imagesTr/case_10_0000.nii.gz", "labelsTr/case_10.nii.gz")
    assert scan.labels == {1: "ground_glass", 2: "consolidation"}
    assert (scan.patient, scan.published, scan.volume) == (None, None, True)
    assert scan.source == "Dataset101_Lesions"


def test_nnunet_pictures_are_no_volumes(tmp_path: Path) -> None:
    record = {"labels": {"background": 0, "lesion": 1}, "file_ending": ".png", "name": "Slices"}
    listing = list_scans(make_nnunet(tmp_path, record, ".png"))
    assert {(scan.volume, scan.source) for scan in listing.scans} == {(False, "Slices")}
    assert listing.notes == ()


def test_nnunet_test_labels_make_a_published_split(tmp_path: Path) -> None:
    root = make_nnunet(tmp_path, {"labels": {"background": 0, "lesion": 1}})
    touch(root, "imagesTs/case_7_0000.nii.gz", "imagesTs/case_8_0000.nii.gz")
    (root / "labelsTs").mkdir()
    unlabelled = list_scans(root)
    assert len(unlabelled.scans) == 3
    assert unlabelled.notes[0] == "2 images of imagesTs have no labels and were left out"

    touch(root, "labelsTs/case_7.nii.gz", "labelsTs/case_8.nii.gz")
    listing = list_scans(root)
    assert "3 training and 2 test scans, published split" in listing.layout
    assert [scan.published for scan in listing.scans] == ["train"] * 3 + ["test"] * 2
    assert names(listing)[3:] == ["imagesTs/case_7", "imagesTs/case_8"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"labels": {"background": 0, "lesion": [1, 2]}}, "region"),
        ({"labels": {"background": 0, "lesion": 1, "ignore": 2}}, "ignored"),
        ({"labels": {"background": 0, "lesion": True}}, "expected a name and its number"),
        ({"labels": {"background": 0, "lesion": 1.5}}, "expected a name and its number"),
        ({"labels": {"background": 0, "lesion": -1}}, "expected a name and its number"),
        ({"labels": {"background": 0, "lesion": "9" * 5000}}, "expected a name and its number"),
        ({"labels": {"0": "background", "1": {}}}, "expected a name and its number"),
        ({"labels": {"background": 0, "lesion": 1, "effusion": 1}}, "two labels of the number 1"),
        ({"labels": {"background": 1, "lesion": 0}}, "the background has the number 1"),
        ({"labels": {"background": 0}}, "expected a name for each label"),
        ({"labels": {"background": 0, "--": 1}}, "expected a name for each label"),
        ({"labels": ["background", "lesion"]}, "expected labels"),
        ({}, "expected labels"),
        ([], "expected names with values"),
        ({"labels": {"lesion": 1}, "file_ending": ".npz"}, "'.npz' cannot be read"),
        ({"labels": {"lesion": 1}, "file_ending": [".png"]}, "cannot be read"),
    ],
)
def test_nnunet_refuses_labels_it_cannot_read(tmp_path: Path, record: dict, said: str) -> None:
    root = make_nnunet(tmp_path, record)
    message = refused(root)
    assert message.startswith(f"{root / 'dataset.json'}: ")
    assert said in message


def test_nnunet_needs_its_description(tmp_path: Path) -> None:
    root = make_nnunet(tmp_path, {})
    for text in ('{"labels": ', "[" * 100_000):
        (root / "dataset.json").write_text(text)
        assert f"{root / 'dataset.json'}: damaged" in refused(root)
    (root / "dataset.json").unlink()
    assert f"{root / 'dataset.json'}: no such file" in refused(root)


@pytest.mark.parametrize(
    ("extra", "said"),
    [("case_1_0001.nii.gz", "second channel"), ("case_3.nii.gz", "case_3_0000")],
)
def test_nnunet_takes_one_channel(tmp_path: Path, extra: str, said: str) -> None:
    root = make_nnunet(tmp_path, {"labels": {"background": 0, "lesion": 1}})
    touch(root, f"imagesTr/{extra}")
    message = refused(root)
    assert str(root / "imagesTr" / extra) in message
    assert said in message
