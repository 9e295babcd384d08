"""Bundles of the Hugging Face hub, from a prepared cache: no test asks the network."""

import shutil
import sys
from pathlib import Path

import pytest

from covid_jax.cli.main import main
from covid_jax.ensemble import load_runs
from covid_jax.errors import ConfigError, RunError
from covid_jax.inference import load_run

constants = pytest.importorskip("huggingface_hub.constants")
BUNDLE = Path(__file__).parents[1] / "fixtures/bundle_0_1"
COMMITS = {"main": "0" * 40, "v1": "1" * 40}


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a download leaves: the snapshot of each commit, and the branches that name them."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub/models--lab--lungs"
    for name, commit in COMMITS.items():
        shutil.copytree(BUNDLE, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / name).write_text(commit)
    return place


@pytest.mark.parametrize(
    ("name", "commit"),
    [("hf:lab/lungs", "0"), ("hf:lab/lungs@v1", "1"), (f"hf:lab/lungs@{'1' * 40}", "1")],
)
def test_a_bundle_is_loaded_by_its_name(repository: Path, name: str, commit: str) -> None:
    run = load_run(name)
    assert run.folder == repository / "snapshots" / (40 * commit)
    assert run.epoch == load_run(BUNDLE).epoch
    assert load_runs([Path(name)]).folder == run.folder  # as the command line gives it


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:lab/other", r"hf:lab/other: cannot be had from the Hugging Face hub \(.+\)$"),
        ("hf:lab/lungs@v2", r"hf:lab/lungs@v2: cannot be had from the Hugging Face hub"),
        ("hf:no name", r"hf:no name: cannot be had from the Hugging Face hub \(Repo id must"),
    ],
)
def test_what_the_hub_has_not_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        load_run(name)


def test_another_repository_is_no_bundle(repository: Path) -> None:
    (repository / "snapshots" / COMMITS["v1"] / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"no bundle of covid_jax, as it has no model\.safetensors"):
        load_run("hf:lab/lungs@v1")


def test_without_the_library_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r'pip install "covid_jax\[hub\]"'):
        load_run("hf:lab/lungs")
    (tmp_path / "a.png").touch()
    with pytest.raises(SystemExit) as end:
        main(["predict", str(tmp_path), "--run", "hf:lab/lungs", "-o", str(tmp_path / "out")])
    assert end.value.code == 2
    assert "hf:lab/lungs: needs huggingface_hub" in capsys.readouterr().err
