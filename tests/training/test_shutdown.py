"""SIGTERM and SIGINT: the run ends at its step, keeps its epochs and says how to go on."""

import contextlib
import functools
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from covid_jax.cli import main as cli
from covid_jax.errors import StoppedError
from covid_jax.phantom.dataset import write_phantom
from covid_jax.training.shutdown import stop_on_signals
from tests.support.resumed import assert_same_end, at_call, kept, rows

ROOT = Path(__file__).parents[2]
FLAGS = "--image-size 32 --features 4 8 --batch-size 2 --learning-rate 0.01"
STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}  # as shells have it: 128 + the signal
SENT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) * 5 + (signal.SIGINT,)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(folder, size=48, num_patients=4, slices_per_patient=2, num_volumes=3)
    return folder


def command(data: Path, out: Path, epochs: int, more: str = "") -> list[str]:
    return shlex.split(f"--data {data} --out {out} --epochs {epochs} {FLAGS} {more}")


def stopped(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status and what stderr says of a training in this process that ends before its end."""
    with pytest.raises(SystemExit) as end:
        cli.train(arguments)
    return int(end.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize("number", STATUS)
def test_the_first_signal_is_heard_at_the_next_check(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in STATUS]
    with contextlib.suppress(StoppedError), stop_on_signals() as check:
        check()
        signal.raise_signal(number)
        assert [signal.getsignal(each) for each in STATUS] == [signal.SIG_DFL] * 2
        with pytest.raises(StoppedError, match=f"{number.name}.*--resume") as error:
            check()
        assert error.value.status == STATUS[number]
    assert [signal.getsignal(each) for each in STATUS] == before


def test_a_signal_after_the_last_check_is_heard_at_the_end() -> None:
    with pytest.raises(StoppedError), stop_on_signals():
        signal.raise_signal(signal.SIGTERM)


def test_another_error_is_not_hidden_by_a_signal() -> None:
    def fail() -> None:
        with stop_on_signals():
            signal.raise_signal(signal.SIGTERM)
            raise KeyError

    with pytest.raises(KeyError):
        fail()


def test_outside_the_main_thread_signals_stay_with_their_owner() -> None:
    found = []

    def look() -> None:
        with stop_on_signals() as check:
            check()
            found.append([signal.getsignal(each) for each in STATUS])

    before = [signal.getsignal(each) for each in STATUS]
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


@pytest.mark.slow
def test_wherever_the_signal_comes_the_finished_epochs_are_kept(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three times in one run: before its first step, while it validates, and after its last."""
    out, validate = tmp_path / "run", "covid_jax.training.trainer._Training._validate"
    for number, place, call, latest in (
        (signal.SIGTERM, "covid_jax.training.trainer._Training.run_epochs", 1, None),
        (signal.SIGINT, validate, 1, 1),
        (signal.SIGTERM, validate, 2, 3),
    ):
        more = "--resume" if out.exists() else ""
        with at_call(place, call, functools.partial(signal.raise_signal, number)):
            status, error = stopped(command(data, out, 3, more), capsys)
        assert status == STATUS[number]
        assert f"stopped by {number.name}" in error
        assert "--resume" in error
        assert kept(out)["latest"] == latest
    for folder, more in ((out, "--resume"), (tmp_path / "straight", "")):
        cli.train(command(data, folder, 3, more))
    assert_same_end(out, tmp_path / "straight")


@pytest.mark.slow
def test_interrupted_before_training_it_says_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the dataset is decoded nothing is there yet to be resumed.

    Python's own handler is called, not the signal raised: what it throws would now and then come
    out in a garbage collection, where nothing can be thrown.
    """
    interrupt = functools.partial(signal.default_int_handler, signal.SIGINT, None)
    with at_call("covid_jax.cli.commands.open_listing", 1, interrupt):
        status, error = stopped(command(data, tmp_path / "run", 3), capsys)
    assert status == 130
    assert "interrupted" in error
    assert not (tmp_path / "run").exists()


def signalled(arguments: list[str], number: signal.Signals) -> tuple[int, str]:
    """``python train.py``, sent a signal at the end of an epoch: its status, and its stderr."""
    with subprocess.Popen(
        [sys.executable, ROOT / "train.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    ) as process:
        next(line for line in process.stdout if line.startswith("epoch "))
        process.send_signal(number)
        _, error = process.communicate(timeout=900)
    return process.returncode, error


@pytest.mark.slow
def test_the_command_stops_and_goes_on(data: Path, tmp_path: Path) -> None:
    """With signals from another process, and then to the end of an epoch more.

    SIGHUP, of a terminal that was closed, is not caught: it ends the process as SIGKILL does.
    """
    out, lasting = tmp_path / "run", "--stop-patience 9999"
    done = 0
    for number in SENT:
        more = "--resume" if out.exists() else ""
        status, error = signalled(command(data, out, 5000, f"{lasting} {more}"), number)
        assert status == STATUS.get(number, -number)
        assert error.strip() == (
            f"stopped by {number.name}: ended epochs are kept; the same command with --resume "
            "goes on after the last of them"
        ) * (number in STATUS)
        # SIGHUP may fall between an epoch's line, which is printed first, and its checkpoint.
        assert done + (number in STATUS) <= (kept(out)["latest"] or 0) < 5000
        done = kept(out)["latest"] or 0
        assert len(rows(out)) in (done, done + 1)
    for folder, more in ((out, "--resume"), (tmp_path / "straight", "")):
        cli.train(command(data, folder, done + 1, f"{lasting} {more}"))
    assert_same_end(out, tmp_path / "straight")


def wait_for_ever(tell: Connection) -> None:
    with stop_on_signals():
        tell.send("ready")
        while True:
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                tell.send("heard")
                time.sleep(600)
            time.sleep(0.01)


@pytest.mark.parametrize("second", STATUS)
def test_the_second_signal_acts_at_once(second: signal.Signals) -> None:
    """A step that never ends: the first signal waits for it, the second of either kind does not."""
    context = multiprocessing.get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=wait_for_ever, args=(tell,))
    process.start()
    assert told.recv() == "ready"
    os.kill(process.pid, signal.SIGTERM)
    assert told.recv() == "heard"
    os.kill(process.pid, second)
    process.join(300)
    assert process.exitcode == -second
