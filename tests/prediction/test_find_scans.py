"""Scans found by names and first bytes in folders of every kind."""

import os
from pathlib import Path

import pytest

from covid_jax.errors import DataError
from covid_jax.prediction.find_scans import find_scans


def test_a_folder_far_below_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,900 folders: more than Python calls itself."""
    depth = 1900
    monkeypatch.chdir(tmp_path)
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("a.nii").touch()
    try:
        found = find_scans([tmp_path], tmp_path / "out")
    finally:  # or pytest would call itself as often
        Path("a.nii").unlink()
        for _ in range(depth):
            os.chdir("..")
            Path("d").rmdir()
    assert [scan.name for scan in found.scans] == ["d/" * depth + "a"]
    assert found.unreadable == []


def test_a_dicom_folder_called_as_a_file_is_one_series(tmp_path: Path) -> None:
    (tmp_path / "study.nii").mkdir()
    (tmp_path / "study.nii/IM0").write_bytes(bytes(128) + b"DICM")
    for path in (tmp_path, tmp_path / "study.nii"):
        (scan,) = find_scans([path], tmp_path / "out").scans
        assert (scan.path, scan.kind, scan.name) == (tmp_path / "study.nii", "dicom", "study.nii")


def test_pipes_and_devices_are_refused_or_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"pipe\.nii: a named pipe or a device"):
        find_scans([tmp_path / "pipe.nii"], tmp_path / "out")
    with pytest.raises(DataError, match="pipe: "):
        find_scans([tmp_path / "pipe"], tmp_path / "out")
    (tmp_path / "a.png").touch()
    found = find_scans([tmp_path], tmp_path / "out")
    assert found.others == 1
