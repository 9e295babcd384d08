"""``covid-jax predict``: flags in, masks out; 1 where a scan was left out, 2 on mistakes."""

import json
from pathlib import Path

import pytest

from covid_jax.cli import main as cli
from tests.support.bright_runs import write_picture
from tests.support.synthetic import blob_dataset, tiny_config
from tests.support.tiny_runs import untrained_run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "one"
    return untrained_run(tiny_config(), blob_dataset(), out).folder


def status_of(*words: str | Path) -> int:
    try:
        cli.main(["predict", *map(str, words)])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_batch_ends_with_1_if_a_scan_was_left_out_and_goes_on_where_it_was(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"")
    words = [tmp_path / "in", "-o", tmp_path / "out", "--run", run_folder, "--tta", "--fill-holes"]
    assert status_of(*words) == 1
    printed = capsys.readouterr().out
    assert "Research use only" in printed
    assert "1 left out:" in printed
    assert f"{tmp_path / 'in' / 'b.png'}: not a picture" in printed
    assert status_of(*words) == 1
    assert "1 of them done before" in capsys.readouterr().out
    (tmp_path / "in" / "b.png").unlink()
    assert status_of(*words) == 0
    summary = json.loads((tmp_path / "out" / "a_summary.json").read_text())
    assert summary["options"]["tta"]
    assert summary["options"]["fill_holes"]
    assert summary["command"].startswith("covid-jax predict")


def test_the_precision_is_recorded_and_where_it_saves_nothing_a_note_says_so(
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    why = "this processor has none"
    monkeypatch.setattr("covid_jax.models.cpu_bfloat16.slow_bfloat16", lambda: why)
    picture = write_picture(tmp_path / "a.png")
    for precision, noted in (("bfloat16", True), ("auto", False)):
        out = tmp_path / precision
        assert not status_of(picture, "-o", out, "--run", run_folder, "--precision", precision)
        assert (why in capsys.readouterr().out) == noted
    for precision, computed in (("bfloat16", "bfloat16"), ("auto", "float32")):
        summary = json.loads((tmp_path / precision / "a_summary.json").read_text())
        assert summary["precision"] == computed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no scan given"),
        (("gone.nii",), "gone.nii: no such file or folder"),
        (("gone.nii", "--threshold", "7"), "--threshold 7.0: expected a value in (0, 1)"),
    ],
)
def test_mistakes_end_in_a_line(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words, said: str
) -> None:
    assert status_of("--run", run_folder, "--out", tmp_path / "out", *words) == 2
    captured = capsys.readouterr()
    assert said in captured.out + captured.err
