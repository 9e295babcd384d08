"""A run from its first epoch to its last: what it writes, how it goes on, what it refuses."""

import dataclasses
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from covid_jax.checkpoint import Checkpoints
from covid_jax.config import DataConfig, LossConfig, TrainConfig, train_config_from_dict
from covid_jax.data import SliceDataset
from covid_jax.errors import RunError
from covid_jax.inference import load_run
from covid_jax.training import train
from covid_jax.training.logs import read_metrics
from tests.synthetic import SIZE, blob_dataset, tiny_config


def go(config: TrainConfig, out: Path, dataset: SliceDataset | None = None) -> str:
    console = Console(file=io.StringIO(), width=200)
    train(config, dataset or blob_dataset(), out, console)
    return console.file.getvalue()


def without_timings(folder: Path) -> list[dict]:
    rows = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in r.items() if "second" not in k} for r in rows]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs without a break."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    go(tiny_config(epochs=4), out)
    return out


def test_a_run_folder_holds_what_it_should(straight: Path) -> None:
    record = json.loads((straight / "config.json").read_text())
    assert train_config_from_dict(record["config"]) == tiny_config(epochs=4)
    assert record["data"]["slices"] == 12
    assert set(record["versions"]) >= {"jax", "flax", "optax", "python", "covid_jax"}
    split = json.loads((straight / "split.json").read_text())
    named = [row["slice"] for part in ("train", "val", "test") for row in split[part]]
    assert sorted(named) == sorted(item.id for item in blob_dataset().slices)
    assert [row["epoch"] for row in read_metrics(straight / "metrics.jsonl")] == [1, 2, 3, 4]
    assert list((straight / "tensorboard").glob("events*"))


def test_the_loss_falls(straight: Path) -> None:
    rows = read_metrics(straight / "metrics.jsonl")
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.02


def test_the_best_checkpoint_is_the_lowest_validation_loss_recorded(straight: Path) -> None:
    losses = [row["val_loss"] for row in read_metrics(straight / "metrics.jsonl")]
    with Checkpoints(straight / "checkpoints", create=False) as checkpoints:
        assert checkpoints.epoch("best") == 1 + int(np.argmin(losses))
        assert checkpoints.epoch("latest") == 4


def test_stopped_and_resumed_is_the_same_run_bit_by_bit(straight: Path, tmp_path: Path) -> None:
    """Two epochs, a line and a half of a killed third, then --resume: weights and logs agree."""
    out = tmp_path / "broken"
    go(tiny_config(epochs=2), out)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "train_loss": 9}\n{"epoch": 4, "tr')
    go(tiny_config(epochs=4, resume=True), out)
    assert without_timings(out) == without_timings(straight)
    for which in ("latest", "best"):
        theirs, ours = (load_run(f, which).params for f in (straight, out))
        assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), theirs, ours))


def test_the_same_seed_is_the_same_run_and_another_is_not(straight: Path, tmp_path: Path) -> None:
    first = without_timings(straight)[0]
    go(tiny_config(epochs=1), tmp_path / "again")
    assert without_timings(tmp_path / "again")[0] == first
    go(tiny_config(epochs=1, seed=1), tmp_path / "other")
    assert without_timings(tmp_path / "other")[0]["train_loss"] != first["train_loss"]


def test_resume_before_the_first_epoch_ended_starts_over(straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "early"
    go(tiny_config(epochs=1), out)
    for checkpoint in (out / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / checkpoint.name)
    go(tiny_config(epochs=1, resume=True), out)
    assert without_timings(out) == without_timings(straight)[:1]


def test_early_stop_ends_the_run(tmp_path: Path) -> None:
    """A learning rate of next to nothing: after the first epoch nothing improves by much."""
    config = tiny_config(epochs=30)
    still = dataclasses.replace(config.optimizer, learning_rate=1e-30, stop_patience=2)
    printed = go(dataclasses.replace(config, optimizer=still), tmp_path / "run")
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 3
    assert "stopped early" in printed


def test_the_paper_split_is_labelled_where_it_is_used(tmp_path: Path) -> None:
    config = tiny_config(epochs=1, data=DataConfig(image_size=SIZE, split="paper"))
    printed = go(config, tmp_path / "run")
    assert "it flatters" in printed
    assert "stand on both sides" in printed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "this very run"),
        ({"seed": 5}, "seed: 0 -> 5"),
        ({"loss": LossConfig(gamma=2.0), "resume": True}, "gamma: 1.33"),
    ],
    ids=["same", "other seed", "resumed with another loss"],
)
def test_a_folder_with_a_run_is_never_overwritten(straight: Path, change: dict, said: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in straight.rglob("*")}
    with pytest.raises(RunError, match=said):
        go(tiny_config(**({"epochs": 4} | change)), straight)
    assert {path: path.stat().st_mtime_ns for path in straight.rglob("*")} == before


def test_changed_data_is_not_resumed(straight: Path) -> None:
    dataset = blob_dataset()
    dataset.slices[0].image[0, 0] += 1
    with pytest.raises(RunError, match="data has changed"):
        go(tiny_config(epochs=4, resume=True), straight, dataset)


def test_a_checkpoint_of_another_network_is_refused(straight: Path, tmp_path: Path) -> None:
    config = tiny_config(epochs=1, model=dataclasses.replace(tiny_config().model, attention="none"))
    out = tmp_path / "baseline"
    go(config, out)
    record = json.loads((out / "config.json").read_text())
    record["config"]["model"]["attention"] = "encoder_decoder"
    (out / "config.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="scse/excite: stored nothing"):
        load_run(out)


@pytest.mark.parametrize("kind", ["resume without run", "other files", "a file", "under a file"])
def test_other_folders_are_left_alone(tmp_path: Path, kind: str) -> None:
    out, config = tmp_path / "out", tiny_config(resume=kind == "resume without run")
    if kind == "other files":
        out.mkdir()
        (out / "thesis.tex").touch()
    elif kind == "a file":
        out.touch()
    elif kind == "under a file":
        out.touch()
        out = out / "run"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=str(out)):
        go(config, out)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    config = tiny_config()
    wild = dataclasses.replace(config.optimizer, learning_rate=1e38)
    with pytest.raises(RunError, match="no number in epoch 1"):
        go(dataclasses.replace(config, optimizer=wild), tmp_path / "run")
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == []


def test_resume_keeps_the_split_it_was_started_with(
    straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a later version would draw."""
    before = (straight / "split.json").read_bytes()
    monkeypatch.setattr("covid_jax.training.loop.draw_split", lambda *_: pytest.fail("drawn anew"))
    go(tiny_config(epochs=4, resume=True), straight)
    assert (straight / "split.json").read_bytes() == before
