"""A run folder has one owner: living ones are named, dead ones are in nobody's way."""

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from covid_jax.errors import RunError
from covid_jax.runs.lock import locked

HOLD = """
import pathlib, sys, time
from covid_jax.runs.lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_folder_is_held_and_given_back(tmp_path: Path) -> None:
    folder = tmp_path / "runs/one"
    for _ in range(2):
        with locked(folder):
            (folder / "config.json").touch()
            assert sorted(path.name for path in folder.iterdir()) == [".lock", "config.json"]
            with (
                pytest.raises(RunError, match=f"in use by process {os.getpid()} on"),
                locked(folder),
            ):
                pass
        assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_who_waits_gets_the_folder_next(tmp_path: Path) -> None:
    """A lock belongs to an opened file: threads exclude each other as processes do."""
    entered = threading.Event()

    def wait() -> None:
        with locked(tmp_path, wait=True):
            entered.set()

    waiting = threading.Thread(target=wait)
    with locked(tmp_path):
        waiting.start()
        assert not entered.wait(0.3)
    assert entered.wait(20)
    waiting.join()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_made_for_nothing_goes_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "one"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file: cannot be written"), locked(tmp_path / "file"):
        pass


def test_a_living_process_is_named_and_a_killed_one_is_no_obstacle(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        said = rf"^{tmp_path}: in use by process {child.pid} on \S+ since 2.*T.*; wait for it, or "
        with pytest.raises(RunError, match=said), locked(tmp_path):
            pass
        os.kill(child.pid, signal.SIGKILL)
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_wrote_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 1 on a host with a name longer than ours " * 9)
    with locked(tmp_path):
        owner = rf"process {os.getpid()} on {socket.gethostname()} since 2\d{{3}}-\S+"
        assert re.fullmatch(owner, (tmp_path / ".lock").read_text())


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / ".lock").symlink_to("victim")
    with pytest.raises(RunError, match="cannot be written"), locked(tmp_path):
        pass
    assert (tmp_path / "victim").read_text() == "kept"


def test_a_file_system_without_locks_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="No locks available.*no second run"), locked(tmp_path):
        assert (tmp_path / ".lock").exists()
