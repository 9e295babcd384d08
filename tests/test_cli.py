"""What a user types and sees: the way from end to end, and every mistake in a line, exit 2."""

import gzip
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from covid_jax import cli

ROOT = Path(__file__).parents[1]
TINY = "--image-size 32 --features 4 8 --epochs 1 --batch-size 4"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and an empty cache of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def run(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Runs train, eval or covid-jax in this process: exit status, stdout, stderr."""
    program, *arguments = shlex.split(command)
    entry = {"train": cli.train, "eval": cli.evaluate, "covid-jax": cli.main}[program]
    status = 0
    try:
        entry(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def write_dataset(folder: Path, slices: int = 8) -> None:
    """A tiny Dataset-1: bright discs in noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    x, y, _ = np.mgrid[:40, :36, :slices]
    mask = (x - 20) ** 2 + (y - rng.integers(8, 28, slices)) ** 2 < 30
    image = rng.normal(-800, 50, mask.shape) + 600 * mask
    for name, array in (("tr_im", image.astype(np.int16)), ("tr_mask", mask.astype(np.uint8))):
        nib.save(nib.Nifti1Image(array, None), folder / f"{name}.nii.gz")


def test_from_files_to_metrics(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(place / "ct")
    status, printed, _ = run(f"train --data ct --loss ftl --gamma 1.333 {TINY}", capsys)
    assert status == 0
    assert "gamma 1.333" in printed
    assert "patients of 8 slices are unknown" in printed
    assert "python eval.py runs/ct" in printed
    config = json.loads((place / "runs/ct/config.json").read_text())["config"]
    assert config["preset"] == "paper"
    assert config["optimizer"]["learning_rate"] == 5e-5
    assert config["model"]["features"] == [4, 8]

    status, printed, _ = run("eval runs/ct", capsys)
    assert status == 0
    report = json.loads((place / "runs/ct/eval/test/metrics.json").read_text())
    assert f"{report['own_grid']['dice']['mean']:.4f}" in printed
    assert (place / "runs/ct/eval/test/examples.png").stat().st_size > 10_000

    status, _, error = run(f"train --data ct --loss dice {TINY}", capsys)
    assert status == 2
    assert "loss: ftl -> dice" in error
    status, _, _ = run(
        f"train --data ct --gamma 1.333 {TINY} --epochs 2 --resume".replace("--epochs 1 ", ""),
        capsys,
    )
    assert status == 0
    assert len((place / "runs/ct/metrics.jsonl").read_text().splitlines()) == 2


def test_without_data_it_is_the_quick_preset_on_the_phantom_and_says_so(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cli.write_phantom
    small = {"size": 48, "num_patients": 4, "slices_per_patient": 1, "num_volumes": 3}
    monkeypatch.setattr(cli, "write_phantom", lambda folder: real(folder, **small))
    status, printed, _ = run(f"train {TINY}", capsys)
    assert status == 0
    assert "synthetic phantom" in printed.splitlines()[0]
    assert "quick" in printed.splitlines()[0]
    config = json.loads((place / "runs/phantom/config.json").read_text())
    assert config["config"]["preset"] == "quick"
    assert config["config"]["augment"] == "standard"
    assert "synthetic phantom" in " ".join(config["data"]["notes"])
    status, printed, _ = run("eval runs/phantom", capsys)
    assert status == 0
    assert "synthetic phantom" in printed


def test_phantom_command_writes_a_dataset(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = run("covid-jax phantom made --size 48 --seed 3", capsys)
    assert status == 0
    assert "made" in printed
    assert nib.load(place / "made/tr_im.nii.gz").shape[:2] == (48, 48)
    assert run("covid-jax phantom made --size 48", capsys)[0] == 2


def damage(folder: Path, kind: str) -> str:
    """Spoils the dataset in one way; returns what the message must name."""
    image, mask = folder / "tr_im.nii.gz", folder / "tr_mask.nii.gz"
    array = np.asarray(nib.load(mask).dataobj).copy()
    if kind == "no mask":
        mask.unlink()
        return "has no mask"
    if kind == "other shape":
        nib.save(nib.Nifti1Image(array[:-1], None), mask)
        return "shape"
    if kind == "truncated":
        image.write_bytes(image.read_bytes()[:-500])
        return "tr_im.nii.gz: not a readable NIfTI file"
    if kind == "not gzip":
        image.write_bytes(gzip.decompress(image.read_bytes()))
        return "tr_im.nii.gz: not a readable NIfTI file"
    if kind == "unknown labels":
        array[0, 0, 0] = 9
        nib.save(nib.Nifti1Image(array, None), mask)
        return "unknown labels 9"
    assert kind == "NaN"
    values = np.asarray(nib.load(image).dataobj).astype(np.float32)
    values[3, 4, 5] = np.nan
    nib.save(nib.Nifti1Image(values, None), image)
    return "tr_im.nii.gz: 1 pixels are NaN"


@pytest.mark.parametrize(
    "kind", ["no mask", "other shape", "truncated", "not gzip", "unknown labels", "NaN"]
)
def test_bad_data_ends_in_a_line(
    place: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    write_dataset(place / "ct")
    said = damage(place / "ct", kind)
    status, _, error = run(f"train --data ct {TINY}", capsys)
    assert status == 2
    assert said in error
    assert "Traceback" not in error
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train --data nowhere", "nowhere: no such folder"),
        ("train --data .", "Looked for"),
        ("train --image-size 250", "try 240 or 256"),
        ("train --gamma 4", "gamma 4.0: expected a value in [1, 3]"),
        ("train --alpha -1", "--alpha -1.0: must be finite and not negative"),
        ("train --learning-rate 0", "--learning-rate 0.0: must be finite and positive"),
        ("train --loss focal", "focal"),
        ("train --epochs many", "many"),
        ("eval nowhere", "nowhere: no run here"),
        ("covid-jax", ""),
        ("covid-jax tarin", ""),
    ],
)
def test_bad_flags_end_in_a_line(
    place: Path, capsys: pytest.CaptureFixture[str], command: str, said: str
) -> None:
    status, printed, error = run(command, capsys)
    assert status == 2
    assert said in error + printed
    assert "Traceback" not in error
    assert list(place.iterdir()) == []


def test_resume_without_a_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(place / "ct")
    status, _, error = run(f"train --data ct --resume {TINY}", capsys)
    assert status == 2
    assert "no run to resume" in error
    assert not (place / "runs").exists()


def test_semiseg_picture_that_is_cut_short(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("TrainingSet/LungInfection-Train/Doctor-label", "TestingSet/LungInfection-Test"):
        for kind in ("Imgs", "GT"):
            (place / "data" / folder / kind).mkdir(parents=True)
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8))
        picture.save(place / "data" / folder / "Imgs/1.jpg")
        picture.point(lambda v: 255 * (v > 128)).save(place / "data" / folder / "GT/1.png")
    jpeg = place / "data/TestingSet/LungInfection-Test/Imgs/1.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:300])
    status, _, error = run(f"train --data data {TINY}", capsys)
    assert status == 2
    assert str(Path("Imgs/1.jpg")) in error


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_the_scripts_answer_help(script: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / script, "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", "JAX_PLATFORMS": "cpu"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    assert done.stderr == ""


def test_the_network_is_imported_without_the_rest() -> None:
    """Who wants only the network or the loss pays for neither files nor training."""
    code = (
        "import sys, covid_jax.models, covid_jax.losses; "
        "others = 'nibabel orbax tyro matplotlib optax'.split(); "
        "print([name for name in others if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
