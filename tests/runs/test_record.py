"""config.json: written at a run's start, kept when it goes on, named when it is damaged."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from covid_jax.errors import RunError
from covid_jax.runs import provenance
from covid_jax.runs.config import DataConfig, LossConfig, TrainConfig, to_dict
from covid_jax.runs.record import read_record, resume_record, start_record, write_record

DATA = {
    "layout": "by hand",
    "fingerprint": "0123456789abcdef",
    "normalization": {"mean": None, "std": None, "clip": False},
}


def config_of(**changes: Any) -> TrainConfig:
    return TrainConfig(**({"data": DataConfig((Path("ct"),)), "seed": 3} | changes))


def start(folder: Path, **changes: Any) -> None:
    start_record(folder, config_of(**changes), DATA, ["train.py", "--data", "ct"])


def resume(folder: Path, fingerprint: str = DATA["fingerprint"], **changes: Any) -> dict:
    command = ["train.py", "--data", "ct", "--resume"]
    record = resume_record(folder, config_of(resume=True, **changes), fingerprint, command)
    write_record(folder, record)
    return record


def stored(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    """Every file and folder below, with its contents."""
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    out = tmp_path / "runs/one"
    start(out)
    config, record = read_record(out)
    assert config == config_of()
    assert record == stored(out)
    assert record["config"]["data"]["data"] == ["ct"]
    assert record["data"] == DATA
    assert record["command"] == "train.py --data ct"
    assert {"date", "device", "versions", "commit", "processor"} <= record.keys()
    assert "resumed" not in record
    assert [path.name for path in out.iterdir()] == ["config.json"]


@pytest.mark.parametrize("hidden", [(), (".77-config.json", ".DS_Store")])
def test_an_empty_folder_is_taken(tmp_path: Path, hidden: tuple[str, ...]) -> None:
    """So is one with what a killed start or the system has hidden there."""
    for name in hidden:
        (tmp_path / name).write_text("{")
    start(tmp_path)
    assert read_record(tmp_path)[0] == config_of()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1.tex").touch()
    before = snapshot(tmp_path)
    for out in (tmp_path, tmp_path / "thesis", tmp_path / "thesis/chapter1.tex"):
        with pytest.raises(RunError, match="exists and is no run folder; choose another --out"):
            start(out)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["file/run", "x" * 300])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, name: str) -> None:
    """A file is in the way; a name longer than any file system takes."""
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=rf"{name}: .*cannot be written .*choose another --out"):
        start(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_is_never_started_over(tmp_path: Path) -> None:
    out = tmp_path / "run"
    start(out)
    before = snapshot(tmp_path)
    with pytest.raises(RunError, match=r"this very run already; .* add --resume") as caught:
        start(out)
    assert str(out) in str(caught.value)
    with pytest.raises(RunError, match=r"another config \(loss: ftl -> dice; seed: 3 -> 4\)") as no:
        start(out, seed=4, loss=LossConfig("dice"))
    assert "--resume" not in str(no.value)
    assert snapshot(tmp_path) == before


def test_the_first_start_stays_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time it goes on adds a line, with what it went on with; nothing is taken away."""
    start(tmp_path)
    first = stored(tmp_path)
    monkeypatch.setattr(provenance.importlib.metadata, "version", lambda name: "99.0")
    resume(tmp_path)
    resume(tmp_path, epochs=600)
    last = stored(tmp_path)
    assert {name: last[name] for name in first if name != "config"} == {
        name: first[name] for name in first if name != "config"
    }
    commands = [row["command"] for row in last["resumed"]]
    assert commands == ["train.py --data ct --resume"] * 2
    assert last["resumed"][1]["versions"]["jax"] == "99.0"
    assert first["versions"]["jax"] != "99.0"
    assert last["config"] == to_dict(config_of(epochs=600))  # more epochs are the same run


def test_data_that_moved_is_no_other_config(tmp_path: Path) -> None:
    """Nor is it when called otherwise: its fingerprint says whether it is the same."""
    start(tmp_path)
    moved = DataConfig((Path("../elsewhere/ct"),))
    assert resume(tmp_path, data=moved)["config"]["data"]["data"] == ["ct"]
    with pytest.raises(RunError, match="this very run already"):
        start(tmp_path, data=moved)
    with pytest.raises(RunError, match="this very run already"):
        start(tmp_path, out=Path("runs/ct"))


@pytest.mark.parametrize(
    ("fingerprint", "changes", "said"),
    [
        (DATA["fingerprint"], {"seed": 4}, r"another config \(seed: 3 -> 4\).* the same flags"),
        (
            DATA["fingerprint"],
            {"data": DataConfig((Path("ct"),), image_size=256)},
            "image_size: 512 -> 256",
        ),
        ("0000000000000000", {}, "the data has changed since this run was started"),
    ],
)
def test_another_run_does_not_go_on_here(
    tmp_path: Path, fingerprint: str, changes: dict, said: str
) -> None:
    start(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(RunError, match=said) as caught:
        resume(tmp_path, fingerprint, **changes)
    assert str(tmp_path) in str(caught.value)
    assert snapshot(tmp_path) == before


def test_resuming_where_no_run_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for out in (tmp_path, tmp_path / "new", tmp_path / "thesis.tex"):
        with pytest.raises(RunError, match="no run to resume here"):
            resume(out)
        with pytest.raises(RunError, match="no run here"):
            read_record(out)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def without(*names: str) -> Callable[[dict], Any]:
    def change(record: dict) -> None:
        for name in names[:-1]:
            record = record[name]
        del record[names[-1]]

    return change


def having(value: Any, *names: str) -> Callable[[dict], Any]:
    def change(record: dict) -> None:
        for name in names[:-1]:
            record = record[name]
        record[names[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        without("config"),
        having(1, "config", "model", "width"),  # a field of a later version
        having(None, "config"),
        having("many", "config", "epochs"),
        having(0.5, "config", "loss", "gamma"),
        without("data"),
        without("data", "fingerprint"),
        without("data", "layout"),
        without("data", "normalization"),
        having([], "data"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, change: Callable[[dict], Any]) -> None:
    start(tmp_path)
    record = stored(tmp_path)
    change(record)
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert_damaged(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"config"', "[" * 100_000, "\ud800"])
def test_what_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    start(tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert_damaged(tmp_path)


def assert_damaged(folder: Path) -> None:
    """Whoever comes to the run hears which file it is, and the file stays for them to look at."""
    before = snapshot(folder)
    for attempt in (read_record, start, resume):
        with pytest.raises(RunError, match="damaged") as caught:
            attempt(folder)
        assert str(folder / "config.json") in str(caught.value)
    assert snapshot(folder) == before


def test_a_disk_that_is_full_leaves_the_record_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path)
    before = snapshot(tmp_path)

    def fill_up(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill_up)
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\)"):
        resume(tmp_path)
    assert snapshot(tmp_path) == before


def test_records_are_of_their_own(tmp_path: Path) -> None:
    """A config is frozen: what one run reads, no other run has changed."""
    start(tmp_path)
    config, record = read_record(tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 4  # type: ignore[misc]
    record["config"]["seed"] = 4
    assert read_record(tmp_path)[0].seed == 3
