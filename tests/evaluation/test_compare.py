"""Runs side by side: their test by scipy, their means by hand, and what cannot be compared."""

import csv
import dataclasses
import inspect
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from covid_jax.data import SliceDataset
from covid_jax.errors import RunError
from covid_jax.evaluation.compare import compare, read_evaluation, read_scored
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.metrics.confusion import METRICS
from tests.support.scored import (
    PATIENTS,
    keep,
    random_slices,
    score_all,
    skilled,
    values,
)


@pytest.fixture(scope="module")
def dataset() -> SliceDataset:
    return random_slices(PATIENTS)


@pytest.fixture(scope="module")
def scores(dataset: SliceDataset) -> list[list[SliceScores]]:
    return [skilled(dataset, skill) for skill in (0.0, 0.1, 0.3)]


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, dataset: SliceDataset, scores: list[list[SliceScores]]
) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    for name, each in zip(("a", "b", "c"), scores, strict=True):
        keep(folder / name, dataset, each)
    return [folder / name for name in ("a", "b", "c")]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare") / "there"


@pytest.fixture(scope="module")
def record(runs: list[Path], dataset: SliceDataset, out: Path) -> dict[str, Any]:
    return compare(runs, "test", out, ["covid-jax", "compare"])


@pytest.fixture
def copies(runs: list[Path], tmp_path: Path) -> list[Path]:
    """Two of the runs, to be spoilt."""
    return [shutil.copytree(run, tmp_path / run.name) for run in runs[:2]]


def bootstrapped(units: np.ndarray) -> np.ndarray:
    """scipy's interval of the mean."""
    seed = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
    made = stats.bootstrap((units,), np.mean, method="percentile", **{seed: 1})
    return np.array(made.confidence_interval)


@pytest.mark.parametrize("metric", METRICS)
def test_differences_are_tested_patient_by_patient(
    record: dict[str, Any], scores: list[list[SliceScores]], metric: str
) -> None:
    """Every one against the first; in the full precision of slices.csv."""
    first, *others = (values(each, metric) for each in scores)
    rows = record["metrics"][metric]
    assert rows[0]["mean"] == pytest.approx(first.mean(), abs=1e-12)
    assert (rows[0]["difference"], rows[0]["p_value"]) == (0, 1)
    for row, other in zip(rows[1:], others, strict=True):
        gaps = (other - first).reshape(8, 3).mean(1)
        assert row["mean"] == pytest.approx(other.mean(), abs=1e-12)
        assert row["difference"] == pytest.approx((other - first).mean(), abs=1e-12)
        expected = stats.wilcoxon(gaps, zero_method="pratt", method="exact").pvalue
        assert row["p_value"] == pytest.approx(expected, abs=1e-9)
        assert row["compared"] == 24
        for interval, units in (
            (row["interval"], other.reshape(8, 3).mean(1)),
            (row["difference_interval"], gaps),
        ):
            low, high = bootstrapped(units)
            np.testing.assert_allclose(interval, (low, high), atol=0.05 * (high - low))


def test_without_patients_slices_are_tested(tmp_path: Path) -> None:
    unknown = random_slices([None] * 20)
    first, second = (skilled(unknown, skill) for skill in (0.0, 0.1))
    for name, each in (("a", first), ("b", second)):
        keep(tmp_path / name, unknown, each)
    found = compare([tmp_path / "a", tmp_path / "b"], "test", tmp_path / "out")
    expected = stats.wilcoxon(values(second) - values(first), zero_method="pratt").pvalue
    assert found["metrics"]["dice"][1]["p_value"] == pytest.approx(expected, rel=1e-6)
    assert "no patient is known" in found["intervals"]


def test_of_four_patients_nothing_is_tested(tmp_path: Path) -> None:
    few = random_slices(list("pqrs"))
    for name, skill in (("a", 0.0), ("b", 0.1)):
        keep(tmp_path / name, few, skilled(few, skill), "val")
    found = compare([tmp_path / "a", tmp_path / "b"], "val", tmp_path / "out")
    row = found["metrics"]["dice"][1]
    assert (row["interval"], row["difference_interval"], row["p_value"]) == (None, None, None)
    assert row["difference"] is not None
    assert "4 patients are too few" in found["intervals"]


def test_what_is_undefined_everywhere_is_null(tmp_path: Path) -> None:
    slices = [
        dataclasses.replace(item, mask=np.zeros_like(item.mask))
        for item in random_slices(list("pqrstu")).slices
    ]
    clean = SliceDataset("clean", tuple(slices), 12)
    for name in ("a", "b"):
        keep(tmp_path / name, clean, score_all(clean))
    found = compare([tmp_path / "a", tmp_path / "b"], "test", tmp_path / "out")
    text = (tmp_path / "out/compare.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["slices"] == 6
    row = found["metrics"]["sensitivity"][1]
    assert (row["mean"], row["difference"], row["compared"]) == (None, None, 0)


def test_files_hold_what_is_returned(record: dict[str, Any], out: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == [
        "compare.csv",
        "compare.json",
    ]
    kept = json.loads((out / "compare.json").read_text())
    assert kept["metrics"] == record["metrics"]
    assert kept["command"] == "covid-jax compare"
    assert (kept["runs"], kept["slices"], kept["subset"]) == (["a", "b", "c"], 24, "test")
    assert kept["thresholds"] == [0.5] * 3
    with (out / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["metric"], row["run"]) for row in rows] == [
        (metric, run) for metric in METRICS for run in "abc"
    ]
    third = record["metrics"]["dice"][2]
    assert float(rows[2]["mean"]) == third["mean"]
    low, high = map(float, rows[2]["interval"].split())
    assert [low, high] == third["interval"]


def test_runs_of_one_name_are_told_apart_by_their_paths(runs: list[Path], tmp_path: Path) -> None:
    for folder in ("x", "y"):
        shutil.copytree(runs[0], tmp_path / folder / "run")
    scored = read_scored([tmp_path / "x/run", tmp_path / "y/run"], "test")
    assert [one.name for one in scored] == ["x/run", "y/run"]


def test_names_that_are_no_utf_8_are_kept(
    dataset: SliceDataset, scores: list[list[SliceScores]], tmp_path: Path
) -> None:
    """Of slices and of runs."""
    odd = [
        one._replace(item=dataclasses.replace(one.item, id=f"\udce9{i}"))
        for i, one in enumerate(scores[0])
    ]
    renamed = SliceDataset("odd", tuple(one.item for one in odd), 12)
    paths = [tmp_path / os.fsdecode(b"\xff"), tmp_path / "b"]
    for path in paths:
        keep(path, renamed, odd)
    assert compare(paths, "test", tmp_path / "out")["runs"] == ["\udcff", "b"]
    assert b"dice,\xff," in (tmp_path / "out/compare.csv").read_bytes()


def test_one_run_or_one_twice_is_no_comparison(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="needs two runs or more"):
        read_scored(runs[:1], "test")
    (tmp_path / "link").symlink_to(runs[0])
    for twin in (runs[0], runs[0] / "../a", tmp_path / "link"):
        with pytest.raises(RunError, match="duplicate run"):
            read_scored([*runs[:2], twin], "test")


def test_a_run_that_was_not_scored_is_told_how_to_be(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    for subset, flags in (("test", ""), ("val", " --subset val")):
        first = tmp_path / f"first-{subset}"
        shutil.copytree(runs[0] / "eval/test", first / "eval" / subset)
        with pytest.raises(RunError) as caught:
            read_scored([first, tmp_path / "new"], subset)
        said = f"{tmp_path}/new: not scored yet; covid-jax eval {tmp_path}/new{flags}"
        assert str(caught.value) == said
    with pytest.raises(RunError, match="nowhere: no run here"):
        read_scored([runs[0], tmp_path / "nowhere"], "test")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000])
def test_a_damaged_report_is_named(copies: list[Path], text: str) -> None:
    path = copies[1] / "eval/test/metrics.json"
    path.write_text(text)
    with pytest.raises(RunError, match=f"{path}: .*; score the run again"):
        read_scored(copies, "test")


def test_a_field_that_is_missing_or_unknown_is_named(copies: list[Path]) -> None:
    path = copies[1] / "eval/test/metrics.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in record.items() if k not in ("notes", "split")}))
    with pytest.raises(RunError, match=f"{path}: split: missing; score the run again"):
        read_scored(copies, "test")
    path.write_text(json.dumps(record | {"speed": 1}))
    with pytest.raises(RunError, match=f"{path}: speed: unknown field; score the run again"):
        read_scored(copies, "test")
    path.write_text(json.dumps(record | {"epoch": "last"}))
    with pytest.raises(RunError, match=f"{path}: epoch last: expected a whole number"):
        read_scored(copies, "test")
    dice = record["own_grid"]["dice"] | {"mean": "high"}
    path.write_text(json.dumps(record | {"own_grid": {"dice": dice}}))
    with pytest.raises(RunError, match=r"own_grid\.dice"):
        read_scored(copies, "test")
    path.write_text(json.dumps(record | {"training": {"config": {}}}))
    with pytest.raises(RunError, match=r"training\.config\.data: missing"):
        read_scored(copies, "test")
    path.write_text(json.dumps(record | {"training": {"config": {"data": {"seed": 1}}}}))
    with pytest.raises(RunError, match=f"{path}: training.config.data.seed: unknown field"):
        read_scored(copies, "test")


def test_a_report_of_an_earlier_version_lacks_what_was_not_measured_then(
    copies: list[Path],
) -> None:
    path = copies[1] / "eval/test/metrics.json"
    record = json.loads(path.read_text())
    for name in ("lesion_free", "per_source", "attention", "tta"):
        del record[name]
    path.write_text(json.dumps(record))
    report = read_scored(copies, "test")[1].report
    assert (report.lesion_free, report.per_source, report.attention) == (None, {}, None)
    assert report.own_grid == record["own_grid"]


def test_a_patient_may_be_called_unknown(tmp_path: Path) -> None:
    """In slices.csv such a slice looks like one whose patient nobody knows."""
    dataset = random_slices(["unknown", "p", "unknown", "q", "r", "s"])
    for name in ("a", "b"):
        keep(tmp_path / name, dataset, score_all(dataset))
    first, _ = read_scored([tmp_path / "a", tmp_path / "b"], "test")
    assert first.patients == [item.patient for item in dataset.slices]
    unknown = random_slices([None, "p"])
    keep(tmp_path / "c", unknown, score_all(unknown))
    assert read_evaluation(tmp_path / "c/eval/test").patients == [None, "p"]


def rewrite(run: Path, **changes: Any) -> None:
    path = run / "eval/test/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_last_row(run: Path) -> None:
    path = run / "eval/test/slices.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def reorder(run: Path) -> None:
    path = run / "eval/test/slices.csv"
    head, *rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join([head, *reversed(rows)]))


OTHER = {"config": {"data": {"classes": ["ground_glass"]}}}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: rewrite(run, data_fingerprint="0"), "scored on other data than"),
        (lambda run: rewrite(run, training=OTHER), "classes are ground_glass, those of .* merged;"),
        (drop_last_row, "slices.csv has 23 slices, metrics.json 24"),
        (reorder, "scored on other slices than .*--split-file"),
        (lambda run: (run / "eval/test/slices.csv").unlink(), "no usable table"),
        (lambda run: (run / "eval/test/slices.csv").write_text("x"), "no usable table"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    copies: list[Path], spoil: Callable[[Path], Any], said: str
) -> None:
    spoil(copies[1])
    with pytest.raises(RunError, match=said) as caught:
        read_scored(copies, "test")
    assert str(copies[1]) in str(caught.value)


def test_a_folder_that_cannot_be_written_is_said(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file/out: cannot be written"):
        compare(runs, "test", tmp_path / "file/out")
