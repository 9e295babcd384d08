"""Empty images and masks that belong together by their names, or fail to."""

from pathlib import Path

import pytest

from covid_jax.data.layouts import list_scans
from tests.support.trees import files, refused, touch


@pytest.mark.parametrize(
    ("image", "mask", "name"),
    [
        ("images/case1.nii.gz", "masks/case1.nii", "case1"),
        ("Images/case1.nii.gz", "Labels/case1_mask.nii.gz", "case1"),
        ("imgs/a b.PNG", "GT/a b-Mask.png", "a b"),
        ("images/1.jpg", "annotations/1_seg.png", "1"),
        ("images/x_mask.tif", "masks/x_mask.tif", "x_mask"),
        ("images/case1.dcm", "masks/case1_label.nii.gz", "case1"),
        ("case1.nii.gz", "case1_mask.nii.gz", "case1"),
        ("case1.dcm", "case1-seg.png", "case1"),
    ],
)
def test_pairs_are_found_by_name(tmp_path: Path, image: str, mask: str, name: str) -> None:
    root = tmp_path / "hospital"
    touch(root, image, mask)
    listing = list_scans(root)
    (scan,) = listing.scans
    assert files(root, scan) == (image, mask)
    assert (scan.name, scan.source, scan.patient) == (name, "hospital", None)
    assert scan.volume == image.endswith(".nii.gz")
    assert scan.labels == ({1: "lesion"} if ".nii" in mask else {1: "lesion", 255: "lesion"})
    assert listing.layout.startswith("image/mask pairs")
    assert listing.layout.endswith("(1 scans)")


def test_a_dicom_folder_is_a_volume(tmp_path: Path) -> None:
    touch(tmp_path, "images/case1/IM0001", "images/case1/IM0002", "masks/case1.nii.gz")
    touch(tmp_path, "images/case2/1.dcm", "masks/case2.nii.gz")
    listing = list_scans(tmp_path)
    assert [files(tmp_path, scan)[0] for scan in listing.scans] == ["images/case1", "images/case2"]
    assert all(scan.volume for scan in listing.scans)
    assert listing.layout == "image/mask pairs in images/ and masks/ (2 scans)"
    assert listing.notes == ("no patients.csv: each volume counts as one patient",)


def test_pairs_name_the_mask_that_is_missing(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/b.jpg", "images/c/1.dcm", "masks/a.png")
    message = f"{tmp_path / 'images/b.jpg'}: has no mask; expected the mask of b in"
    assert f"{message} {tmp_path / 'masks'}" in refused(tmp_path)
    touch(tmp_path, "masks/b.png")
    assert f"expected the mask of c in {tmp_path / 'masks'}" in refused(tmp_path)


def test_side_by_side_names_the_mask_that_is_missing(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "a_mask.nii", "b.nii")
    assert f"expected the mask of b in {tmp_path}" in refused(tmp_path)


def test_jpeg_masks_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.jpg")
    assert f"{tmp_path / 'masks/a.jpg'}: JPEG blurs" in refused(tmp_path)


def test_two_mask_folders_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", "labels/a.png")
    message = refused(tmp_path)
    assert "labels and masks" in message
    assert str(tmp_path) in message


def test_accents_composed_or_apart_are_one_name(tmp_path: Path) -> None:
    """Archives from macOS store them apart: \u0075\u0308 for \u00fc."""
    apart, composed = "Mu\u0308ller", "M\u00fcller"
    touch(tmp_path, f"images/{composed}.png", f"masks/{apart}.png")
    (scan,) = list_scans(tmp_path).scans
    assert scan.name == composed
    assert scan.mask.name == f"{apart}.png"
    (tmp_path / "patients.csv").write_text(f"volume,patient\n{apart},7\n", encoding="utf-8")
    (scan,) = list_scans(tmp_path).scans
    assert scan.owners == {None: "7"}


def test_a_dicom_folder_may_be_called_as_a_file_is(tmp_path: Path) -> None:
    touch(tmp_path, "images/study.nii/IM0", "masks/study.nii.gz")
    (tmp_path / "images/study.nii/IM0").write_bytes(bytes(128) + b"DICM")
    (scan,) = list_scans(tmp_path).scans
    assert (scan.name, scan.volume) == ("study", True)
    assert scan.image == tmp_path / "images/study.nii"
