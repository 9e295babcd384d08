"""Folds and seeds: a folder each, nothing trained twice, a summary as by hand."""

import csv
import dataclasses
import io
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from covid_jax import training
from covid_jax.cli import study
from covid_jax.cli.study import run_study
from covid_jax.data import SliceDataset
from covid_jax.errors import ConfigError, RunError
from covid_jax.metrics.confusion import METRICS
from covid_jax.models import SCSEUNet
from covid_jax.reporting.evaluation_report import draw_evaluation
from covid_jax.runs.checkpoints import Checkpoints
from covid_jax.runs.config import TrainConfig
from covid_jax.terminal import Screen
from covid_jax.transforms.augmentation import AugmentConfig
from tests.support.synthetic import SIZE, blob_dataset, tiny_config
from tests.support.tiny_runs import begin, random_params

SEEDS = (0, 4)
NAMES = [f"fold-{fold}-seed-{seed}" for fold in (1, 2, 3) for seed in SEEDS]


def config(**changes: Any) -> TrainConfig:
    """Of one epoch, for each of three folds."""
    plain = tiny_config(epochs=1, augmentation=AugmentConfig())
    folds = dataclasses.replace(plain.data, folds=3, fold="all")
    return dataclasses.replace(plain, **{"data": folds} | changes)


def go(settings: TrainConfig, out: Path, seeds=SEEDS, dataset: SliceDataset | None = None) -> str:
    console = Screen(file=io.StringIO())
    run_study(settings, seeds, dataset or blob_dataset(), out, console, ["train.py"])
    return console.file.getvalue()


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def score_of(out: Path, name: str) -> dict[str, Any]:
    return read(out / name / "eval/test/metrics.json")


def snapshot(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def train_none(member: TrainConfig, dataset: SliceDataset, out: Path, **_: Any) -> None:
    """A run whose first weights are its last; gone on with, if it has been made."""
    if member.resume:
        assert (out / "checkpoints").exists()
        return
    begin(member, dataset, out)
    params = random_params(SCSEUNet(**member.model.arguments()), SIZE, member.seed)
    checkpoints = Checkpoints(out / "checkpoints")
    checkpoints.save(1, {"params": params}, {"epoch": 1}, 0.5)


@pytest.fixture(scope="module", autouse=True)
def _trained_in_no_time() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "train", train_none)
        patch.setattr(study, "draw_evaluation", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Interrupted in its fourth run, and once more between that run's training and its test."""
    out = tmp_path_factory.mktemp("study") / "out"
    with pytest.MonkeyPatch.context() as patch:

        def train(member: TrainConfig, *rest: Any, **options: Any) -> None:
            if member.out == out / NAMES[3]:
                raise KeyboardInterrupt
            train_none(member, *rest, **options)

        patch.setattr(study, "train", train)
        with pytest.raises(KeyboardInterrupt):
            go(config(), out)
    assert sorted(path.name for path in out.iterdir()) == NAMES[:3]
    before = snapshot(out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "evaluate", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            go(config(), out)
    assert not (out / "summary.json").exists()
    printed = go(config(), out)
    assert printed.count("done before") == 3
    assert "run 4 of 6" in printed
    assert {path: time for path, time in snapshot(out).items() if path in before} == before
    return out


def test_each_fold_and_seed_has_a_folder(done: Path) -> None:
    assert sorted(path.name for path in done.iterdir()) == [*NAMES, "runs.csv", "summary.json"]
    for name in NAMES:
        settings = read(done / name / "config.json")["config"]
        assert f"fold-{settings['data']['fold']}-seed-{settings['seed']}" == name


def test_every_slice_is_tested_once_a_seed(done: Path) -> None:
    for seed in SEEDS:
        parts = [read(done / f"fold-{fold}-seed-{seed}/split.json")["test"] for fold in (1, 2, 3)]
        slices = [row["slice"] for part in parts for row in part]
        assert sorted(slices) == sorted(item.id for item in blob_dataset().slices)


def spread(values: list[float]) -> dict[str, Any]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return {"mean": pytest.approx(mean), "sd": pytest.approx(math.sqrt(variance))}


def test_the_summary_is_that_of_the_runs(done: Path) -> None:
    summary = read(done / "summary.json")
    assert [row["run"] for row in summary["runs"]] == NAMES
    values = {
        name: {run: score_of(done, run)["own_grid"][name]["mean"] for run in NAMES}
        for name in METRICS
    }
    dice = values["dice"].values()
    assert len(set(dice)) == 6  # runs that differ
    for name, by_run in values.items():
        assert summary["metrics"][name] == spread(list(by_run.values()))
        for number, fold in enumerate(("1", "2", "3")):
            seeds = [by_run[run] for run in NAMES[2 * number : 2 * number + 2]]
            assert summary["folds"][fold][name] == spread(seeds)
    for row, run in zip(summary["runs"], NAMES, strict=True):
        assert (row["epoch"], row["slices"]) == (1, score_of(done, run)["slices"])
        assert row["dice"] == values["dice"][run]
    assert {"command", "date", "versions"} <= summary.keys()


def test_over_all_slices_each_counts_once_with_the_mean_of_its_seeds(done: Path) -> None:
    """Every slice is out of some fold; six patients are resampled. Rounded as slices.csv is."""
    values: dict[str, list[float]] = {}
    for name in NAMES:
        with (done / name / "eval/test/slices.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                values.setdefault(row["slice"], []).append(float(row["dice"]))
    assert {len(each) for each in values.values()} == {len(SEEDS)}
    whole = read(done / "summary.json")["slices"]
    assert whole["slices"] == len(values) == len(blob_dataset())
    means = [statistics.fmean(each) for each in values.values()]
    dice = whole["metrics"]["dice"]
    assert dice["mean"] == pytest.approx(statistics.fmean(means))
    low, high = dice["interval"]
    assert min(means) <= low < dice["mean"] < high <= max(means)
    assert "6 patients resampled" in whole["intervals"]


def test_the_table_holds_what_the_summary_does(done: Path) -> None:
    with (done / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [{k: str(v) for k, v in row.items()} for row in read(done / "summary.json")["runs"]]
    assert rows == expected


def test_a_study_done_before_trains_nothing(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "train", lambda *_: pytest.fail("trained again"))
    before, summary = snapshot(done), read(done / "summary.json")
    assert go(config(), done).count("done before") == 6
    after = snapshot(done)
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {"summary.json", "runs.csv"}
    assert read(done / "summary.json")["runs"] == summary["runs"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 2}, "epochs: 1 -> 2"),
        ({"batch_size": 2}, "batch_size: 3 -> 2"),
        ({"augmentation": AugmentConfig.named("standard")}, "flip: False -> True"),
    ],
)
def test_runs_of_another_config_are_not_taken_for_this_study(
    done: Path, change: dict[str, Any], said: str
) -> None:
    """Before anything is trained, even where a new seed would come first."""
    before = snapshot(done)
    with pytest.raises(RunError, match=f"different settings .*{said}"):
        go(config(**change), done, seeds=(9, *SEEDS))
    assert snapshot(done) == before


def test_runs_on_other_data_are_not_taken_for_this_study(done: Path) -> None:
    dataset, before = blob_dataset(), snapshot(done)
    dataset.slices[0].image[0, 0] += 1
    with pytest.raises(RunError, match="other data"):
        go(config(), done, dataset=dataset)
    assert snapshot(done) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"epoch": 1, "slices": 2, "own_grid": 3}'])
def test_a_damaged_report_is_said_to_be(done: Path, text: str) -> None:
    path = done / NAMES[5] / "eval/test/metrics.json"
    whole = path.read_bytes()
    path.write_text(text)
    try:
        with pytest.raises(RunError, match=f"{path}: damaged; remove it"):
            go(config(), done)
    finally:
        path.write_bytes(whole)


def test_the_same_seed_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--seeds 1 2 1: duplicate seed"):
        go(config(), tmp_path / "out", seeds=(1, 2, 1))
    assert not (tmp_path / "out").exists()


def test_several_processes_make_no_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "is_multiprocess", lambda: True)
    with pytest.raises(ConfigError, match="one process only"):
        go(config(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_folds_or_seeds_there_is_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained and drawn in earnest. One value has no deviation."""
    monkeypatch.setattr(study, "train", training.train)
    monkeypatch.setattr(study, "draw_evaluation", draw_evaluation)
    go(tiny_config(epochs=1, augmentation=AugmentConfig(), seed=3), tmp_path, seeds=())
    summary = read(tmp_path / "summary.json")
    assert [row["run"] for row in summary["runs"]] == ["seed-3"]
    assert (tmp_path / "seed-3/eval/test/examples.png").stat().st_size > 10_000
    dice = score_of(tmp_path, "seed-3")["own_grid"]["dice"]["mean"]
    assert summary["metrics"]["dice"] == {"mean": dice, "sd": None}
    assert summary["folds"] == {}
