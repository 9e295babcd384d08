"""A run on arrays in memory: trained, loaded, evaluated, and never scored on something else."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from covid_jax.cli import main as cli
from covid_jax.data import SliceDataset
from covid_jax.evaluation import evaluate
from covid_jax.inference import load_run
from covid_jax.runs.config import DataConfig, ModelConfig, TrainConfig
from covid_jax.training import train


@pytest.fixture(scope="module")
def dataset() -> SliceDataset:
    """Bright squares on noise, six patients of two slices."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (12, 32, 32)).astype(np.float32)
    masks = np.zeros(images.shape, bool)
    masks[:, 8:20, 10:24] = True
    return SliceDataset.from_arrays(
        images + 4 * masks, masks, image_size=32, patients=[f"p{i // 2}" for i in range(12)]
    )


@pytest.fixture(scope="module")
def run_folder(dataset: SliceDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arrays") / "run"
    config = TrainConfig(
        data=DataConfig(image_size=32), model=ModelConfig(features=(4, 8)), epochs=1, batch_size=4
    )
    train(config, dataset, folder, console=Console(quiet=True))
    return folder


def test_it_is_loaded_and_evaluated(dataset: SliceDataset, run_folder: Path) -> None:
    run = load_run(run_folder)
    assert any("arrays in memory" in note for note in run.record.data.notes)
    report = evaluate(run, dataset).report
    assert report.slices == len(run.split.indices(dataset, "test"))
    assert report.data_fingerprint == dataset.fingerprint()


def test_the_phantom_does_not_take_its_place(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["eval", str(run_folder)])
    assert ended.value.code == 2
    assert "trained on arrays in memory; name the data with --data" in capsys.readouterr().err
