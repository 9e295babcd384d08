"""What holds for folders of every layout, and for folders of none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from covid_jax.data.layouts import list_scans
from tests.support.trees import SEMISEG, refused, touch

MINIMAL = {  # image, mask, and what a folder of this layout needs besides
    "medseg": ("rp_im/1.nii.gz", "rp_msk/1.nii.gz", ["rp_im/2.nii.gz", "rp_msk/2.nii.gz"]),
    "medseg stack": ("tr_im.nii.gz", "tr_mask.nii.gz", ["rp_im/1.nii.gz", "rp_msk/1.nii.gz"]),
    "semiseg": (
        f"{SEMISEG['train'][0]}/Imgs/1.jpg",
        f"{SEMISEG['train'][0]}/GT/1.png",
        [
            *(f"{SEMISEG['train'][0]}/{part}" for part in ("Imgs/2.jpg", "GT/2.png")),
            *(f"{SEMISEG['test'][0]}/{part}" for part in ("Imgs/3.jpg", "GT/3.png")),
        ],
    ),
    "zenodo": (
        "COVID-19-CT-Seg_20cases/coronacases_001.nii.gz",
        "Infection_Mask/coronacases_001.nii.gz",
        [f"{f}/coronacases_002.nii.gz" for f in ("COVID-19-CT-Seg_20cases", "Infection_Mask")],
    ),
    "mosmed": (
        "studies/CT-1/study_1.nii.gz",
        "masks/study_1_mask.nii.gz",
        ["studies/CT-1/study_2.nii.gz", "masks/study_2_mask.nii.gz"],
    ),
    "nnunet": (
        "imagesTr/a_0000.nii.gz",
        "labelsTr/a.nii.gz",
        ["imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz"],
    ),
    "pairs": ("images/a.png", "masks/a.png", ["images/b.png", "masks/b.png"]),
    "side by side": ("a.png", "a_mask.png", ["b.png", "b_mask.png"]),
}


def make(root: Path, layout: str) -> tuple[Path, Path]:
    image, mask, rest = MINIMAL[layout]
    touch(root, image, mask, *rest)
    if layout == "nnunet":
        (root / "dataset.json").write_text('{"labels": {"background": 0, "lesion": 1}}')
    return root / image, root / mask


@pytest.mark.parametrize("layout", MINIMAL)
def test_an_image_without_its_mask_is_refused(tmp_path: Path, layout: str) -> None:
    image, mask = make(tmp_path, layout)
    before = list_scans(tmp_path)
    mask.unlink()
    if layout == "mosmed":  # the collection itself has studies without masks
        assert len(list_scans(tmp_path).scans) == len(before.scans) - 1
    else:
        message = refused(tmp_path)
        assert str(image) in message
        assert str(mask.parent) in message


@pytest.mark.parametrize("layout", MINIMAL)
def test_a_mask_without_its_image_is_refused(tmp_path: Path, layout: str) -> None:
    image, mask = make(tmp_path, layout)
    image.unlink()
    assert f"{mask}: the mask of no image" in refused(tmp_path)


@pytest.mark.parametrize("layout", MINIMAL)
@pytest.mark.parametrize("which", [0, 1], ids=["image", "mask"])
def test_two_files_of_one_name_are_refused(tmp_path: Path, layout: str, which: int) -> None:
    path = make(tmp_path, layout)[which]
    stem = path.name.removesuffix(".nii.gz").removesuffix(path.suffix)
    twin = path.with_name(stem + (".nii" if path.suffix == ".gz" else ".tif"))
    twin.touch()
    if layout == "nnunet":  # of dataset.json's file_ending there is one
        assert len(list_scans(tmp_path).scans) == 2
    else:
        message = refused(tmp_path)
        assert str(path) in message
        assert str(twin) in message


@pytest.mark.parametrize("layout", MINIMAL)
def test_what_a_system_hides_is_passed_over(tmp_path: Path, layout: str) -> None:
    image, mask = make(tmp_path, layout)
    before = list_scans(tmp_path)
    for path in (image, mask):
        touch(path.parent, f"._{path.name}", ".DS_Store", "Thumbs.db", "__MACOSX/x.png")
    touch(tmp_path, "__MACOSX/images/._a.png", "LICENSE.txt")
    assert list_scans(tmp_path) == before


@pytest.mark.parametrize("layout", MINIMAL)
def test_a_folder_in_a_files_place_is_refused(tmp_path: Path, layout: str) -> None:
    """Some programs unpack ``x.nii.gz`` to a folder ``x.nii`` with the file inside."""
    _, mask = make(tmp_path, layout)
    mask.unlink()
    touch(mask, mask.name)
    message = refused(tmp_path)
    assert f"{mask}: expected a file, found a folder" in message


@pytest.mark.parametrize("layout", MINIMAL)
def test_a_link_to_nothing_is_listed_for_its_reader_to_refuse(tmp_path: Path, layout: str) -> None:
    image, _ = make(tmp_path, layout)
    before = list_scans(tmp_path)
    image.unlink()
    image.symlink_to(image)
    assert list_scans(tmp_path) == before


@pytest.mark.parametrize("layout", MINIMAL)
def test_patients_csv_serves_every_layout(tmp_path: Path, layout: str) -> None:
    make(tmp_path, layout)
    name = list_scans(tmp_path).scans[0].name
    table = tmp_path / "patients.csv"
    table.write_text(f"volume,patient\n{name},somebody\n")
    listing = list_scans(tmp_path)
    assert listing.scans[0].owners == {None: "somebody"}
    assert all(scan.owners == {} for scan in listing.scans[1:])


def test_refuses_a_missing_folder_and_a_file(tmp_path: Path) -> None:
    assert f"{tmp_path / 'absent'}: no such folder" in refused(tmp_path / "absent")
    touch(tmp_path, "data.zip")
    assert f"{tmp_path / 'data.zip'}: no such folder" in refused(tmp_path / "data.zip")


@pytest.mark.parametrize(
    "found", [(), ("scans", "masks.zip"), tuple(f"folder{n}" for n in range(8))]
)
def test_an_unknown_layout_says_what_was_looked_for_and_found(
    tmp_path: Path, found: tuple[str, ...]
) -> None:
    for name in found:
        (tmp_path / name).mkdir()
    message = refused(tmp_path)
    looked_for = ("tr_im.nii.gz", "rp_im/N.nii.gz", "LungInfection-Train", "Infection_Mask")
    looked_for += ("studies/CT-1", "imagesTr", "images/NAME")
    for expected in (str(tmp_path), *looked_for, *found[:6]):
        assert expected in message
    assert ("an empty folder" in message) == (not found)
    assert ("and 2 more" in message) == (len(found) == 8)


def test_two_collections_in_one_folder_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "medseg")
    make(tmp_path, "mosmed")
    message = refused(tmp_path)
    assert "MedSeg and MosMedData" in message
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    "folders", [("rp_im", "rp_msk"), ("imagesTr", "labelsTr"), ("images", "masks")]
)
def test_folders_without_files_are_refused(tmp_path: Path, folders: tuple[str, str]) -> None:
    for name in folders:
        (tmp_path / name).mkdir()
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "lesion": 1}}')
    assert f"{tmp_path / folders[0]}: no " in refused(tmp_path)
    touch(tmp_path, f"{folders[0]}/a_0000.nii.gz")
    assert str(tmp_path / folders[1]) in refused(tmp_path)


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system would refuse it: tests may run as root, whom no permission stops."""
    make(tmp_path, "medseg")
    closed, iterdir = tmp_path / "rp_msk", Path.iterdir

    def guarded(folder: Path) -> Iterator[Path]:
        if folder == closed:
            raise PermissionError(13, "Permission denied", str(folder))
        return iterdir(folder)

    monkeypatch.setattr(Path, "iterdir", guarded)
    assert refused(tmp_path) == f"{closed}: cannot be read (Permission denied)"


def test_a_folder_that_links_to_itself_is_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert f"{loop}: no such folder" in refused(loop)
    (tmp_path / "rp_im").symlink_to(tmp_path / "rp_im")
    assert str(tmp_path) in refused(tmp_path)
