"""A recorded run trained again: exit status and words, for records that are right and altered."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from covid_jax.cli import main as cli
from covid_jax.cli.reproduce import compare_entries
from covid_jax.errors import RunError
from covid_jax.training.loggers import read_metrics
from tests.support.tiny_datasets import write_dataset

FLAGS = "--image-size 16 --features 2 4 --batch-size 3 --learning-rate 3e-3 --epochs 2"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, trained and tested once; the runs of this module resume from copies."""
    folder = tmp_path_factory.mktemp("reproduce")
    data = write_dataset("MedSeg", folder / "ct")
    (data / "patients.csv").unlink()  # of two patients, no three parts can be made
    out = folder / "study"
    cli.main(["train", "--data", str(data), "-o", str(out), "--seeds", "0", "1", *FLAGS.split()])
    return out


def altered(study: Path, target: Path, **changes: Any) -> Path:
    """A file of results with the first run, whose test Dice or settings are others."""
    report = json.loads((study / "seed-0/eval/test/metrics.json").read_text())
    report["own_grid"]["dice"]["mean"] += changes.pop("dice", 0.0)
    report["training"]["versions"] |= changes.pop("versions", {})
    target.write_text(json.dumps(report | changes))
    return target


def reproduced(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    status = 0
    try:
        cli.main(["reproduce", *words])
    except SystemExit as end:
        status = int(end.code or 0)
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_a_run_gives_its_digits_again(study: Path, tmp_path: Path, capsys) -> None:
    """On the same machine, trained anew; nothing differs but where it is."""
    out = tmp_path / "again"
    status, said = reproduced(str(study), "--run", "seed-1", "-o", str(out), capsys=capsys)
    assert status == 0
    assert said.splitlines()[-1] == "same digits"
    assert "differs" not in said
    logs = [read_metrics(folder / "seed-1/metrics.jsonl") for folder in (study, out)]
    losses = [[row["val_loss"] for row in rows] for rows in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2


def test_an_altered_record_is_off(study: Path, tmp_path: Path, capsys) -> None:
    """Nothing is trained again: the folder of the first is the study's own."""
    record = altered(study, tmp_path / "record.json", dice=0.01, versions={"jax": "0.1"})
    status, said = reproduced(str(record), "-o", str(study), capsys=capsys)
    assert status == 1
    assert "off: test dice differs by 0.0100; the seeds' spread is unknown" in said
    assert "done before" in said
    assert ["jax", "0.1"] in [line.split()[:2] for line in said.splitlines()]


def test_the_spread_of_seeds_decides(study: Path, tmp_path: Path, capsys) -> None:
    """Of two seeds: their difference over the square root of 2."""
    scores = [
        json.loads((study / f"{name}/eval/test/metrics.json").read_text())["own_grid"]["dice"]
        for name in ("seed-0", "seed-1")
    ]
    limit = 2.8 * abs(scores[0]["mean"] - scores[1]["mean"]) / math.sqrt(2)
    assert limit > 1e-4
    for share, expected in ((0.9, 0), (1.1, 1)):
        record = altered(study, tmp_path / "record.json", dice=share * limit)
        words = (str(record), "-o", str(study), "--seeds", "1")
        status, said = reproduced(*words, capsys=capsys)
        assert status == expected
        assert f"two seeds by up to {limit:.4f}" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_fingerprint": "0123"}, "the data was 0123, now it is"),
        ({"training": {}}, "settings of no or another version"),
        ({"training": {"config": {"epoch": 3}}}, r"epoch: unknown field .did you mean epochs"),
        ({"custom": {"loss": "mine"}}, "its loss came from Python"),
    ],
)
def test_what_cannot_be_trained_again_is_refused(
    study: Path, tmp_path: Path, capsys, changes: dict[str, Any], message: str
) -> None:
    record = altered(study, tmp_path / "record.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | changes))
    status, said = reproduced(str(record), "-o", str(study), capsys=capsys)
    assert status == 2
    assert f"{record}: " in said
    assert re.search(message, said)


def test_a_run_that_is_not_there_is_refused(study: Path, capsys) -> None:
    status, said = reproduced(str(study), "--run", "seed-9", capsys=capsys)
    assert status == 2
    assert "no run seed-9 in it; there are: seed-0, seed-1" in said


def entry(dice: float, **best: float) -> dict[str, Any]:
    plain = {"subset": "test", "threshold_from": "given", "threshold": 0.5}
    grid = dict.fromkeys(("iou", "sensitivity", "specificity", "precision"))
    return {
        "run": "a",
        "best": {"epoch": 3, "train_loss": 0.5, "val_loss": 0.5, "val_dice": 0.5} | best,
        "evaluations": [{**plain, "own_grid": {**grid, "dice": dice}}],
    }


def test_other_digits_in_any_number_are_seen() -> None:
    """The seventh digit is rounding; of two groups of seeds the recorded one counts."""
    _, said = compare_entries(entry(0.7), entry(0.7 + 1e-8))
    assert said == "same digits"
    _, said = compare_entries(entry(0.7), entry(0.7, val_loss=0.501), [entry(0.69), entry(0.71)])
    assert said.startswith("within the seeds' spread: test dice differs by 0.0000")
    narrow, wide = [entry(0.70), entry(0.71)], [entry(0.1), entry(0.9)]
    _, said = compare_entries(entry(0.7), entry(0.73), narrow, wide)  # 2.8 * 0.01 / sqrt(2)
    assert said == "off: test dice differs by 0.0300, two seeds by up to 0.0198 (95 %)"
    with pytest.raises(RunError, match="no epoch and no plain test"):
        compare_entries({"run": "a", "evaluations": []}, entry(0.7))
