"""Eight simulated devices compute what one does: the same losses, whatever the batch size."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest
from rich.console import Console

from covid_jax.parallel import Devices
from covid_jax.runs.config import TrainConfig
from covid_jax.training import train, trainer
from covid_jax.training.loggers import read_metrics
from covid_jax.transforms.augmentation import AugmentConfig
from tests.support.synthetic import blob_dataset, tiny_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EPOCHS = {3: 3, 8: 7}  # by batch size: 21 steps either way
REAL = {3: [3, 3, 3, 3, 3, 3, 2], 8: [8, 8, 4]}  # slices in an epoch's batches: 20


class Seen:
    """What a run computed in each step, and where its arrays lay."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.copies: set[int] = set()  # of each of the state's arrays
        self.shares: set[int] = set()  # rows a device has of each batch
        self.real: list[int] = []  # slices that count, of each batch

    def train(self, config: TrainConfig, out: Path) -> "Seen":
        inner = trainer.run_steps

        def run_steps(step: Any, state: Any, source: Any, *rest: Any) -> Any:
            batches = list(source)
            for leaf in jax.tree.leaves(state):
                whole = [
                    shard for shard in leaf.addressable_shards if shard.data.shape == leaf.shape
                ]
                self.copies.add(len(whole))
            for batch in batches:
                codes = batch["image"].codes
                self.shares |= {len(shard.data) for shard in codes.addressable_shards}
                self.real.append(int(np.asarray(batch["where"]).sum()))
            state, losses, skipped = inner(step, state, batches, *rest)
            self.losses += map(float, losses)
            return state, losses, skipped

        with mock.patch.object(trainer, "run_steps", run_steps):
            train(config, blob_dataset(slices=5), out, console=Console(file=io.StringIO()))
        return self


def config(batch_size: int, **changes: Any) -> TrainConfig:
    mild = AugmentConfig(flip=True, brightness=0.2)  # compiles in a third of the time
    plain = {"epochs": EPOCHS[batch_size], "augmentation": mild}
    return tiny_config(batch_size=batch_size, **plain | changes)


def report_of_many(folder: Path) -> dict[str, Any]:
    """All that is to be seen with several devices, in one process."""
    seen = {size: vars(Seen().train(config(size), folder / f"many-{size}")) for size in EPOCHS}
    Seen().train(config(3, epochs=1), folder / "begun by many")
    Seen().train(config(3, epochs=2, resume=True), folder / "begun by one")
    return {"devices": jax.device_count(), "seen": seen}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def one(folder: Path) -> dict[int, Seen]:
    """On this process's single device."""
    assert jax.device_count() == 1
    Seen().train(config(3, epochs=1), folder / "begun by one")
    return {size: Seen().train(config(size), folder / f"one-{size}") for size in EPOCHS}


@pytest.fixture(scope="module")
def eight(folder: Path, one: dict[int, Seen]) -> dict[str, Any]:
    """In a process with eight devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.test_devices", str(folder)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["devices"] == 8
    return report["seen"]


@pytest.mark.parametrize("batch_size", EPOCHS)
def test_eight_devices_take_the_steps_of_one(one, eight, batch_size: int) -> None:
    """Twenty of them, augmented, within 1e-5 of the mean loss; three slices are no whole share."""
    ours, theirs = eight[str(batch_size)]["losses"], one[batch_size].losses
    assert len(theirs) == 21
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)
    assert np.ptp(theirs) > 0.05  # something was learned on the way


def test_eight_devices_validate_as_one(folder: Path, one, eight) -> None:
    for size in EPOCHS:
        ours, theirs = (read_metrics(folder / f"{n}-{size}/metrics.jsonl") for n in ("many", "one"))
        for name in ("train_loss", "val_loss", "val_dice"):
            values = [[row[name] for row in rows] for rows in (ours, theirs)]
            np.testing.assert_allclose(*values, atol=1e-4)


def test_a_batch_is_cut_and_the_state_copied(eight) -> None:
    """Three slices become eight rows, one a device, of which three count."""
    assert eight["3"]["shares"] == eight["8"]["shares"] == [1]
    for size, epochs in EPOCHS.items():
        assert eight[str(size)]["real"] == REAL[size] * epochs
    assert eight["3"]["copies"] == eight["8"]["copies"] == [8]


@pytest.mark.parametrize("began", ["many", "one"])
def test_the_other_number_of_devices_goes_on(folder: Path, one, eight, began: str) -> None:
    """The second epoch is that of a run on one device from its start."""
    out = folder / f"begun by {began}"
    if began == "many":
        Seen().train(config(3, epochs=2, resume=True), out)
    ours, theirs = (read_metrics(at / "metrics.jsonl") for at in (out, folder / "one-3"))
    assert [row["epoch"] for row in ours] == [1, 2]
    for name in ("train_loss", "val_loss"):
        assert ours[1][name] == pytest.approx(theirs[1][name], abs=1e-5)


@pytest.mark.parametrize(("rows", "up"), [(1, 1), (3, 3)])
def test_one_device_pads_nothing(rows: int, up: int) -> None:
    assert Devices().rows(rows) == (up, slice(0, up))


if __name__ == "__main__":
    print(json.dumps(report_of_many(Path(sys.argv[1])), default=sorted))
