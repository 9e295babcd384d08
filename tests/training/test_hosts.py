"""Two processes on this machine, by the real command line: one run, as one process makes it."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from covid_jax.cli import main as cli
from covid_jax.errors import ConfigError, RunError
from covid_jax.inference import load_run
from covid_jax.parallel import join_hosts, together
from covid_jax.training.loggers import read_metrics
from tests.support.tiny_datasets import write_dataset

ROOT = Path(__file__).parents[2]
FLAGS = "--image-size 16 --features 2 4 --batch-size 3 --learning-rate 3e-3"
GLOO = "[Gloo]"  # what the collectives' library itself prints


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start_two(data: Path, out: Path, *flags: str) -> list[subprocess.Popen[str]]:
    port = free_port()
    command = [sys.executable, "train.py", "--data", str(data), "--out", str(out)]
    command += [*shlex.split(FLAGS), *flags, "--coordinator", f"localhost:{port}"]
    return [
        subprocess.Popen(
            [*command, "--num-processes", "2", "--process-id", str(number)],
            cwd=ROOT,
            env=os.environ | {"XDG_CACHE_HOME": str(data.parent / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]


def ends(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Status, stdout and stderr of each; none outlives the test."""
    try:
        said = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def wait_for_an_epoch(log: Path, processes: Sequence[subprocess.Popen[str]]) -> None:
    """Or until one of them has ended too early."""
    while len(read_metrics(log)) < 2 and all(process.poll() is None for process in processes):
        time.sleep(0.1)


def own_lines(printed: str) -> list[str]:
    return [line for line in printed.splitlines() if GLOO not in line]


def train_here(data: Path, out: Path, *flags: str) -> None:
    cli.train(["--data", str(data), "--out", str(out), *shlex.split(FLAGS), *flags])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_dataset("MedSeg", tmp_path_factory.mktemp("hosts") / "ct")
    (folder / "patients.csv").unlink()  # of two patients, no three parts can be made
    return folder


@pytest.fixture(scope="module")
def joint(data: Path) -> tuple[Path, list[tuple[int, str, str]]]:
    """Two epochs in two processes."""
    out = data.parent / "joint"
    return out, ends(start_two(data, out, "--epochs", "2"))


@pytest.fixture(scope="module")
def alone(data: Path) -> Path:
    """Three epochs in one process."""
    out = data.parent / "alone"
    train_here(data, out, "--epochs", "3")
    return out


@pytest.mark.slow
def test_two_processes_train_what_one_does(joint, alone: Path) -> None:
    out, said = joint
    assert [status for status, _, _ in said] == [0, 0], said
    ours, single = (read_metrics(folder / "metrics.jsonl") for folder in (out, alone))
    assert [row["epoch"] for row in ours] == [1, 2]  # by one of them
    for name in ("train_loss", "val_loss", "val_dice"):
        np.testing.assert_allclose(
            [row[name] for row in ours], [row[name] for row in single[:2]], atol=1e-4, rtol=0
        )


@pytest.mark.slow
def test_only_the_first_process_tells(joint) -> None:
    out, ((_, first, _), (_, second, error)) = joint
    assert "epoch   2" in first
    assert own_lines(second) == []
    assert error == ""
    assert len(list((out / "tensorboard").iterdir())) == 1
    assert (out / "curves.png").exists()


@pytest.mark.slow
def test_what_two_began_one_ends(joint, alone: Path, data: Path) -> None:
    """Resumed in one process, and so read from checkpoints that both wrote."""
    out, _ = joint
    train_here(data, out, "--epochs", "3", "--resume")
    ours, single = (read_metrics(folder / "metrics.jsonl") for folder in (out, alone))
    assert [row["epoch"] for row in ours] == [1, 2, 3]
    assert ours[2]["train_loss"] == pytest.approx(single[2]["train_loss"], abs=1e-4)
    assert ours[2]["val_loss"] == pytest.approx(single[2]["val_loss"], abs=1e-4)
    one, other = (jax.tree.leaves(load_run(folder, "latest").params) for folder in (out, alone))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-3)  # Adam turns rounding into small steps


@pytest.mark.slow
def test_what_only_the_first_process_finds_ends_both(alone: Path, data: Path) -> None:
    before = sorted(path for path in alone.rglob("*"))
    (first, _, why), (second, _, other) = ends(start_two(data, alone, "--epochs", "3"))
    assert (first, second) == (2, 2), (why, other)
    assert "this very run already" in why
    assert "process 0 of this run failed" in other
    assert sorted(path for path in alone.rglob("*")) == before


@pytest.mark.slow
def test_sigterm_to_one_ends_both_between_the_same_two_steps(data: Path) -> None:
    out = data.parent / "stopped"
    processes = start_two(data, out, "--epochs", "100000", "--stop-patience", "100000")
    log = out / "metrics.jsonl"
    wait_for_an_epoch(log, processes)
    processes[1].send_signal(signal.SIGTERM)
    said = ends(processes)
    assert [status for status, _, _ in said] == [128 + signal.SIGTERM] * 2, said
    for _, _, error in said:
        assert "stopped by SIGTERM" in error
        assert "--resume" in error
    assert load_run(out, "latest").epoch in [row["epoch"] for row in read_metrics(log)]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_where_one_process_dies_the_other_ends(data: Path, victim: int) -> None:
    out = data.parent / f"died-{victim}"
    processes = start_two(data, out, "--epochs", "100000", "--stop-patience", "100000")
    wait_for_an_epoch(out / "metrics.jsonl", processes)
    processes[victim].kill()
    try:  # JAX misses a process after 100 s at most; half a minute more goes by in farewells
        assert processes[1 - victim].wait(500) != 0
    finally:
        ends(processes)


@pytest.fixture
def never_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("joined"))


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"},
        {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"},
        {"OMPI_COMM_WORLD_SIZE": "1"},
    ],
    ids=["by hand", "srun of one", "a batch script without srun", "mpirun of one"],
)
def test_a_process_alone_joins_nobody(
    never_joined, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    join_hosts()


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_a_launcher_of_several_is_joined(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **_: joined.append(given))
    monkeypatch.setenv(name, "2")
    join_hosts()
    assert joined == [(None, None, None)]


@pytest.mark.parametrize(
    "given",
    [("host:1", None, None), ("host:1", 2, None), (None, 2, 0), (None, None, 0)],
)
def test_half_the_flags_are_refused(never_joined, given) -> None:
    with pytest.raises(ConfigError, match="go together"):
        join_hosts(*given)


@pytest.mark.parametrize("coordinator", ["localhost", "localhost:", ":1", "host:x", "host:99999"])
@pytest.mark.parametrize("process", [0, 1])
def test_a_coordinator_that_is_no_address_is_refused(
    never_joined, coordinator: str, process: int
) -> None:
    with pytest.raises(ConfigError, match="expected host:port"):
        join_hosts(coordinator, 2, process)


@pytest.mark.parametrize("number", [-1, 2])
def test_a_process_that_is_not_among_them_is_refused(never_joined, number: int) -> None:
    with pytest.raises(ConfigError, match=rf"--process-id {number}: expected 0 to 1"):
        join_hosts("localhost:1", 2, number)


def test_a_coordinator_that_does_not_answer_is_given_up(never_joined) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"no process 0 answers there after 1 s .*refused"):
        join_hosts(f"localhost:{free_port()}", 2, 1, timeout=1)
    assert 1 <= time.monotonic() - started < 60  # JAX alone would wait for five minutes


def test_a_process_alone_keeps_its_own_errors() -> None:
    with pytest.raises(RunError, match="its own"), together("something"):
        raise RunError("its own")
    with together("something"):
        pass
