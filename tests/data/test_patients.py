"""Tables written by hand, and whose each slice is by reading them aloud."""

from pathlib import Path

import pytest

from covid_jax.data.layouts import list_scans
from covid_jax.data.patients import name_patients, patients_of, read_patients
from covid_jax.data.scan import Listing, ScanFiles
from covid_jax.errors import DataError

NAMES = {"tr_im", "rp_im/1", "rp_im/2", "train/5", "test/5", "test/6"}


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "patients.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def stack(name: str = "tr_im", **settings) -> ScanFiles:
    return ScanFiles(
        name, "hospital", Path(f"{name}.nii.gz"), Path(f"{name}_mask.nii.gz"), **settings
    )


def volume(name: str = "rp_im/1", **settings) -> ScanFiles:
    return stack(name, volume=True, **settings)


def patients(scan: ScanFiles, slices: int) -> list[str | None]:
    assigned = patients_of(scan, slices)
    assert len(assigned) == slices
    return assigned


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        pytest.param("volume,patient\n1,a\n2,a\n", {"rp_im/1": "a", "rp_im/2": "a"}, id="volumes"),
        pytest.param("volume,patient\nrp_im/1,a\ntrain/5,b\n", {"rp_im/1": "a", "train/5": "b"}),
        pytest.param("\ufeffpatient,note,volume\r\n a ,x, 6 \r\n", {"test/6": "a"}, id="a table"),
        pytest.param("volume,patient\n1,\n\n2, \n", {"rp_im/1": None, "rp_im/2": None}, id="empty"),
        pytest.param(
            "volume,patient\nrp_im/1.nii.gz,a\n6.PNG,b\n2.mha,c\n",
            {"rp_im/1": "a", "test/6": "b", "rp_im/2": "c"},
        ),
        pytest.param('volume,patient\n1,"Doe, Jane"\n', {"rp_im/1": "Doe, Jane"}, id="quoted"),
    ],
)
def test_rows_name_whole_scans(tmp_path: Path, table: str, expected: dict) -> None:
    rows = read_patients(write(tmp_path, table), NAMES)[0]
    assert {name: owners for name, owners in rows.items() if owners} == {
        name: {None: patient} for name, patient in expected.items()
    }


def test_rows_name_single_slices(tmp_path: Path) -> None:
    path = write(tmp_path, "volume,patient,slice\ntr_im,a,0\ntr_im,b, 12\n1,c,\ntr_im,,3\n")
    rows, _ = read_patients(path, NAMES)
    assert rows["tr_im"] == {0: "a", 12: "b", 3: None}
    assert rows["rp_im/1"] == {None: "c"}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("scan,person\n1,a\n", "['scan', 'person']"),
        ("scan,person\n", "['scan', 'person']"),
        ("volume,patient,patient\n1,a,b\n", "['volume', 'patient', 'patient']"),
        ("", "columns []"),
        ("volume;patient\n1;a\n", "['volume;patient']"),
        ("volume,patient,slice\n1,a,first\n", "'first'"),
        ("volume,patient,slice\ntr_im,a,-1\n", "slice -1"),
        ("volume,patient,slice\ntr_im,a,1.0\n", "'1.0'"),
        ("volume,patient\n1\n", "another length"),
        ("volume,patient\n1,a,b\n", "another length"),
        (b"volume,patient\n1,M\xfcller\n", "utf-8"),
        ("volume,patient\n3,a\nrp_msk/1,b", "volumes 3, rp_msk/1, none of which is among"),
        ("volume,patient\n5,a\n", "test/5, train/5"),
        ("volume,patient\n1,a\n1,a\n", "given twice"),
        ("volume,patient\n1,a\nrp_im/1,b\n", "given twice"),
        ("volume,patient,slice\n1,a,2\n1,a,02\n", "given twice"),
    ],
)
def test_a_malformed_table_is_refused(tmp_path: Path, table: str | bytes, said: str) -> None:
    path = write(tmp_path, table)
    with pytest.raises(DataError) as caught:
        read_patients(path, NAMES)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_table_that_is_a_folder_or_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    """Passed over, it would leave every patient unknown."""
    listing = Listing("", (volume(),))
    path = tmp_path / "patients.csv"
    path.mkdir()
    with pytest.raises(DataError, match=str(path)):
        name_patients(listing, path)
    path.rmdir()
    path.symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=str(path)):
        name_patients(listing, path)


def test_a_table_is_given_to_the_scans_it_speaks_of(tmp_path: Path) -> None:
    scans = stack(), volume("rp_im/1"), volume("rp_im/2"), volume("rp_im/3")
    path = write(tmp_path, "volume,patient,slice\ntr_im,a,0\n1,b,\ntr_im,,1\n2,,\n")
    listing = name_patients(Listing("layout", scans, ("a note",)), path)
    assert [scan.owners for scan in listing.scans] == [
        {0: "a", 1: None},
        {None: "b"},
        {None: None},
        {},
    ]
    assert listing.notes == ("a note", "patients.csv names no patient for 2 of 3 volumes")


def test_rows_for_files_that_are_not_there_are_noted(tmp_path: Path) -> None:
    """A part of a collection is opened with the whole collection's table."""
    table = "volume,patient,slice\n1,a,\n7,b,\n7,b,1\n8,c,\n"
    listing = name_patients(Listing("layout", (volume("rp_im/1"),)), write(tmp_path, table))
    assert listing.scans[0].owners == {None: "a"}
    assert listing.notes == ("patients.csv has rows for files that are not here: 7, 8",)


def test_a_patient_called_unknown_is_none(tmp_path: Path) -> None:
    """It is what slices.csv writes where nobody knows; in data it can mean nothing else."""
    path = write(tmp_path, "volume,patient\n1, Unknown \n2,unknown 7\n")
    rows, _ = read_patients(path, NAMES)
    assert (rows["rp_im/1"], rows["rp_im/2"]) == ({None: None}, {None: "unknown 7"})


@pytest.mark.parametrize(
    ("scan", "guessed"), [(volume(), True), (volume(patient="case 7"), False), (stack(), False)]
)
def test_without_a_table_a_guess_is_said_to_be_one(
    tmp_path: Path, scan: ScanFiles, guessed: bool
) -> None:
    listing = name_patients(Listing("layout", (scan,)), tmp_path / "patients.csv")
    assert listing.notes == ("no patients.csv: each volume counts as one patient",) * guessed
    assert listing.scans == (scan,)


@pytest.mark.parametrize(
    ("scan", "slices", "expected"),
    [
        pytest.param(stack(), 2, [None, None], id="nobody knows"),
        pytest.param(volume(), 2, ["rp_im/1", "rp_im/1"], id="a volume is a patient"),
        pytest.param(volume(), 1, [None], id="a lone slice may have neighbours in other files"),
        pytest.param(volume(patient="volume 1"), 1, ["volume 1"], id="the layout knows"),
        pytest.param(stack(patient="p"), 2, ["p", "p"], id="the layout knows of a stack"),
        pytest.param(
            volume(patient="volume 1", owners={None: "a"}), 2, ["a", "a"], id="the table first"
        ),
        pytest.param(
            volume(patient="volume 1", owners={None: None}), 1, ["volume 1"], id="an empty cell"
        ),
        pytest.param(stack(owners={1: "a"}), 3, [None, "a", None], id="others stay unknown"),
        pytest.param(stack(owners={0: None, 1: "a"}), 2, [None, "a"], id="an empty cell of two"),
        pytest.param(stack(owners={None: "a", 1: "b"}), 3, ["a", "b", "a"], id="but one"),
        pytest.param(volume(owners={None: "a", 1: "b"}), 3, ["a", "b", "a"], id="but one, volume"),
        pytest.param(volume(owners={0: "a", 1: "b"}), 2, ["a", "b"], id="every slice"),
        pytest.param(volume(owners={0: None, 1: None}), 2, ["rp_im/1"] * 2, id="no slice at all"),
    ],
)
def test_patients_of_slices(scan: ScanFiles, slices: int, expected: list[str | None]) -> None:
    assert patients(scan, slices) == expected


@pytest.mark.parametrize("scan", [stack, volume])
def test_a_slice_beyond_the_scan_is_refused(scan) -> None:
    """Slices 0, 1 and 2 are there: a table counted from 1 speaks of a fourth."""
    owners = {1: "a", 2: "b", 3: None}
    with pytest.raises(DataError, match=r"has slices 0 to 2; patients.csv names 3") as caught:
        patients_of(scan(owners=owners), 3)
    assert str(scan().image) in str(caught.value)


@pytest.mark.parametrize("owners", [{0: "a", 2: "a"}, {0: "a", 1: None, 2: "a"}])
def test_a_volume_named_in_part_is_refused(owners: dict) -> None:
    """Its other slice would count as another patient, and may stand on the other side."""
    with pytest.raises(DataError, match=r"no patient for its slices 1;") as caught:
        patients_of(volume(owners=owners), 3)
    assert str(volume().image) in str(caught.value)


def test_real_radiopaedia(real_data: Path) -> None:
    """Slices of each volume and the eight patients, as its README counts them."""
    slices = [11, 118, 66, 33, 2, 9, 24, 55, 22, 27]
    scans = list_scans(real_data / "radiopaedia").scans
    assigned = {s.name: patients_of(s, count) for s, count in zip(scans, slices, strict=True)}
    assert sum(map(len, assigned.values())) == 367
    assert len(set().union(*assigned.values())) == 8
    assert assigned["rp_im/1"][10] == assigned["rp_im/2"][117] == "p85902"
    assert assigned["rp_im/5"][1] == assigned["rp_im/6"][8] == "p29"
