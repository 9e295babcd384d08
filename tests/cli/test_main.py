"""What a user types and sees: the way from end to end, and every mistake in a line, exit 2."""

import contextlib
import csv
import functools
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from covid_jax.cli import commands
from covid_jax.cli import main as cli
from covid_jax.phantom.dataset import write_phantom
from tests.support.tiny_runs import killed_before_the_first_step

ROOT = Path(__file__).parents[2]
TINY = "--image-size 32 --features 4 8 --epochs 1 --batch-size 4"
DRAWING = "covid_jax.reporting.evaluation_report.draw_evaluation"
FEW = {"num_patients": 4, "slices_per_patient": 1, "num_volumes": 3}  # slices of a phantom
TWICE = TINY.replace("--epochs 1", "--epochs 2")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and an empty cache of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, ct, and a run on it, runs/ct."""
    folder = tmp_path_factory.mktemp("made")
    write_dataset(folder / "ct")
    with contextlib.chdir(folder):
        cli.train(shlex.split(f"--data ct -q {TINY}"))
    return folder


@pytest.fixture
def trained(made: Path, place: Path) -> Path:
    """A copy of them in the folder to work in."""
    return shutil.copytree(made, place, dirs_exist_ok=True)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at no picture: drawing takes most of an evaluation's time."""
    monkeypatch.setattr(DRAWING, lambda *_, **__: None)


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


def begun(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs train as far as its first step, where someone presses Ctrl-C; what it printed."""
    with killed_before_the_first_step():
        status, printed, error = run(command, capsys)
    assert status == 130, error  # 128 + SIGINT, as shells have it
    assert "stopped by SIGINT" in error
    assert "--resume" in error
    return printed


def read(path: str) -> dict:
    return json.loads(Path(path).read_text())


def write_dataset(folder: Path, slices: int = 8, labels: int = 1) -> None:
    """A tiny Dataset-1: bright discs in noise, of each label from 1."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    x, y, _ = np.mgrid[:40, :36, :slices]
    mask = np.zeros(x.shape, np.uint8)
    for label in range(1, labels + 1):
        disc = (x - 10 * label) ** 2 + (y - rng.integers(8, 28, slices)) ** 2 < 20
        mask[disc] = label
    image = rng.normal(-800, 50, mask.shape) + 600 * (mask > 0)
    for name, array in (("tr_im", image.astype(np.int16)), ("tr_mask", mask)):
        nib.save(nib.Nifti1Image(array, None), folder / f"{name}.nii.gz")


def write_pictures(folder: Path) -> None:
    """A tiny COVID-SemiSeg: five pictures a part."""
    rng = np.random.default_rng(0)
    for part in ("TrainingSet/LungInfection-Train/Doctor-label", "TestingSet/LungInfection-Test"):
        for kind in ("Imgs", "GT"):
            (folder / part / kind).mkdir(parents=True)
        for number in range(5):
            picture = Image.fromarray(rng.integers(0, 255, (40, 40), np.uint8))
            picture.save(folder / part / f"Imgs/{number}.jpg")
            picture.point(lambda v: 255 * (v > 128)).save(folder / part / f"GT/{number}.png")


def test_from_files_to_metrics(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(place / "ct")
    status, printed, _ = run(f"train --data ct --loss ftl --gamma 1.333 {TINY}", capsys)
    assert status == 0
    assert "gamma: 1.3333333333333333 -> 1.333" in printed
    assert "preset paper" in printed
    assert "patients of 8 slices are unknown" in printed
    assert "python eval.py runs/ct" in printed
    record = read("runs/ct/config.json")
    config = record["config"]
    assert config["preset"] == "paper"
    assert config["optimizer"]["learning_rate"] == 5e-5
    assert config["model"]["features"] == [4, 8]
    assert record["command"].startswith("train.py --data ct --loss ftl --gamma 1.333 ")

    status, printed, _ = run("eval runs/ct", capsys)
    assert status == 0
    report = read("runs/ct/eval/test/metrics.json")
    assert f"{report['own_grid']['dice']['mean']:.3f}" in printed
    assert report["command"] == "eval.py runs/ct"
    assert (place / "runs/ct/eval/test/examples.png").stat().st_size > 10_000

    status, _, error = run(f"train --data ct --loss dice {TINY} -o runs/ct", capsys)
    assert status == 2
    assert "loss: ftl -> dice" in error
    status, _, _ = run(f"covid-jax train --data ./ct --gamma 1.333 {TWICE} --resume", capsys)
    assert status == 0
    assert len((place / "runs/ct/metrics.jsonl").read_text().splitlines()) == 2
    record_now = read("runs/ct/config.json")
    assert (record_now["command"], record_now["date"]) == (record["command"], record["date"])
    (resumed,) = record_now["resumed"]
    assert resumed["command"].startswith("covid-jax train ")
    status, printed, _ = run(f"covid-jax train --data ./ct --gamma 1.333 {TWICE} --resume", capsys)
    assert status == 0
    assert "finished: 2 epochs are done" in printed
    assert "covid-jax eval runs/ct" in printed


@pytest.mark.usefixtures("undrawn")
def test_the_same_command_and_a_run_s_config_give_the_same_run(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every digit of the log, timings apart, and of the test's scores."""
    write_dataset(place / "ct")
    flags = "--data ct --loss tversky --alpha 0.6 --beta 0.4 --augment standard --seed 3"
    timings = {"seconds", "slices_per_second", "peak_memory_gib"}
    ends = []
    for command in (
        f"train --out a {flags} {TWICE}",
        f"train --out b {flags} {TWICE}",
        "train --config a/config.json --out c",
    ):
        status, _, error = run(command, capsys)
        assert status == 0, error
        out = command.partition("--out ")[2][0]
        assert run(f"eval {out}", capsys)[0] == 0
        lines = Path(out, "metrics.jsonl").read_text().splitlines()
        rows = [{k: v for k, v in json.loads(line).items() if k not in timings} for line in lines]
        ends.append((rows, read(f"{out}/eval/test/metrics.json")["own_grid"]))
    assert ends[0] == ends[1] == ends[2]
    assert len(ends[0][0]) == 2


@pytest.mark.usefixtures("undrawn")
def test_eval_where_the_data_or_the_disk_have_moved(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the data has moved; on other data; where something is in the way."""
    (trained / "ct").rename(trained / "elsewhere")
    status, _, error = run("eval runs/ct", capsys)
    assert status == 2
    assert "ct: no such folder" in error
    assert run("eval runs/ct --data elsewhere --subset val", capsys)[0] == 0
    split = read("runs/ct/split.json")
    assert read("runs/ct/eval/val/metrics.json")["slices"] == len(split["val"])

    write_dataset(trained / "other", slices=5)
    status, _, error = run("eval runs/ct --data other", capsys)
    assert status == 2
    assert "trained on other data" in error
    status, printed, _ = run("eval runs/ct --data other --subset all", capsys)
    assert status == 0
    assert "not trained on" in printed
    status, printed, _ = run("eval runs/ct --data elsewhere --subset train", capsys)
    assert status == 0
    assert "no test of it" in printed

    shutil.rmtree(trained / "runs/ct/eval")
    (trained / "runs/ct/eval").touch()
    status, _, error = run("eval runs/ct --data elsewhere", capsys)
    assert status == 2
    assert "runs/ct/eval/test: cannot be written" in error


@pytest.mark.usefixtures("undrawn")
def test_without_data_it_is_the_quick_preset_on_the_phantom_and_says_so(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(write_phantom, size=48, **FEW)
    monkeypatch.setattr(commands, "write_phantom", small)
    status, printed, _ = run(f"train {TINY} --augment none", capsys)
    assert status == 0
    assert "synthetic phantom" in printed.splitlines()[0]
    assert "quick" in printed.splitlines()[0]
    config = read("runs/phantom/config.json")
    assert config["config"]["preset"] == "quick"
    assert config["config"]["optimizer"]["learning_rate"] == 2e-3
    assert "synthetic phantom" in " ".join(config["data"]["notes"])
    status, printed, _ = run("eval runs/phantom", capsys)
    assert status == 0
    assert "synthetic phantom" in printed


def test_augment_chooses_the_strengths_and_single_ones_override(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_dataset(place / "ct")
    asked = {
        "paper": "",
        "quick": "--preset quick",
        "standard": "--augment standard",
        "turned": "--augment standard --rotation 5 --no-flip",
        "one": "--rotation 5",
        "none": "--preset quick --augment none",
    }
    found = {}
    for name, flags in asked.items():
        begun(f"train --data ct {TINY} --out runs/{name} {flags}", capsys)
        found[name] = read(f"runs/{name}/config.json")["config"]["augmentation"]
    assert {value for value in found["paper"].values() if value} == {"none"}
    off = {name for name, value in found["standard"].items() if value in (0, "none")}
    assert off == {"orientation", "intensity_curve"}  # those of --augment strong
    assert found["quick"] == found["standard"]
    assert found["none"] == found["paper"]
    assert found["turned"] == found["standard"] | {"rotation": 5.0, "flip": False}
    assert found["one"] == found["paper"] | {"rotation": 5.0}


@pytest.mark.usefixtures("undrawn")
def test_two_folders_are_one_dataset(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two phantoms, named in either way, from training to test."""
    small = {"size": 48, "num_patients": 3, "slices_per_patient": 1, "num_volumes": 2}
    slices = 2 * (3 + 2 * 3)
    for seed, name in enumerate(("one", "two")):
        write_phantom(place / name, seed=seed, slices_per_volume=3, **small)
    assert "no folder" not in begun(f"train --data one --data two {TINY}", capsys)
    for data in ("--data one two", "--data=one --data=two"):
        status, _, error = run(f"train {data} {TINY} --out runs/one+two", capsys)
        assert status == 2
        assert "runs/one+two: contains this very run already" in error
    assert run(f"train --data one two {TINY} --resume", capsys)[0] == 0
    record = read("runs/one+two/config.json")
    assert record["config"]["data"]["data"] == ["one", "two"]
    assert record["data"]["slices"] <= slices
    split = read("runs/one+two/split.json")
    rows = [row for part in ("train", "val", "test") for row in split[part]]
    assert len(rows) == record["data"]["slices"]
    assert {row["slice"].split("/")[0] for row in rows} == {"one", "two"}
    status, printed, _ = run("eval runs/one+two --subset all", capsys)
    assert status == 0
    assert "one: synthetic phantom (seed 0)" in printed
    assert "two: synthetic phantom (seed 1)" in printed
    status, _, error = run("eval runs/one+two --data one", capsys)
    assert status == 2
    assert "trained on other data" in error
    status, _, error = run(f"train --data one --data ./one {TINY}", capsys)
    assert status == 2
    assert "given twice" in error


@pytest.mark.usefixtures("undrawn")
def test_classes_from_labels_to_columns(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(place / "ct", labels=3)
    classes = ["ground_glass", "consolidation", "effusion"]
    status, _, error = run(f"train --data ct --classes {' '.join(classes)} {TINY}", capsys)
    assert (status, error) == (0, "")
    (row,) = map(json.loads, (place / "runs/ct/metrics.jsonl").read_text().splitlines())
    assert {f"val_dice_{name}" for name in classes} < row.keys()
    status, printed, _ = run("eval runs/ct --subset all", capsys)
    assert status == 0
    report = read("runs/ct/eval/all/metrics.json")
    assert list(report["classes"]) == classes
    with (place / "runs/ct/eval/all/slices.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in classes:
        assert name in printed
        mean = np.mean([float(row[f"dice_{name}"]) for row in rows])
        assert mean == pytest.approx(report["classes"][name]["own_grid"]["dice"]["mean"], abs=1e-6)

    status, _, error = run(f"train --data ct --classes crazy_paving {TINY} --out x", capsys)
    assert status == 2
    assert "--classes crazy_paving: MedSeg Dataset-1 knows ground_glass" in error
    printed = begun(f"train --data ct --classes effusion {TINY} --out x", capsys)
    assert "ground_glass, consolidation counts as background" in printed


def test_folds_and_split_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(place / "ct", slices=9)
    tested = []
    for fold in (1, 2, 3):
        begun(f"train --data ct {TINY} --folds 3 --fold {fold} --out runs/{fold}", capsys)
        tested.append({row["slice"] for row in read(f"runs/{fold}/split.json")["test"]})
    assert sorted(map(len, tested)) == [3, 3, 3]
    assert len(set.union(*tested)) == 9

    given = "--split-file runs/2/split.json --seed 8"
    printed = begun(f"train --data ct {TINY} {given} --out runs/again", capsys)
    assert "taken from a split file" in printed
    again, first = read("runs/again/split.json"), read("runs/2/split.json")
    assert [again[name] for name in ("train", "val", "test")] == [
        first[name] for name in ("train", "val", "test")
    ]
    write_dataset(place / "other", slices=10)
    status, _, error = run(f"train --data other {TINY} {given}", capsys)
    assert status == 2
    assert "runs/2/split.json: was drawn for data with the fingerprint" in error
    status, _, error = run(f"train --data ct {TINY} {given} --folds 3 --fold 1", capsys)
    assert status == 2
    assert "--split-file contains one split" in error
    assert not (place / "runs/other").exists()


def test_a_window_needs_hu(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(place / "pictures")
    status, _, error = run(f"train --data pictures --intensity window {TINY}", capsys)
    assert status == 2
    assert "--intensity window needs Hounsfield units; COVID-SemiSeg holds" in error
    assert not (place / "runs/pictures").exists()
    write_dataset(place / "ct")
    begun(f"train --data ct --intensity window --window -500 1200 {TINY}", capsys)
    stored = read("runs/ct/config.json")["data"]["normalization"]
    assert stored == {"mean": -500.0, "std": 600.0, "clip": True}


def test_a_look_at_the_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dataset(place / "ct", labels=3)
    status, printed, error = run("covid-jax data ct --image-size 32", capsys)
    assert (status, error) == (0, "")
    mask = np.asarray(nib.load(place / "ct/tr_mask.nii.gz").dataobj)
    for label, name in enumerate(("ground_glass", "consolidation", "effusion"), start=1):
        assert re.search(rf"{name} pixels +│ +{np.sum(mask == label):,} ", printed)
    assert "MedSeg Dataset-1 in ct" in printed
    assert "near-duplicate slices not known to be of one patient" in printed
    assert sorted(path.name for path in (place / "runs/ct-look").iterdir()) == ["slices.png"]
    (place / "file").touch()
    assert run("covid-jax data ct --image-size 32 --out there", capsys)[0] == 0
    assert (place / "there/slices.png").stat().st_size > 10_000
    status, _, error = run("covid-jax data ct --image-size 32 --out file/x", capsys)
    assert status == 2
    assert "file/x: cannot be written" in error
    for size in (0, -5, 1):
        status, _, error = run(f"covid-jax data ct --image-size {size}", capsys)
        assert status == 2
        assert f"--image-size {size}: expected at least 16" in error


def test_phantom_command_writes_a_dataset(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(write_phantom, **FEW)
    monkeypatch.setattr("covid_jax.phantom.dataset.write_phantom", small)
    status, printed, _ = run("covid-jax phantom [made] --size 48 --seed 3", capsys)
    assert status == 0
    assert "train with --data [made]" in printed
    assert nib.load(place / "[made]/tr_im.nii.gz").shape[:2] == (48, 48)
    assert run("covid-jax phantom [made] --size 48", capsys)[0] == 2


def test_a_threshold_of_validation_and_a_report(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = "--report --threshold val --tolerance 2.5 --batch-size 3"
    status, printed, error = run(f"eval runs/ct {flags}", capsys)
    assert (status, error) == (0, "")
    report = read("runs/ct/eval/test/metrics.json")
    assert report["threshold_from"] == "the validation slices"
    assert report["tolerance"] == 2.5
    assert report["command"] == f"eval.py runs/ct {flags}"
    assert f"threshold {report['threshold']:g} (the validation slices)" in printed
    assert "at 2.5 px" in printed
    assert "report.html" in printed
    names = {path.name for path in (trained / "runs/ct/eval/test").iterdir()}
    assert {"report.html", "area.png", "threshold.pdf"} < names
    status, _, error = run("eval runs/ct --subset val --threshold val", capsys)
    assert status == 2
    assert "--threshold val: the slices scored are among those that would" in error
    assert not (trained / "runs/ct/eval/val").exists()
    monkeypatch.setattr(DRAWING, lambda *_, **__: None)
    assert run("eval runs/ct", capsys)[0] == 0
    assert not (trained / "runs/ct/eval/test/report.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_runs_are_compared_once_they_are_scored(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "12":
        shutil.copytree("runs/ct", name)
    assert run("eval 1", capsys)[0] == 0
    status, _, error = run("covid-jax compare 1 2", capsys)
    assert status == 2
    assert "2: not scored yet; covid-jax eval 2" in error
    assert run("eval 2 --threshold val", capsys)[0] == 0
    status, printed, error = run("covid-jax compare 1 2", capsys)
    assert (status, error) == (0, "")
    record = read("runs/compare/compare.json")
    assert record["command"] == "covid-jax compare 1 2"
    for name, row in zip("12", record["metrics"]["dice"], strict=True):
        mean = read(f"{name}/eval/test/metrics.json")["own_grid"]["dice"]["mean"]
        assert row["mean"] == pytest.approx(mean, abs=1e-6)
        assert f"{mean:.4f}" in printed
    assert "the runs' thresholds differ" in printed
    pictures = {path.name for path in (trained / "runs/compare").glob("*.png")}
    assert pictures == {"scatter.png", "methods.png"}

    (trained / "ct").rename(trained / "moved")
    status, _, error = run("covid-jax compare 1 2 --out there", capsys)
    assert status == 2
    assert "ct: no such folder" in error
    assert run("covid-jax compare 1 2 --data moved --out there", capsys)[0] == 0
    assert (trained / "there/compare.csv").exists()
    write_dataset(trained / "other", slices=9)
    status, _, error = run("covid-jax compare 1 2 --data other --out no", capsys)
    assert status == 2
    assert "other data than is given" in error
    assert not (trained / "no").exists()


def test_masks_of_any_method_are_scored_and_compared_with_a_run(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything white: Dice 2 n / (n + pixels). A run's own masks have its own scores."""
    write_pictures(place / "data")
    assert run(f"train --data data {TINY} -o run", capsys)[0] == 0
    with mock.patch(DRAWING):
        assert run("eval run", capsys)[0] == 0
    images = "data/TestingSet/LungInfection-Test/Imgs"
    assert run(f"covid-jax predict {images} --run run -o masks", capsys)[0] == 0
    status, printed, error = run("covid-jax score masks --like run", capsys)
    assert (status, error) == (0, "")
    assert "network's size" not in printed
    ours, theirs = read("run/eval/test/metrics.json"), read("scored/masks/metrics.json")
    for name in ("own_grid", "surface", "lesions", "area", "lesion_free", "data_fingerprint"):
        assert theirs[name] == ours[name], name
    assert theirs["network_size"] == {}
    assert run("covid-jax compare run scored/masks -o there", capsys)[0] == 0
    assert read("there/compare.json")["metrics"]["dice"][1]["difference"] == 0
    (place / "white").mkdir()
    expected = []
    for path in (place / "data/TestingSet/LungInfection-Test/GT").iterdir():
        lesion = np.asarray(Image.open(path)) > 128
        Image.new("L", (40, 40), 255).save(place / "white" / path.name)
        expected.append(2 * lesion.sum() / (lesion.sum() + lesion.size))
    truth = "--truth data/TestingSet/LungInfection-Test/GT"
    status, printed, error = run(f"covid-jax score white {truth} -o a/b --report", capsys)
    assert (status, error) == (0, "")
    record = read("a/b/metrics.json")
    assert record["own_grid"]["dice"]["mean"] == pytest.approx(np.mean(expected))
    assert record["protocols"]["covid-semiseg"]["dice"] == pytest.approx(np.mean(expected))
    assert f"{np.mean(expected):.3f}" in printed
    assert (place / "a/b/report.html").exists()
    assert run(f"covid-jax score white {truth} -o a/c", capsys)[0] == 0
    status, printed, _ = run("covid-jax compare a/b a/c -o both", capsys)
    assert (status, "no pictures are drawn" in printed) == (0, True)


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
        image.write_bytes(b"<html>404: not found</html>" * 40)
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


def test_semiseg_picture_that_is_cut_short(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(place / "data")
    jpeg = place / "data/TestingSet/LungInfection-Test/Imgs/1.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:300])
    status, _, error = run(f"train --data data {TINY}", capsys)
    assert status == 2
    assert str(Path("Imgs/1.jpg")) in error


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train --data nowhere", "nowhere: no such folder"),
        ("train --data .", "Looked for"),
        ("train --data . nowhere", "Looked for"),
        ("train --image-size 250", "try 240 or 256"),
        ("train --gamma 4", "gamma 4.0: expected 1 to 3"),
        ("train --alpha -1", "--alpha -1.0: expected at least 0"),
        ("train --learning-rate 0", "--learning-rate 0.0: expected more than 0"),
        ("train --loss focal", "focal"),
        ("train --epochs many", "many"),
        ("train --augment some", "some"),
        ("train --augment standard --rotation 200", "--rotation 200.0: expected 0 to 180"),
        ("train --folds 3", "--folds and --fold go together"),
        ("train --folds 3 --fold 4", "--fold 4: expected 1 to 3"),
        ("train --intensity window --window 0 0", "--window 0.0 0.0"),
        ("train --classes effusion effusion", "--classes effusion effusion: duplicate class"),
        ("train --data", "--data: expected a folder after it"),
        ("train --data --epochs 1", "--data: expected a folder after it"),
        ("eval", "no run given"),
        ("eval nowhere", "nowhere: no run here"),
        ("eval nowhere --batch-size 0", "--batch-size 0: expected at least 1"),
        ("eval nowhere --subset everything", "everything"),
        ("eval nowhere --threshold 1.4", "--threshold 1.4: expected a value in (0, 1)"),
        ("eval nowhere --tolerance -1", "--tolerance -1.0: expected at least 0"),
        ("eval nowhere --tolerance nan", "--tolerance nan: expected at least 0"),
        ("covid-jax compare", "needs two runs or more"),
        ("covid-jax compare nowhere", "needs two runs or more"),
        ("covid-jax compare nowhere there", "nowhere: no run here"),
        ("covid-jax compare . ./", "duplicate run: each may be given once"),
        ("covid-jax compare nowhere there --subset some", "some"),
        ("covid-jax score", "Required options"),
        ("covid-jax score nowhere", "needs one of --truth, --data and --like"),
        ("covid-jax score nowhere --truth a --like b", "needs one of --truth, --data and --like"),
        ("covid-jax score nowhere --like b --lesion-slices-only", "--like takes --classes"),
        ("covid-jax score nowhere --like b", "b: no run here"),
        ("covid-jax score nowhere --truth there", "there: no such folder"),
        ("covid-jax data nowhere", "nowhere: no such folder"),
        ("covid-jax data .", "Looked for"),
        ("covid-jax tarin", "covid-jax tarin: unknown command; did you mean train?"),
        ("covid-jax frobnicate", "unknown command; there are train, eval, "),
        ("train --config nowhere.yaml", "error: nowhere.yaml: no such file, or a link to nothing"),
        ("train --num-processes 2", "--coordinator, --num-processes and --process-id go together"),
        ("covid-jax completion tcsh", "tcsh"),
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


@pytest.mark.parametrize("kind", ["no run", "something else", "damaged config", "damaged split"])
def test_a_run_folder_that_is_none_is_left_alone(
    place: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    write_dataset(place / "ct")
    flags, said = "--resume", "runs/ct: no run here"
    if kind == "something else":
        (place / "runs/ct").mkdir(parents=True)
        (place / "runs/ct/thesis.tex").touch()
        flags, said = "-o runs/ct", "runs/ct: exists and is no run folder; choose another --out"
    elif kind != "no run":
        begun(f"train --data ct {TINY}", capsys)
        name = kind.replace("damaged ", "") + ".json"
        path = place / "runs/ct" / name
        path.write_text(path.read_text()[:-9])
        said = f"runs/ct/{name}"
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    status, _, error = run(f"train --data ct {TINY} {flags}", capsys)
    assert status == 2
    assert said in error
    assert "Traceback" not in error
    after = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("train --help", "usage: train.py "),
        ("eval --help", "usage: eval.py "),
        ("covid-jax train --help", "usage: covid-jax train "),
        ("covid-jax eval --help", "usage: covid-jax eval "),
        ("covid-jax predict --help", "usage: covid-jax predict "),
        ("covid-jax export --help", "usage: covid-jax export "),
        ("covid-jax compare --help", "usage: covid-jax compare "),
        ("covid-jax score --help", "usage: covid-jax score "),
        ("covid-jax data --help", "usage: covid-jax data "),
        ("covid-jax phantom --help", "usage: covid-jax phantom "),
        ("covid-jax config --help", "usage: covid-jax config "),
        ("covid-jax cache --help", "usage: covid-jax cache "),
        ("covid-jax completion --help", "usage: covid-jax completion "),
    ],
)
def test_help_calls_a_command_by_what_was_typed(
    capsys: pytest.CaptureFixture[str], command: str, usage: str
) -> None:
    status, printed, error = run(command, capsys)
    assert (status, error) == (0, "")
    assert printed.startswith(usage)


def test_a_help_text_has_no_line_breaks_of_the_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    printed = run("covid-jax train --help", capsys)[1]
    assert re.search(r"--config PATH +Settings that .*\(semiseg, paper, network\)\.", printed)


@pytest.mark.parametrize("chosen", [None, "/somewhere/else"])
def test_compiled_steps_are_kept_where_the_user_chose(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    chosen: str | None,
) -> None:
    """By JAX_COMPILATION_CACHE_DIR, which JAX reads at its import; else in the cache folder."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    if chosen:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", chosen)
    run("eval nowhere", capsys)
    kept = os.environ["JAX_COMPILATION_CACHE_DIR"]
    assert kept == (chosen or str(place.parent / "cache/covid_jax/compiled"))


def test_a_damaged_compiled_step_is_compiled_again_without_a_word(place: Path) -> None:
    """Twice the same command, and between the two a kill in the middle of writing a step."""
    code = (
        "import jax\n"
        "from covid_jax.cli import main\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"
        "with main._damaged_steps_deleted(): print(jax.jit(lambda x: x + 1)(1.0))"
    )
    folder = place / "compiled"
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PLATFORMS": "cpu"}
    sizes = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, env=environment, check=True
        )
        assert (done.stdout, done.stderr) == (b"2.0\n", b"")
        sizes.append(sorted(path.stat().st_size for path in folder.iterdir()))
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes()[:20])
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_the_scripts_answer_help(script: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / script, "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", "JAX_PLATFORMS": "cpu"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: {script}" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_a_reader_that_ends_first_ends_it_in_silence(words: list[str], buffered: str) -> None:
    """As ``covid-jax --help | head`` does."""
    reads, writes = os.pipe()
    os.close(reads)
    code = f"from covid_jax.cli.main import main; main({words})"
    environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
    process = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writes,
        stderr=subprocess.PIPE,
        env=environment,
        check=False,
    )
    os.close(writes)
    assert process.stderr == b""
    assert process.returncode == 141  # 128 + SIGPIPE


def test_a_terminal_of_few_letters_gets_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "Zwischenspeicher f\u00fcr CT"))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    cli.main(["cache"])
    assert rb"f\xfcr" in written.getvalue()


def test_closed_output_is_written_to_nowhere() -> None:
    code = "from covid_jax.cli.main import main; main(['cache'])"
    process = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" >&-', sys.executable, code], capture_output=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, b"")


def test_a_backend_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "Unable to initialize backend 'foo'"  # as jax begins
    monkeypatch.setattr("covid_jax.cli.tools.cache", mock.Mock(side_effect=RuntimeError(said)))
    monkeypatch.setenv("JAX_PLATFORMS", "foo")
    with pytest.raises(SystemExit) as caught:
        cli.main(["cache"])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    monkeypatch.setattr("covid_jax.cli.tools.cache", mock.Mock(side_effect=RuntimeError("other")))
    with pytest.raises(RuntimeError, match="other"):
        cli.main(["cache"])


@pytest.mark.parametrize(
    "words", [[], ["train", "--help"], ["predict", "-h"], ["config"], ["cache"]]
)
def test_help_and_settings_load_no_jax(words: list[str]) -> None:
    """So that they answer at once; what a command is called by alone loads not even numpy."""
    code = (
        "import sys, contextlib\n"
        "from covid_jax.cli.main import main\n"
        f"with contextlib.suppress(SystemExit): main({words})\n"
        "print(sorted({'jax', 'flax', 'matplotlib', 'numpy', 'tyro'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ("['tyro']" if words else "[]")


def test_the_network_is_imported_without_the_rest() -> None:
    """Who wants only the network or the loss pays for neither files nor training."""
    code = (
        "import sys, covid_jax.models, covid_jax.losses; "
        "others = 'nibabel orbax tyro matplotlib optax pydicom'.split(); "
        "print([name for name in others if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
