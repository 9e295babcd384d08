"""A file under its name is the old one or the new one, whatever happens in between."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from covid_jax.files import cache_folder, replace_text, replacing


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


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


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


def test_two_processes_may_write_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a partial file of its own; who ends last is kept."""
    path = tmp_path / "a.json"
    monkeypatch.setattr("os.getpid", lambda: 11)
    with replacing(path) as first:
        first.write_text("first")
        monkeypatch.setattr("os.getpid", lambda: 12)
        with replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_the_cache_is_where_the_desktop_standard_puts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The XDG base directory specification: $XDG_CACHE_HOME, unset or empty: ~/.cache."""
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/tmp/kept")
    assert cache_folder() == Path("/var/tmp/kept/covid_jax")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == Path("/home/someone/.cache/covid_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path("/home/someone/.cache/covid_jax")
