"""Scores of a run against counts made by hand from its predictions, and the files it leaves."""

import csv
import dataclasses
import importlib
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from covid_jax.data import SliceDataset
from covid_jax.ensemble import Ensemble
from covid_jax.errors import ConfigError, DataError, RunError
from covid_jax.evaluation import EvaluationReport, evaluate
from covid_jax.inference import Run, bfloat16_change, load_run
from covid_jax.metrics.confusion import threshold_sweep
from covid_jax.runs.config import EvalConfig
from covid_jax.training import train
from covid_jax.training.loggers import read_metrics
from covid_jax.transforms.augmentation import AugmentConfig
from tests.support.synthetic import KINDS, SIZE, blob_dataset, kinds_dataset, tiny_config
from tests.support.tiny_runs import untrained_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "one"
    config = tiny_config(epochs=6, augmentation=AugmentConfig())
    train(config, blob_dataset(), folder, console=Console(file=io.StringIO()))
    return load_run(folder)


@pytest.fixture(scope="module")
def report(run: Run) -> EvaluationReport:
    return evaluate(run, blob_dataset(), EvalConfig("all")).report


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """The same run without its scores, to be spoilt."""
    ignore = shutil.ignore_patterns("eval")
    return load_run(shutil.copytree(run.folder, tmp_path / "copy", ignore=ignore))


@pytest.fixture(scope="module")
def kinds_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One that tells two of three classes apart, without any skill."""
    config = tiny_config(data=dataclasses.replace(tiny_config().data, classes=KINDS[::2]))
    dataset = kinds_dataset(KINDS[::2])
    return untrained_run(config, dataset, tmp_path_factory.mktemp("runs") / "kinds")


def test_neither_evaluation_nor_prediction_loads_matplotlib() -> None:
    code = "import sys, covid_jax.evaluation, covid_jax.prediction.predict_scans"
    code += "; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_other_weights_leave_the_best_ones_scores_alone(copy: Run) -> None:
    folders = []
    for run in (copy, load_run(copy.folder, "latest"), load_run(copy.folder, averaged=False)):
        folders.append(Path(evaluate(run, blob_dataset(), EvalConfig()).report.folder))
        folders[0].joinpath("kept").touch()
    assert [folder.name for folder in folders] == ["test", "test-latest", "test"]
    records = [json.loads((folder / "metrics.json").read_text()) for folder in folders[:2]]
    rows = read_metrics(copy.folder / "metrics.jsonl")
    best = min(rows, key=lambda row: row["val_loss"])["epoch"]
    assert [record["epoch"] for record in records] == [best, rows[-1]["epoch"]]


def table(report: EvaluationReport) -> list[dict[str, str]]:
    with (Path(report.folder) / "slices.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def ids_in(run: Run, subset: str) -> list[str]:
    split = json.loads((run.folder / "split.json").read_text())
    return [row["slice"] for row in split[subset]]


def dice_by_hand(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Mean over slices and pooled, of predictions and truths that are not empty."""
    hits = [2 * np.sum(a & b) for a, b in pairs]
    sizes = [a.sum() + b.sum() for a, b in pairs]
    return float(np.mean(np.divide(hits, sizes))), float(sum(hits) / sum(sizes))


def test_mean_and_pooled_dice_from_predictions_by_hand(run: Run, report: EvaluationReport) -> None:
    pairs = [(run.predict(item.image) > 0.5, item.mask == 1) for item in blob_dataset().slices]
    mean, pooled = dice_by_hand(pairs)
    assert 0 < mean < 1
    dice = report.own_grid["dice"]
    np.testing.assert_allclose((dice["mean"], dice["pooled"]), (mean, pooled), atol=1e-6)
    assert dice["slices"] == 12
    assert dice["empty"] == 0


def test_averaged_over_flips_by_hand(run: Run, report: EvaluationReport) -> None:
    """In a folder of its own, so that neither overwrites the other."""
    averaged = evaluate(run, blob_dataset(), EvalConfig("all", tta=True)).report
    pairs = []
    for item in blob_dataset().slices:
        images = [np.flip(item.image, axes) for axes in ((), 0, 1, (0, 1))]
        views = zip(images, ((), 0, 1, (0, 1)), strict=True)
        mean = np.mean([np.flip(run.predict(image), axes) for image, axes in views], axis=0)
        pairs.append((mean > 0.5, item.mask == 1))
    dice = averaged.own_grid["dice"]
    np.testing.assert_allclose((dice["mean"], dice["pooled"]), dice_by_hand(pairs), atol=1e-3)
    assert dice["mean"] != report.own_grid["dice"]["mean"]
    assert averaged.tta
    assert not report.tta
    assert averaged.folder == f"{report.folder}-tta"
    assert "probabilities are averages over left-right and up-down flips" in averaged.notes
    assert averaged.notes[:-1] == report.notes


def test_at_the_networks_size_it_is_what_training_validated(run: Run) -> None:
    """The jitted step counted then; the log of that epoch has the same Dice."""
    report = evaluate(run, blob_dataset(), EvalConfig("val")).report
    logged = {r["epoch"]: r["val_dice"] for r in read_metrics(run.folder / "metrics.jsonl")}
    expected = logged[report.epoch]
    assert report.network_size["dice"]["mean"] == pytest.approx(expected, abs=1e-6)
    assert report.own_grid["dice"]["mean"] != pytest.approx(expected, abs=1e-6)


def test_slices_csv_adds_up_to_the_pooled_values(report: EvaluationReport) -> None:
    rows = table(report)
    slices = blob_dataset().slices
    assert [row["slice"] for row in rows] == [item.id for item in slices]
    assert [row["patient"] for row in rows] == [item.patient for item in slices]
    assert [(int(r["height"]), int(r["width"])) for r in rows] == [i.mask.shape for i in slices]
    assert [int(row["lesion_pixels"]) for row in rows] == [item.mask.sum() for item in slices]
    tp, fp, fn, tn = (sum(int(row[name]) for row in rows) for name in ("tp", "fp", "fn", "tn"))
    assert tp + fp + fn + tn == sum(item.mask.size for item in slices)
    assert tp + fn == sum(int(item.mask.sum()) for item in slices)
    np.testing.assert_allclose(report.own_grid["sensitivity"]["pooled"], tp / (tp + fn))
    np.testing.assert_allclose(report.own_grid["specificity"]["pooled"], tn / (tn + fp))
    for column, scores in (("dice", "own_grid"), ("dice_at_network_size", "network_size")):
        mean = np.mean([float(row[column]) for row in rows])
        np.testing.assert_allclose(getattr(report, scores)["dice"]["mean"], mean, atol=1e-6)


def test_files_and_what_the_report_owns_up_to(run: Run, report: EvaluationReport) -> None:
    folder = Path(report.folder)
    assert folder == run.folder / "eval" / "all"
    assert sorted(path.name for path in folder.iterdir()) == [
        "masks.npz",
        "metrics.json",
        "slices.csv",
    ]
    stored = json.loads((folder / "metrics.json").read_text())
    assert stored["own_grid"] == report.own_grid
    assert EvaluationReport.load(folder / "metrics.json").to_json() == report.to_json()
    assert report.split["policy"] == "patient"
    assert report.patients == 6
    assert report.classes == {}
    assert report.training["config"]["optimizer"]["learning_rate"] == 3e-3
    assert any("every slice evaluated shows a lesion" in note for note in report.notes)


@pytest.mark.parametrize("subset", ["train", "val", "test", "all"])
def test_only_the_subset_is_scored(run: Run, subset: str) -> None:
    report = evaluate(run, blob_dataset(), EvalConfig(subset)).report
    scored = [row["slice"] for row in table(report)]
    everything = [item.id for item in blob_dataset().slices]
    assert scored == (everything if subset == "all" else ids_in(run, subset))
    assert report.slices == len(scored)
    assert any("no test of it" in note for note in report.notes) == (subset != "test")


def test_each_class_is_scored_beside_the_whole_lesion(kinds_run: Run) -> None:
    """Ids by hand, from the channels predict gives; consolidation counts as background."""
    dataset = kinds_dataset(KINDS[::2])
    report = evaluate(kinds_run, dataset, EvalConfig("all")).report
    found, there = [], []
    for item in dataset.slices:
        maps = kinds_run.predict(item.image)
        assert maps.shape == (SIZE, SIZE, 2)
        found.append(np.concatenate([1 - maps.sum(-1, keepdims=True), maps], -1).argmax(-1))
        there.append(np.array([0, 1, 0, 2])[item.mask])
    lesion = dice_by_hand([(f > 0, t > 0) for f, t in zip(found, there, strict=True)])
    dice = report.own_grid["dice"]
    np.testing.assert_allclose((dice["mean"], dice["pooled"]), lesion, atol=1e-6)
    assert list(report.classes) == ["ground_glass", "effusion"]
    rows = table(report)
    for k, name in ((1, "ground_glass"), (2, "effusion")):
        pairs = [(f == k, t == k) for f, t in zip(found, there, strict=True)]
        dice = report.classes[name]["own_grid"]["dice"]
        expected = dice_by_hand(pairs)
        np.testing.assert_allclose((dice["mean"], dice["pooled"]), expected, atol=1e-6)
        column = [float(row[f"dice_{name}"]) for row in rows]
        np.testing.assert_allclose(np.mean(column), expected[0], atol=1e-6)
        assert report.classes[name]["network_size"] == report.classes[name]["own_grid"]
    sizes = [int(row["lesion_pixels"]) for row in rows]
    assert sizes == [np.sum(ids > 0) for ids in there]


def test_a_class_alone_is_the_lesion(tmp_path: Path) -> None:
    targets = KINDS[2:]
    config = tiny_config(data=dataclasses.replace(tiny_config().data, classes=targets))
    dataset = kinds_dataset(targets)
    report = evaluate(
        untrained_run(config, dataset, tmp_path / "run"), dataset, EvalConfig("all")
    ).report
    assert report.classes == {}
    pixels = [int(row["lesion_pixels"]) for row in table(report)]
    assert pixels == [np.sum(item.mask == 3) for item in dataset.slices]


def test_an_empty_mask_is_counted_and_undefined_values_are_null(run: Run) -> None:
    """One slice without lesion alone: sensitivity is undefined, and JSON must stay valid."""
    item = blob_dataset().slices[0]
    clean = dataclasses.replace(item, mask=np.zeros_like(item.mask))
    report = evaluate(run, SliceDataset("clean", (clean,), SIZE), EvalConfig("all")).report
    text = (Path(report.folder) / "metrics.json").read_text()
    sensitivity = json.loads(text, parse_constant=pytest.fail)["own_grid"]["sensitivity"]
    undefined = dict.fromkeys(("mean", "pooled", "interval", "patients_mean"))
    assert sensitivity == {**undefined, "slices": 0, "empty": 1}
    assert not any("shows a lesion" in note for note in report.notes)


def test_other_data_is_scored_whole_or_not_at_all(run: Run) -> None:
    other = blob_dataset(patients=2)
    for subset in ("train", "val", "test"):
        with pytest.raises(RunError, match="trained on other data"):
            evaluate(run, other, EvalConfig(subset))
    report = evaluate(run, other, EvalConfig("all")).report
    assert report.slices == 4
    assert any("not trained on" in note for note in report.notes)
    assert (report.split["policy"], list(report.split["warnings"])) == (None, [])
    assert "not trained on" in report.split["statement"]
    assert Path(report.folder).name == f"{other.fingerprint()}-all"


def test_training_slices_in_other_data_are_named(run: Run) -> None:
    """Under other names, among others; a test slice is no harm."""
    own = {item.id: item for item in blob_dataset().slices}
    known = [own[ids_in(run, subset)[0]] for subset in ("train", "val", "test")]
    renamed = [dataclasses.replace(k, id=f"again {i}") for i, k in enumerate(known)]
    new = dataclasses.replace(known[0], id="new", image=known[0].image + np.int16(1))
    report = evaluate(run, SliceDataset("other", (*renamed, new), SIZE), EvalConfig("all")).report
    (note,) = [note for note in report.notes if "pixel for pixel" in note]
    assert note.startswith("2 of these slices")
    assert note.endswith("(again 0, again 1)")
    strangers = evaluate(run, SliceDataset("strangers", (new,), SIZE), EvalConfig("all")).report
    assert not any("pixel for pixel" in note for note in strangers.notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"image_size": 64}, "was trained at 32"), ({"targets": ("lesion",)}, "classes merged")],
)
def test_data_opened_otherwise_is_refused(run: Run, changes: dict, said: str) -> None:
    with pytest.raises(RunError, match=said) as caught:
        evaluate(run, dataclasses.replace(blob_dataset(), **changes), EvalConfig("all"))
    assert str(run.folder) in str(caught.value)


def test_a_run_that_saw_hu_is_not_shown_pictures(tmp_path: Path) -> None:
    data = dataclasses.replace(tiny_config().data, intensity="window")
    run = untrained_run(tiny_config(data=data), blob_dataset(), tmp_path / "run")
    grey = [
        dataclasses.replace(item, image=(item.image - item.image.min()).astype(np.uint8))
        for item in blob_dataset().slices
    ]
    with pytest.raises(DataError, match=r"--intensity window needs .* \(8-bit\)"):
        evaluate(run, SliceDataset("pictures", tuple(grey), SIZE), EvalConfig("all"))
    assert not (run.folder / "eval").exists()
    assert evaluate(run, blob_dataset(), EvalConfig("test")).report.slices == len(
        ids_in(run, "test")
    )


def test_a_folder_that_cannot_be_written_is_said(copy: Run) -> None:
    (copy.folder / "eval").touch()
    with pytest.raises(RunError, match=r"eval/test: cannot be written \(Not a directory\)"):
        evaluate(copy, blob_dataset(), EvalConfig("test"))


def test_a_disk_that_fills_up_leaves_no_half_report(
    copy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    evaluate(copy, blob_dataset(), EvalConfig("test"))
    assert (copy.folder / "eval/test/metrics.json").exists()
    monkeypatch.setattr(np, "savez_compressed", fill_up)
    with pytest.raises(RunError, match="No space left on device"):
        evaluate(copy, blob_dataset(), EvalConfig("test"))
    assert not (copy.folder / "eval/test/metrics.json").exists()  # nor that of before


def test_the_other_precision_has_a_folder_of_its_own(copy: Run) -> None:
    low = load_run(copy.folder, precision="bfloat16")
    report = evaluate(low, blob_dataset(), EvalConfig("val")).report
    assert (report.folder, report.precision) == (f"{copy.folder}/eval/val-bfloat16", "bfloat16")
    assert report.training["config"]["model"]["precision"] == "float32"
    whole = evaluate(copy, blob_dataset(), EvalConfig("val")).report
    assert (whole.folder, whole.precision) == (f"{copy.folder}/eval/val", "float32")
    means = [one.own_grid["dice"]["mean"] for one in (report, whole)]
    assert bfloat16_change(copy.folder, copy.epoch) == pytest.approx(np.subtract(*means))


def test_files_go_where_asked(run: Run, tmp_path: Path) -> None:
    report = evaluate(
        run, blob_dataset(), out=tmp_path / "elsewhere", command=["eval", "a b"]
    ).report
    assert report.folder == str(tmp_path / "elsewhere")
    assert report.command == "eval 'a b'"
    assert len(table(report)) == report.slices == len(ids_in(run, "test"))


def test_numbers_in_slices_csv_have_full_precision(report: EvaluationReport) -> None:
    """A third has no six digits: what is read is what was computed."""
    rows = table(report)
    for row in rows:
        tp, fp, fn = (int(row[name]) for name in ("tp", "fp", "fn"))
        assert float(row["dice"]) == 2 * tp / (2 * tp + fp + fn)
    assert np.mean([float(row["dice"]) for row in rows]) == report.own_grid["dice"]["mean"]


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_run_without_its_split_is_named(copy: Run, damage: str) -> None:
    path = copy.folder / "split.json"
    text = path.read_text()
    path.unlink() if damage == "missing" else path.write_text(text[:-9])
    with pytest.raises(RunError, match=str(path)):
        evaluate(copy, blob_dataset(), EvalConfig("test"))


def test_the_threshold_of_validation_is_the_best_of_all_thresholds_there(run: Run) -> None:
    """Every thousandth tried by hand on the validation slices; the test slices are judged by it."""
    items = {item.id: item for item in blob_dataset().slices}

    def mean_dice(subset: str, at: float) -> float:
        chosen = [items[name] for name in ids_in(run, subset)]
        pairs = [(run.predict(i.image) > np.float32(at), i.mask == 1) for i in chosen]
        return dice_by_hand(pairs)[0]

    report = evaluate(run, blob_dataset(), EvalConfig("test", threshold="val")).report
    val = [(run.predict(items[name].image), items[name].mask == 1) for name in ids_in(run, "val")]
    curve = [
        dice_by_hand([(p > np.float32(k / 1000), mask) for p, mask in val])[0] for k in range(1000)
    ]
    at = report.threshold
    assert report.threshold_from == "the validation slices"
    assert curve[round(1000 * at)] == pytest.approx(max(curve))
    assert mean_dice("val", at) > mean_dice("val", 0.5)
    assert report.own_grid["dice"]["mean"] == pytest.approx(mean_dice("test", at), abs=1e-6)
    plain = evaluate(run, blob_dataset(), EvalConfig("test")).report
    assert (plain.threshold, plain.threshold_from) == (0.5, "given")
    assert plain.network_size == report.network_size  # there it is always one half
    assert plain.own_grid["dice"] != report.own_grid["dice"]


def test_slices_without_lesion_do_not_choose_the_threshold(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One marked up to a probability of 0.9: over all slices a threshold above it would win."""
    evaluate_module = importlib.import_module("covid_jax.evaluation.evaluate")
    config, score = EvalConfig("test", threshold="val"), evaluate_module._score
    alone = evaluate(run, blob_dataset(), config).report.threshold
    assert alone < 0.9

    def with_blank(*arguments):
        scores = list(score(*arguments))
        truth = np.zeros_like(scores[0].truth)
        sweep = threshold_sweep(np.where(scores[0].truth > 0, 0.9, 0.0), truth > 0)
        blank = scores[0]._replace(truth=truth, sweep=sweep)
        return [*scores, *[blank] * 20]

    monkeypatch.setattr(evaluate_module, "_score", with_blank)
    assert evaluate(run, blob_dataset(), config).report.threshold == alone


@pytest.mark.parametrize("subset", ["val", "all"])
def test_a_threshold_is_not_chosen_on_what_it_is_judged_by(run: Run, subset: str) -> None:
    with pytest.raises(ConfigError, match=r"--threshold val: .* among those that would choose it"):
        evaluate(run, blob_dataset(), EvalConfig(subset, threshold="val"))


def test_under_the_papers_split_no_threshold_is_chosen(tmp_path: Path) -> None:
    """Its validation slices are its test slices."""
    config = tiny_config(data=dataclasses.replace(tiny_config().data, split="paper"))
    run = untrained_run(config, blob_dataset(), tmp_path / "run")
    for subset in ("test", "train"):
        with pytest.raises(ConfigError, match="among those that would choose it"):
            evaluate(run, blob_dataset(), EvalConfig(subset, threshold="val"))
    assert not (run.folder / "eval").exists()


def test_other_data_and_several_classes_choose_no_threshold(run: Run, kinds_run: Run) -> None:
    with pytest.raises(ConfigError, match="this data has no validation slices of the run"):
        evaluate(run, blob_dataset(patients=2), EvalConfig("all", threshold="val"))
    with pytest.raises(ConfigError, match="only for one class"):
        evaluate(kinds_run, kinds_dataset(KINDS[::2]), EvalConfig("test", threshold="val"))
    with pytest.raises(ConfigError, match="of several the most probable is taken"):
        evaluate(kinds_run, kinds_dataset(KINDS[::2]), EvalConfig("test", threshold=0.9))


def test_members_of_other_validation_slices_choose_no_threshold(copy: Run, tmp_path: Path) -> None:
    other = load_run(copy.folder)
    other.split = dataclasses.replace(copy.split, val=copy.split.val[1:])
    pair, config = Ensemble([copy, other]), EvalConfig("test", threshold="val")
    with pytest.raises(ConfigError, match="differ in their validation slices"):
        evaluate(pair, blob_dataset(), config, out=tmp_path / "x")
