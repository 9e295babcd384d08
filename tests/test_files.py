"""A file under its name is the old one or the new one, whatever happens in between."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from covid_jax import files
from covid_jax.errors import DataError, RunError, printable
from covid_jax.files import (
    cache_folder,
    read_json,
    replace_text,
    replacing,
    write_json,
    writing_to,
)


def test_a_text_is_written_under_its_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    replace_text(path, "old")
    replace_text(path, "new ü")
    assert path.read_text() == "new ü"
    assert list(tmp_path.iterdir()) == [path]


def test_until_the_block_ends_the_old_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "figure.svg.gz"
    path.write_bytes(b"old")
    with replacing(path) as partial:
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert partial.parent == path.parent  # renamed, not copied from another disk
        assert partial.name.startswith(".")
        assert partial.suffixes[-2:] == [".svg", ".gz"]  # writers choose the format by these
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there_before", [True, False])
def test_an_error_leaves_what_there_was(tmp_path: Path, there_before: bool) -> None:
    path = tmp_path / "numbers.csv"
    if there_before:
        path.write_text("old")

    def fail_halfway() -> None:
        with replacing(path) as partial:
            partial.write_text("ne")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert [item.read_text() for item in tmp_path.iterdir()] == ["old"] * there_before


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even under the very name that will be taken, which nobody can guess."""
    victim = tmp_path / "victim"
    victim.write_text("whole")
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * count)
    (tmp_path / ".00000000-a.json").symlink_to(victim)
    with pytest.raises(FileExistsError):
        replace_text(tmp_path / "a.json", "{}")
    assert victim.read_text() == "whole"


def test_a_file_has_the_users_own_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_text(tmp_path / "a.json", "{}")
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_what_the_system_refuses_names_the_path_the_reason_and_the_way_out(tmp_path: Path) -> None:
    said = rf"^{tmp_path}: cannot be written \(No space left on device\); take another disk$"
    with pytest.raises(DataError, match=said), writing_to(tmp_path, "take another disk", DataError):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(ZeroDivisionError), writing_to(tmp_path):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("raw", "kind", "said"),
    [
        (b"", dict[str, Any], "damaged (Expecting value"),
        (b'{"a": 1', dict[str, Any], "damaged (Expecting ',' delimiter"),
        (b"\xff\xff", dict[str, Any], "damaged ('utf-8' codec can't decode"),
        (b"[" * 100_000, list[Any], "damaged ("),
        (b'{"a": NaN}', dict[str, float], "damaged (NaN is not a finite number)"),
        (b'{"a": -Infinity}', dict[str, float], "damaged (-Infinity is not a finite number)"),
        (b'{"a": 1e999}', dict[str, float], "damaged (1e999 is not a finite number)"),
        (b'{"a": "\\ud800"}', dict[str, str], "damaged ('utf-8' codec can't encode"),
        (b"[]", dict[str, Any], "[]: expected names with values"),
        (b'{"a": "1"}', dict[str, int], "a 1: expected a whole number"),
    ],
)
def test_json_that_is_none_or_of_other_types_is_refused_by_file(
    tmp_path: Path, raw: bytes, kind: Any, said: str
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(raw)
    with pytest.raises(RunError) as caught:
        read_json(path, kind, RunError)
    assert str(caught.value).startswith(f"{path}: {said}")


def test_json_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + '{"ü": [1, 2.5]}'.encode())
        assert read_json(path, dict[str, tuple[float, ...]]) == {"ü": (1.0, 2.5)}
    with pytest.raises(DataError, match=r"b.json: no such file"):
        read_json(tmp_path / "b.json")


def test_a_name_that_is_no_utf_8_is_read_as_it_was_written(tmp_path: Path) -> None:
    path, name = tmp_path / "a.json", os.fsdecode(b"Daten \xfc")
    write_json(path, {"folder": name})
    assert read_json(path, dict[str, str]) == {"folder": name}


def test_numbers_that_json_lacks_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_kill_leaves_the_old_file_and_is_in_nobodys_way(tmp_path: Path) -> None:
    """Another process dies by SIGKILL halfway; the next one writes all the same."""
    path = tmp_path / "config.json"
    path.write_text("old")
    code = (
        "import pathlib, sys, time\n"
        "from covid_jax.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('ne')\n"
        "    print('halfway', flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"halfway\n"
        os.kill(child.pid, signal.SIGKILL)
    assert path.read_text() == "old"
    left = [item.name for item in tmp_path.iterdir() if item != path]
    assert [name[0] for name in left] == ["."]
    replace_text(path, "new")
    assert path.read_text() == "new"


def test_two_processes_may_write_the_same_file(tmp_path: Path) -> None:
    """Each has a partial file of its own; the last to end is kept."""
    path = tmp_path / "a.json"
    with replacing(path) as first:
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_cache_is_where_the_desktop_standard_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The XDG base directory specification: $XDG_CACHE_HOME, unset or empty: ~/.cache."""
    home = tmp_path / "someone"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    assert cache_folder() == tmp_path / "kept/covid_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == home / ".cache/covid_jax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == home / ".cache/covid_jax"


@pytest.mark.parametrize("owner", ["own", "other"])
def test_without_a_home_the_cache_is_a_temporary_folder_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    """A user id without a name, as in containers; what another user made there is not trusted."""

    def nameless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nameless)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    user = os.getuid() + (owner == "other")
    (tmp_path / f"covid_jax-{user}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: user)
    files._temporary_cache.cache_clear()
    with pytest.warns(UserWarning, match="no home folder to cache in: .* set XDG_CACHE_HOME"):
        folder = cache_folder()
    files._temporary_cache.cache_clear()
    assert folder.parent == tmp_path
    assert (folder.name == f"covid_jax-{user}") == (owner == "own")
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("M\u00fcller 2 \u00d7 3\nnext", "M\u00fcller 2 \u00d7 3\nnext"),
        ("a\x1b[31mb\x07\r", "a\\x1b[31mb\\x07\\r"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        (b"M\xc3\xbcller".decode("ascii", "surrogateescape"), "M\u00fcller"),
        (b"M\xfcller".decode("utf-8", "surrogateescape"), "M\\xfcller"),
        ("\ud800", "\\ud800"),
    ],
)
def test_any_name_can_be_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
