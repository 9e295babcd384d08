"""Killed at any moment, on a damaged or full disk: resumed, a run ends in the very same bits."""

import contextlib
import dataclasses
import io
import itertools
import multiprocessing
import os
import pkgutil
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import pytest

from covid_jax.errors import RunError
from covid_jax.inference import load_run
from covid_jax.models import SCSEUNet
from covid_jax.runs.checkpoints import Checkpoints
from covid_jax.runs.config import OptimizerConfig, TrainConfig
from covid_jax.terminal import Screen
from covid_jax.training import train
from covid_jax.transforms.augmentation import AugmentConfig
from tests.support.limits import no_file_grows_beyond
from tests.support.resumed import assert_same_end, at_call, kept, rows, stored
from tests.support.synthetic import SIZE, TINY, blob_dataset, tiny_config

MILD = AugmentConfig(flip=True, brightness=0.2)  # compiles in a third of the time
PLAIN = tiny_config(
    epochs=5,
    augmentation=MILD,
    optimizer=OptimizerConfig(learning_rate=1.0, plateau_patience=1, stop_patience=1000),
)
AVERAGED = tiny_config(
    epochs=5,
    accumulate=2,
    augmentation=MILD,
    optimizer=OptimizerConfig(
        learning_rate=0.03, schedule="cosine", warmup_epochs=1, clip_norm=1.0, ema=0.9
    ),
)
CONFIGS = {"plain": PLAIN, "averaged": AVERAGED}


def go(config: TrainConfig, out: Path) -> str:
    console = Screen(file=io.StringIO())
    train(config, blob_dataset(), out, console=console)
    return console.file.getvalue()


def resume(config: TrainConfig, out: Path) -> str:
    return go(dataclasses.replace(config, resume=True), out)


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default optimiser, without a break."""
    out = tmp_path_factory.mktemp("plain") / "straight"
    go(PLAIN, out)
    return out


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Warm-up, cosine, clipping, moving average, accumulated gradients, without a break."""
    out = tmp_path_factory.mktemp("averaged") / "straight"
    go(AVERAGED, out)
    assert "average" in stored(out, 5, "weights")
    return out


@pytest.fixture
def copy(plain: Path, tmp_path: Path) -> Path:
    """The plain run, to be spoilt."""
    return shutil.copytree(plain, tmp_path / "copy")


STEP = "covid_jax.training.loggers.Logs.step"
SAVE = "covid_jax.runs.checkpoints.Checkpoints.save"
FINALIZE = "orbax.checkpoint.StandardCheckpointHandler.finalize"  # of weights, then of trainer
PLACES = {  # function and call at which it happens; lines in the log and latest epoch by then
    "between two steps": (STEP, 5, 1, 1),
    "in the middle of a save": (FINALIZE, 6, 3, 2),
    "between log line and checkpoint": (SAVE, 3, 3, 2),
}


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until_killed(config: TrainConfig, out: Path, name: str, number: int) -> None:
    with at_call(name, number, kill_oneself):
        go(config, out)


def train_and_tell(config: TrainConfig, out: Path, tell: Connection) -> None:
    """Tells when training starts, and when its first step is done."""
    tell.send("started")
    with at_call(STEP, 1, lambda: tell.send("first step")):
        go(config, out)


def process(function: Callable[..., None], *args: Any) -> multiprocessing.Process:
    """Runs a function in a process of its own."""
    started = multiprocessing.get_context("spawn").Process(target=function, args=args)
    started.start()
    return started


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("plain", "between two steps"),
        ("plain", "in the middle of a save"),
        ("averaged", "between log line and checkpoint"),
    ],
)
def test_killed_and_resumed_is_the_run_without_a_break(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    name: str,
    place: str,
) -> None:
    straight, config = request.getfixturevalue(name), CONFIGS[name]
    function, number, lines, latest = PLACES[place]
    out = tmp_path / "killed"
    child = process(train_until_killed, config, out, function, number)
    child.join(900)
    assert child.exitcode == -signal.SIGKILL
    assert len(rows(out)) == lines
    assert kept(out)["latest"] == latest
    resume(config, out)
    assert_same_end(out, straight)
    assert {path.name for path in (out / "checkpoints").iterdir()} == {
        path.name for path in (straight / "checkpoints").iterdir()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "averaged"])
def test_killed_at_random_eight_times(tmp_path: Path, name: str) -> None:
    """While it starts, or within two seconds of its first step."""
    config = dataclasses.replace(CONFIGS[name], epochs=150)
    straight, runs, draw = tmp_path / "straight", 0, random.Random(name)
    go(config, straight)
    kills = 0
    while kills < 8:
        out = tmp_path / f"run {runs}"
        begun = (out / "config.json").exists()
        told, tell = multiprocessing.Pipe(duplex=False)
        child = process(train_and_tell, dataclasses.replace(config, resume=begun), out, tell)
        for _ in range(draw.choice([1, 2, 2, 2])):
            if child.is_alive():
                told.recv()
        child.join(draw.uniform(0, 2))
        child.kill()
        child.join()
        if child.exitcode == 0:
            assert_same_end(out, straight)
            runs += 1
            continue
        kills += 1
        print(f"kill {kills}: run {runs} at epoch {len(rows(out))}")
    config = dataclasses.replace(config, resume=(out / "config.json").exists())
    go(config, out)
    assert_same_end(out, straight)


def test_an_old_checkpoint_deleted_by_half_changes_nothing(copy: Path, plain: Path) -> None:
    """As a kill leaves it while the epoch that is no longer wanted is being deleted."""
    checkpoints = copy / "checkpoints"
    shutil.rmtree(checkpoints / "5")
    shutil.copytree(checkpoints / "4", checkpoints / "2")
    shutil.rmtree(checkpoints / "2/summary")
    shutil.rmtree(checkpoints / "2/weights/d")
    resume(PLAIN, copy)
    assert_same_end(copy, plain)
    assert not (checkpoints / "2").exists()


def damage(checkpoint: Path, kind: str) -> None:
    if kind.startswith("no "):
        shutil.rmtree(checkpoint / kind.removeprefix("no "))
        return
    pattern = {"arrays": "weights/**/d/*", "manifest": "trainer/manifest.ocdbt"}
    for path in checkpoint.glob(pattern[kind.removesuffix(" cut short")]):
        # Far below the half: what a file ends with may be an older state that nothing reads.
        path.write_bytes(path.read_bytes()[:16])


@pytest.mark.parametrize("kind", ["arrays cut short", "no summary"])
def test_a_damaged_latest_checkpoint_costs_its_epoch_alone(
    copy: Path, plain: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage(copy / "checkpoints/5", kind)
    printed = resume(PLAIN, copy)
    assert f"note: {copy / 'checkpoints/5'}: this checkpoint" in printed
    assert "epoch 4 is taken" in printed
    assert "epoch   5" in printed
    assert caplog.messages == []
    assert_same_end(copy, plain)


def test_if_all_checkpoints_are_damaged_each_is_named(copy: Path) -> None:
    epochs = sorted(path.name for path in (copy / "checkpoints").iterdir())
    for epoch in epochs:
        damage(copy / "checkpoints" / epoch, "arrays cut short")
    before = snapshot(copy / "checkpoints")
    with pytest.raises(RunError) as error:
        resume(PLAIN, copy)
    for epoch in epochs:
        assert f"{copy / 'checkpoints' / epoch}: this checkpoint is damaged" in str(error.value)
    assert snapshot(copy / "checkpoints") == before
    assert len(rows(copy)) == 5


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("baseline", r"its weights are .*scse\.excite: stored nothing, expected"),
        ("missing leaf", r"its weights are .*params\.head1\.bias: stored nothing, expected \(1,\)"),
        ("extra leaf", r"its weights are .*params\.gate: stored \(2,\), expected nothing"),
        ("missing moment", r"its trainer are .*best_loss: stored nothing, expected \(\)"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_and_left_as_it_is(
    copy: Path, kind: str, named: str
) -> None:
    """Even if one of the right network lies before it: it is not damaged, somebody put it there."""
    weights, trainer = stored(copy, 5, "weights"), stored(copy, 5, "trainer")
    if kind == "baseline":
        image = jnp.zeros((1, SIZE, SIZE, 1))
        weights = jax.jit(SCSEUNet(features=TINY, attention="none").init)(jax.random.key(0), image)
        weights = {"params": weights["params"]}
    elif kind == "missing leaf":
        del weights["params"]["head1"]["bias"]
    elif kind == "extra leaf":
        weights["params"]["gate"] = jnp.zeros(2)
    else:
        del trainer["best_loss"]
    shutil.rmtree(copy / "checkpoints/5")
    checkpoints = Checkpoints(copy / "checkpoints")
    checkpoints.save(5, weights, trainer, 0.001)
    before = snapshot(copy / "checkpoints")
    with pytest.raises(RunError, match=re.escape(f"{copy / 'checkpoints/5'}: ") + named):
        resume(PLAIN, copy)
    if kind != "missing moment":
        with pytest.raises(RunError, match=named):
            load_run(copy)
    assert snapshot(copy / "checkpoints") == before


@contextlib.contextmanager
def full_disk(name: str, number: int, size: Callable[[], int]) -> Iterator[None]:
    """No room is left during the n-th call of a function."""
    original, calls = pkgutil.resolve_name(name), itertools.count(1)

    def cramped(*args, **kwargs):
        if next(calls) != number:
            return original(*args, **kwargs)
        with no_file_grows_beyond(size()):
            return original(*args, **kwargs)

    with mock.patch(name, cramped):
        yield


def size_of(pattern: str, out: Path) -> int:
    return sum(path.stat().st_size for path in out.glob(pattern))


def test_a_full_disk_is_said_and_costs_no_finished_epoch(
    plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of an event, of a line and of a checkpoint; each time there is room again.

    The message alone is shown, not the storage's hundred others.
    """
    out = tmp_path / "run"
    end_epoch = "covid_jax.training.loggers.Logs.end_epoch"
    for file, name, number, latest in (
        ("tensorboard/*", end_epoch, 1, None),
        ("metrics.jsonl", end_epoch, 2, 1),
        ("checkpoints", SAVE, 2, 2),
    ):
        config = dataclasses.replace(PLAIN, resume=out.exists())
        with (
            full_disk(name, number, lambda file=file: 50 + size_of(file, out)),
            pytest.raises(RunError, match=rf"^{out}.*cannot be .*File too large\b.*--resume"),
        ):
            go(config, out)
        assert kept(out)["latest"] == latest
    assert caplog.messages == []
    resume(PLAIN, out)
    assert_same_end(out, plain)


@pytest.mark.parametrize("name", ["tensorboard", "metrics.jsonl"])
def test_a_folder_that_cannot_be_written_is_named(copy: Path, name: str) -> None:
    """A file or a folder is in the way."""
    if name == "metrics.jsonl":
        (copy / name).unlink()
        (copy / name).mkdir()
    else:
        shutil.rmtree(copy / name)
        (copy / name).touch()
    with pytest.raises(RunError, match=f"^{copy}: cannot be written"):
        resume(PLAIN, copy)
