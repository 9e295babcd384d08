"""Several folders of empty files, listed as one dataset."""

from pathlib import Path

import pytest

from covid_jax.data.layouts import list_scans
from covid_jax.data.open_dataset import list_folders
from covid_jax.data.scan import Listing
from covid_jax.errors import DataError
from tests.support.trees import SEMISEG, names, touch


def make_volume(root: Path, number: int = 1) -> Path:
    return touch(root, f"rp_im/{number}.nii.gz", f"rp_msk/{number}.nii.gz")


def joined(*roots: Path) -> Listing:
    return list_folders(roots)


def test_one_folder_keeps_its_names(tmp_path: Path) -> None:
    make_volume(tmp_path)
    assert joined(tmp_path) == list_scans(tmp_path)


def test_scans_and_their_own_patients_bear_their_folders_names(tmp_path: Path) -> None:
    one = touch(tmp_path / "dataset1", "tr_im.nii.gz", "tr_mask.nii.gz")
    two = make_volume(tmp_path / "dataset2", 3)
    listing = joined(one, two)
    assert names(listing) == ["dataset1/tr_im", "dataset2/rp_im/3"]
    assert [scan.patient for scan in listing.scans] == [None, "dataset2/volume 3"]
    assert [scan.source for scan in listing.scans] == ["Dataset-1", "Dataset-2"]
    assert listing.scans[1].image == two / "rp_im/3.nii.gz"
    assert listing.layout == "dataset1: MedSeg Dataset-1; dataset2: MedSeg Dataset-2 (1 volumes)"
    assert listing.notes == (
        "dataset2: no patients.csv: each Dataset-2 volume counts as one patient",
    )


def test_patients_csv_names_the_same_patient_in_all_folders(tmp_path: Path) -> None:
    """The files speak of their own folder's scans; what they call a patient is not changed."""
    roots = [make_volume(tmp_path / place) for place in ("one", "two", "three")]
    for root in roots[:2]:
        (root / "patients.csv").write_text("volume,patient\n1,Doe\n")
    first, second, third = joined(*roots).scans
    assert first.owners == second.owners == {None: "Doe"}
    assert third.owners == {}
    assert len({scan.name for scan in (first, second, third)}) == 3


@pytest.mark.parametrize("deep", ["data", "deep/data"])
def test_folders_of_one_name_show_more_of_their_paths(tmp_path: Path, deep: str) -> None:
    roots = [make_volume(tmp_path / place / deep) for place in ("here", "there")]
    assert names(joined(*roots)) == [f"here/{deep}/rp_im/1", f"there/{deep}/rp_im/1"]


@pytest.mark.parametrize("again", ["one", "one/../one", "link", "two/../link"])
def test_a_folder_given_twice_is_refused(tmp_path: Path, again: str) -> None:
    roots = [make_volume(tmp_path / place) for place in ("one", "two")]
    (tmp_path / "link").symlink_to(tmp_path / "one")
    with pytest.raises(DataError, match="given twice"):
        joined(*roots, tmp_path / again)


def test_links_and_dots_do_not_change_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("one", "two"):
        make_volume(tmp_path / "store" / place)
    (tmp_path / "linked").symlink_to(tmp_path / "store/two")
    monkeypatch.chdir(tmp_path / "store/one")
    assert names(joined(Path(), tmp_path / "linked")) == ["one/rp_im/1", "linked/rp_im/1"]
    monkeypatch.chdir("rp_im")
    assert names(joined(Path(".."), Path("../../two"))) == ["one/rp_im/1", "two/rp_im/1"]


def test_collections_that_share_patients_are_pointed_out(tmp_path: Path) -> None:
    first = touch(tmp_path / "a", "tr_im.nii.gz", "tr_mask.nii.gz")
    second = make_volume(tmp_path / "b")
    halves = (folder for folder, _ in SEMISEG.values())
    semiseg = touch(
        tmp_path / "c", *(f"{h}/{f}" for h in halves for f in ("Imgs/1.jpg", "GT/1.png"))
    )
    cases = (
        f"{f}/radiopaedia_4_85506_1.nii" for f in ("COVID-19-CT-Seg_20cases", "Infection_Mask")
    )
    zenodo = touch(tmp_path / "d", *cases)
    assert joined(first, semiseg).notes == (
        "Dataset-1 and COVID-SemiSeg show the same slices: joined, each counts twice",
    )
    assert joined(second, zenodo).notes[-1] == (
        "Dataset-2 and Radiopaedia draw on the same Radiopaedia cases, under different names"
    )
    assert joined(first, zenodo).notes == ()
