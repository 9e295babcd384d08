"""Scores of a run against counts made by hand from its predictions, and the files it leaves."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from covid_jax.data import SliceDataset
from covid_jax.errors import RunError
from covid_jax.evaluation import evaluate
from covid_jax.evaluation.figures import (
    FALSE_ALARM,
    HIT,
    MISS,
    Example,
    choose,
    overlay,
    to_grey,
)
from covid_jax.inference import Run, load_run
from covid_jax.training import train
from tests.synthetic import SIZE, blob_dataset, tiny_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(tiny_config(epochs=6), blob_dataset(), folder, Console(file=io.StringIO()))
    return load_run(folder)


@pytest.fixture(scope="module")
def report(run: Run) -> dict:
    return evaluate(run, blob_dataset(), "all")


def test_mean_and_pooled_dice_from_predictions_by_hand(run: Run, report: dict) -> None:
    hits, sizes = [], []
    for item in blob_dataset().slices:
        predicted = run.predict(item.image) > 0.5
        hits.append(2 * np.sum(predicted & (item.mask == 1)))
        sizes.append(predicted.sum() + item.mask.sum())
    dice = report["own_grid"]["dice"]
    np.testing.assert_allclose(dice["mean"], np.mean(np.divide(hits, sizes)), atol=1e-6)
    np.testing.assert_allclose(dice["pooled"], sum(hits) / sum(sizes), atol=1e-6)
    assert dice["slices"] == 12
    assert dice["empty"] == 0


def test_slices_csv_adds_up_to_the_pooled_values(report: dict) -> None:
    with (Path(report["folder"]) / "slices.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["slice"] for row in rows] == [item.id for item in blob_dataset().slices]
    tp, fp, fn, tn = (sum(int(row[name]) for row in rows) for name in ("tp", "fp", "fn", "tn"))
    assert tp + fp + fn + tn == sum(item.mask.size for item in blob_dataset().slices)
    assert tp + fn == sum(int(item.mask.sum()) for item in blob_dataset().slices)
    np.testing.assert_allclose(report["own_grid"]["sensitivity"]["pooled"], tp / (tp + fn))
    np.testing.assert_allclose(report["own_grid"]["specificity"]["pooled"], tn / (tn + fp))
    mean = np.mean([float(row["dice"]) for row in rows])
    np.testing.assert_allclose(report["own_grid"]["dice"]["mean"], mean, atol=1e-6)


def test_files_and_what_the_report_owns_up_to(run: Run, report: dict) -> None:
    folder = Path(report["folder"])
    assert folder == run.folder / "eval" / "all"
    assert json.loads((folder / "metrics.json").read_text())["own_grid"] == report["own_grid"]
    with Image.open(folder / "examples.png") as figure:
        assert figure.width > 900
    assert report["split"]["policy"] == "patient"
    assert report["training"]["config"]["optimizer"]["learning_rate"] == 3e-3
    assert any("every slice evaluated shows a lesion" in note for note in report["notes"])


def test_only_the_subset_is_scored(run: Run) -> None:
    split = json.loads((run.folder / "split.json").read_text())
    report = evaluate(run, blob_dataset(), "test")
    with (Path(report["folder"]) / "slices.csv").open() as file:
        scored = [row["slice"] for row in csv.DictReader(file)]
    assert scored == [row["slice"] for row in split["test"]]


def test_an_empty_mask_is_counted_and_undefined_values_are_null(run: Run) -> None:
    """One slice without lesion alone: sensitivity is undefined, and JSON must stay valid."""
    item = blob_dataset().slices[0]
    clean = SliceDataset("clean", (type(item)(*vars(item).values()),), SIZE)
    clean.slices[0].mask[:] = 0
    report = evaluate(run, clean, "all")
    text = (Path(report["folder"]) / "metrics.json").read_text()
    sensitivity = json.loads(text, parse_constant=pytest.fail)["own_grid"]["sensitivity"]
    assert sensitivity == {"mean": None, "pooled": None, "slices": 0, "empty": 1}
    assert not any("shows a lesion" in note for note in report["notes"])


def test_other_data_is_scored_whole_or_not_at_all(run: Run) -> None:
    other = blob_dataset(patients=2)
    with pytest.raises(RunError, match="trained on other data"):
        evaluate(run, other, "test")
    report = evaluate(run, other, "all")
    assert report["slices"] == 4
    assert any("not trained on" in note for note in report["notes"])
    assert Path(report["folder"]).name == f"{other.fingerprint()}-all"


def test_overlay_tells_hits_false_alarms_and_misses_apart() -> None:
    grey = np.zeros((1, 4), np.uint8)
    truth = np.array([[True, False, True, False]])
    prediction = np.array([[True, True, False, False]])
    picture = overlay(grey, truth, prediction)
    expected = [np.array(c) * 0.65 * 255 for c in (HIT, FALSE_ALARM, MISS, (0, 0, 0))]
    np.testing.assert_allclose(picture[0], expected, atol=1)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 2), (3, 3), (7, 7), (40, 7)])
def test_examples_run_from_best_to_worst_without_repeats(count: int, rows: int) -> None:
    blank = np.zeros((2, 2))
    examples = [Example(str(i), blank, blank > 0, blank > 0, i / 40) for i in range(count)]
    chosen = choose(examples)
    assert len(chosen) == rows
    scores = [example.dice for _, example in chosen]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == (count - 1) / 40
    assert scores[-1] == 0.0


def test_hu_is_shown_through_a_lung_window_and_pictures_by_their_range() -> None:
    hu = np.array([[-1350.0, -600.0, 150.0, 3000.0]])
    np.testing.assert_array_equal(to_grey(hu), [[0, 127, 255, 255]])
    np.testing.assert_array_equal(to_grey(np.array([[10, 20, 30]])), [[0, 127, 255]])
