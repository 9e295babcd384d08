"""Formats by names and by first bytes written by hand, as DICOM's part 10 has them."""

import os
import struct
from pathlib import Path

import pytest

from covid_jax.errors import DataError
from covid_jax.files import require_file
from covid_jax.io.formats import files_of, format_of, is_dicom

MARKED = bytes(128) + b"DICM" + bytes(8)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[("a.nii", "nifti"), ("A.NII.GZ", "nifti"), ("b.PNG", "picture"), ("b.Jpeg", "picture")],
        *[("b.tif", "picture"), ("c.DCM", "dicom"), ("notes.txt", None), ("nii", None)],
    ],
)
def test_names_decide_in_any_case(tmp_path: Path, name: str, kind: str | None) -> None:
    (tmp_path / name).write_bytes(b"some text")
    assert format_of(tmp_path / name) == kind


def test_a_folder_is_a_series_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "study.nii").mkdir()
    assert format_of(tmp_path / "study.nii") == "dicom"


@pytest.mark.parametrize(
    ("content", "dicom"),
    [
        (MARKED, True),
        (struct.pack("<2H4sH", 8, 5, b"CS\n\0", 0), True),  # SpecificCharacterSet, explicit
        (struct.pack("<2HI", 8, 8, 22) + b"ORIGINAL\\PRIMARY\\AXIAL", True),  # ImageType, implicit
        (struct.pack("<2HII", 8, 0, 4, 100), True),  # a group's length, as ACR-NEMA has it
        (struct.pack(">2H2sH", 8, 5, b"CS", 10), True),  # big endian
        (struct.pack("<2H2sHI", 2, 0, b"UL", 4, 200), True),  # file meta without preamble
        (b"", False),
        (bytes(140), False),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), False),
        (struct.pack("<2HI", 8, 8, 10**6), False),  # no header's first text is as long
        (struct.pack("<4H", 8, 5, 0x4040, 1), False),
    ],
)
def test_the_first_bytes_decide_where_no_name_does(
    tmp_path: Path, content: bytes, dicom: bool
) -> None:
    (tmp_path / "IM0").write_bytes(content)
    assert is_dicom(tmp_path / "IM0") == dicom
    assert format_of(tmp_path / "IM0") == ("dicom" if dicom else None)


def test_a_hidden_file_is_no_part_of_a_series(tmp_path: Path) -> None:
    for name in ("IM0", ".DS_Store"):
        (tmp_path / name).touch()
    assert files_of(tmp_path) == [tmp_path / "IM0"]


def test_a_table_of_contents_is_no_scan(tmp_path: Path) -> None:
    (tmp_path / "DICOMDIR").write_bytes(MARKED)
    assert format_of(tmp_path / "DICOMDIR") is None


def test_what_is_no_file_is_refused_without_being_opened(tmp_path: Path) -> None:
    """To open a named pipe that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "link").symlink_to("nowhere")
    assert format_of(tmp_path / "pipe") is None
    for name in ("pipe", "device.png"):
        with pytest.raises(DataError, match=f"{name}: a named pipe or a device"):
            require_file(tmp_path / name)
    for name in ("link", "absent"):
        with pytest.raises(DataError, match=f"{name}: no such file, or a link to nothing"):
            require_file(tmp_path / name)
    with pytest.raises(DataError, match="a folder, not a file"):
        require_file(tmp_path)
