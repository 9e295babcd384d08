"""A run folder has one owner: living ones are named, dead ones are in nobody's way."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from covid_jax.errors import RunError
from covid_jax.runs import lock
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
        said = rf"^{tmp_path}: in use by process {child.pid} on \S+ since 2.*T.*remove .*/.lock"
        with pytest.raises(RunError, match=said), locked(tmp_path):
            pass
        os.kill(child.pid, signal.SIGKILL)
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["", json.dumps({"host": "x", "pid": 1, "since": "", "token": ""})]
)
def test_a_lock_of_another_host_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """One that is touched is alive, whatever the clocks say; so for one that cannot be read."""
    monkeypatch.setattr(lock, "WATCH", 0.2)
    path = tmp_path / ".lock"
    path.write_text(text)
    with locked(tmp_path):
        pass
    path.write_text(text)

    def somebody_touches(_: float) -> None:
        os.utime(path, ns=(0, time.monotonic_ns()))

    monkeypatch.setattr(time, "sleep", somebody_touches)
    with pytest.raises(RunError, match=r"in use by process . on"), locked(tmp_path):
        pass
    assert path.read_text() == text


def test_the_same_numbers_of_an_earlier_container_are_no_obstacle(tmp_path: Path) -> None:
    """Process 1 of a container that was killed and started again, under the same name."""
    with locked(tmp_path):
        before = json.loads((tmp_path / ".lock").read_text())
    (tmp_path / ".lock").write_text(json.dumps(before))
    with locked(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["token"] != before["token"]


def test_it_is_touched_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    with locked(tmp_path):
        path = tmp_path / ".lock"
        os.utime(path, ns=(0, 0))
        end = time.monotonic() + 20
        while path.stat().st_mtime_ns == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime_ns > 0
