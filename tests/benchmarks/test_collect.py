"""What runs scored, gathered: against the runs' own files."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.experiments import collect
from covid_jax.evaluation import evaluate
from covid_jax.inference import load_run
from covid_jax.runs.config import EvalConfig
from covid_jax.training import train
from covid_jax.training.loggers import read_metrics
from tests.support.synthetic import blob_dataset, tiny_config


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run trained for two epochs and scored, found from the folder it lies in."""
    monkeypatch.chdir(tmp_path)
    train(
        tiny_config(epochs=2),
        blob_dataset(),
        Path("runs/a/seed-0"),
        console=Console(file=io.StringIO()),
    )
    evaluate(load_run(Path("runs/a/seed-0")), blob_dataset(), EvalConfig("test"))
    return tmp_path


def collected(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[dict]:
    monkeypatch.setattr(sys, "argv", ["collect.py", *arguments, "--out", "all.json"])
    collect.main()
    return json.loads(Path("all.json").read_text())["runs"]


def test_a_run_and_every_slice_it_scored(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = collected(monkeypatch, "runs/a")
    report = json.loads((kept / "runs/a/seed-0/eval/test/metrics.json").read_text())
    epochs = read_metrics(kept / "runs/a/seed-0/metrics.jsonl")
    assert run["run"] == "runs/a/seed-0"
    assert run["epochs"] == 2
    assert run["best"]["val_loss"] == min(row["val_loss"] for row in epochs)
    (scored,) = run["evaluations"]
    assert scored["own_grid"]["dice"] == report["own_grid"]["dice"]["mean"]
    assert len(scored["slices"]["dice"]) == report["slices"] == run["split"]["counts"]["test"]
    mean = sum(scored["slices"]["dice"]) / report["slices"]
    assert mean == pytest.approx(scored["own_grid"]["dice"], abs=1e-5)  # kept to five places


def test_runs_of_other_machines_stay(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run's folder is gone when the second, trained elsewhere, is gathered."""
    collected(monkeypatch, "runs/a")
    shutil.move(kept / "runs/a/seed-0", kept / "seed-1")
    (kept / "runs/b").mkdir()
    shutil.move(kept / "seed-1", kept / "runs/b/seed-1")
    names = [run["run"] for run in collected(monkeypatch, "runs/b")]
    assert names == ["runs/a/seed-0", "runs/b/seed-1"]
    again = [run["run"] for run in collected(monkeypatch, "runs/b")]
    assert again == names  # none twice


def test_a_folder_of_this_machine_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        collected(monkeypatch, "/runs/a")
