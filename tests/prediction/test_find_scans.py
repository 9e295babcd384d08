"""Scans found by names and first bytes in folders of every kind."""

import errno
import json
import os
from pathlib import Path

import pytest

from covid_jax.errors import DataError
from covid_jax.prediction import find_scans as inputs
from covid_jax.prediction.find_scans import find_scans


def test_a_dicom_folder_called_as_a_file_is_one_series(tmp_path: Path) -> None:
    (tmp_path / "study.nii").mkdir()
    (tmp_path / "study.nii/IM0").write_bytes(bytes(128) + b"DICM")
    for path in (tmp_path, tmp_path / "study.nii"):
        (scan,) = find_scans([path], tmp_path / "out").scans
        assert (scan.path, scan.kind, scan.name) == (tmp_path / "study.nii", "dicom", "study.nii")


@pytest.mark.slow  # its path is long, and looked up name by name
def test_a_folder_is_found_below_more_folders_than_python_calls_itself(tmp_path: Path) -> None:
    depth, here = 1200, Path.cwd()
    os.chdir(tmp_path)
    try:
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        Path("a.nii").touch()
        found = find_scans([tmp_path], tmp_path / "out")
        Path("a.nii").unlink()
        for _ in range(depth):  # or pytest would call itself as often to remove them
            os.chdir("..")
            Path("d").rmdir()
    finally:
        os.chdir(here)
    assert [scan.name for scan in found.scans] == ["d/" * depth + "a"]
    assert found.unreadable == []


def test_pipes_are_refused_or_passed_over_unopened(tmp_path: Path) -> None:
    """To open one that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe: "):
        find_scans([tmp_path / "pipe"], tmp_path / "out")
    (tmp_path / "a.png").touch()
    found = find_scans([tmp_path], tmp_path / "out")
    assert [scan.name for scan in found.scans] == ["a"]
    assert found.others == 1


def test_a_scan_given_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "in" / "b").mkdir(parents=True)
    (tmp_path / "in" / "b" / "x.png").touch()
    folder, inner = tmp_path / "in", tmp_path / "in" / "b"
    for paths in ([folder, folder], [folder, inner], [inner, inner / "x.png"]):
        (scan,) = find_scans(paths, tmp_path / "out").scans
        assert scan.path == inner / "x.png"


def test_an_unreadable_file_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("IM0", "IM1", "a.png", "locked"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    known = inputs.format_of

    def read(path: Path) -> str | None:
        if path.name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied")
        return known(path)

    monkeypatch.setattr(inputs, "format_of", read)
    found = find_scans([tmp_path], tmp_path / "out")
    assert [scan.kind for scan in found.scans] == ["picture", "dicom"]
    assert found.unreadable == [(tmp_path / "locked", "Permission denied")]


def test_segmentations_of_an_earlier_call_are_no_series(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "ct_mask.dcm").write_bytes(bytes(128) + b"DICM")
    note = {"name": "ct", "scan": "/ct", "outputs": ["ct_mask.dcm"]}
    (tmp_path / "earlier" / "ct_summary.json").write_text(json.dumps(note))
    assert [scan.name for scan in find_scans([tmp_path], tmp_path / "out").scans] == ["a"]


def test_lung_masks_are_no_scans_and_links_are_left_to_the_reader(tmp_path: Path) -> None:
    for name in ("a.png", "lungs/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "z.nii").symlink_to("gone")  # its reader says so
    found = find_scans([tmp_path], tmp_path / "out", tmp_path / "lungs")
    assert [scan.name for scan in found.scans] == ["a", "z"]


def test_a_scan_in_the_topmost_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr("covid_jax.prediction.find_scans.require_file", lambda path: None)
    (scan,) = find_scans([Path("/scan.nii.gz")], Path("/out")).scans
    assert scan.name == "scan"
