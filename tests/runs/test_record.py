"""config.json: written at a run's start, kept when it goes on, named when it is damaged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import covid_jax
from covid_jax.errors import RunError
from covid_jax.runs import provenance
from covid_jax.runs.config import DataConfig, LossConfig, TrainConfig, to_dict
from covid_jax.runs.record import (
    SCHEMA,
    DataRecord,
    RunRecord,
    read_record,
    resume_record,
    start_record,
    write_record,
)
from covid_jax.schema import parse

DATA = {
    "layout": "by hand",
    "fingerprint": "0123456789abcdef",
    "normalization": {"mean": None, "std": None, "clip": False},
}


def config_of(**changes: Any) -> TrainConfig:
    return TrainConfig(**({"data": DataConfig((Path("ct"),)), "seed": 3} | changes))


def start(folder: Path, **changes: Any) -> None:
    data = parse(DataRecord, DATA)
    start_record(folder, RunRecord.new(config_of(**changes), data, ["train.py", "--data", "ct"]))


def resume(folder: Path, fingerprint: str = DATA["fingerprint"], **changes: Any) -> dict:
    data = parse(DataRecord, DATA | {"fingerprint": fingerprint})
    command = ["train.py", "--data", "ct", "--resume"]
    now = RunRecord.new(config_of(resume=True, **changes), data, command)
    write_record(folder, resume_record(folder, read_record(folder), now))
    return stored(folder)


def stored(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    """Every file and folder below, with its contents."""
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def test_a_source_may_state_its_intensities_alone() -> None:
    """As bundles made by other programs do."""
    source = {"source": "ct", "scale": "HU", "range": [-1100.0, 400.0]}
    (read,) = parse(DataRecord, DATA | {"sources": [source]}).sources
    assert (read.scale, read.range, read.slices) == ("HU", (-1100.0, 400.0), 0)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    out = tmp_path / "runs/one"
    start(out)
    record = read_record(out)
    assert record.config == config_of()
    assert record.command == "train.py --data ct"
    assert (record.schema, record.resumed, record.custom, record.bundle) == (SCHEMA, (), {}, None)
    kept = stored(out)
    assert to_dict(record) == kept
    assert kept["config"]["data"]["data"] == ["ct"]
    assert kept["data"] == DATA | {"notes": [], "slices": None, "sources": []}
    assert {"date", "device", "versions", "commit", "processor"} <= kept.keys()
    assert [path.name for path in out.iterdir()] == ["config.json"]


@pytest.mark.parametrize("hidden", [(), (".77-config.json", ".DS_Store")])
def test_an_empty_folder_is_taken(tmp_path: Path, hidden: tuple[str, ...]) -> None:
    """So is one with what a killed start or the system has hidden there."""
    for name in hidden:
        (tmp_path / name).write_text("{")
    start(tmp_path)
    assert read_record(tmp_path).config == config_of()


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
    with pytest.raises(
        RunError, match=r"different settings \(loss: ftl -> dice; seed: 3 -> 4\)"
    ) as no:
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
    changing = {"config", "resumed"}
    assert {name: last[name] for name in first.keys() - changing} == {
        name: first[name] for name in first.keys() - changing
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
        (DATA["fingerprint"], {"seed": 4}, r"different settings \(seed: 3 -> 4\).* the same flags"),
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
        with pytest.raises(RunError, match="no run here"):
            resume(out)
    with pytest.raises(RunError, match=r"config\.json: cannot be read \(File name too long\)"):
        resume(tmp_path / ("x" * 300))
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
    ("change", "said"),
    [
        (without("config"), "config: missing"),
        (having(1, "config", "model", "feature"), "did you mean config.model.features?"),
        (having(1, "config", "model", "zzz"), "config.model.zzz: unknown field"),
        (having(None, "config"), "config: expected the fields preset, out, "),
        (having("many", "config", "epochs"), "config.epochs many: expected a whole number"),
        (having(0.5, "config", "loss", "gamma"), "gamma 0.5: expected 1 to 3"),
        (without("data"), "data: missing"),
        (without("data", "fingerprint"), "data.fingerprint: missing"),
        (having([], "data"), "data: expected the fields layout, fingerprint, "),
        (having({"jax": 3}, "versions"), "versions.jax 3: expected text"),
        (having(SCHEMA + 1, "schema"), f"schema {SCHEMA + 1}: expected 1 to {SCHEMA}"),
        (having([{"range": "x"}], "data", "sources"), "data.sources[0].source: missing"),
        (having({"split": {}}, "bundle"), "bundle {'split': {}}: expected the fields epoch, "),
        (having("3", "resumed"), "resumed 3: expected a list"),
    ],
)
def test_a_record_of_another_version_is_named_and_not_called_damaged(
    tmp_path: Path, change: Callable[[dict], Any], said: str
) -> None:
    start(tmp_path)
    record = stored(tmp_path)
    record["versions"]["covid_jax"] = "99.1"
    change(record)
    (tmp_path / "config.json").write_text(json.dumps(record))
    message = assert_refused(tmp_path)
    assert said in message
    assert "damaged" not in message
    writer = "of unknown version" if "versions" in said else "99.1"
    assert f"(written by covid_jax {writer}; this is {covid_jax.__version__})" in message


def test_what_an_earlier_version_did_not_write_takes_its_default(tmp_path: Path) -> None:
    start(tmp_path)
    record = stored(tmp_path)
    for name in ("schema", "custom", "resumed", "bundle", "commit", "processor"):
        del record[name]
    for group, name in (("optimizer", "ema"), ("data", "split_file"), ("loss", "gamma")):
        del record["config"][group][name]
    (tmp_path / "config.json").write_text(json.dumps(record))
    found = read_record(tmp_path)
    assert (found.config, found.schema) == (config_of(), 1)
    assert resume(tmp_path)["schema"] == SCHEMA


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\ud800", '{"config": NaN}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    start(tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert "config.json: damaged (" in assert_refused(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"config"'])
def test_what_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    start(tmp_path)
    (tmp_path / "config.json").write_text(text)
    assert "expected names with values" in assert_refused(tmp_path)


def assert_refused(folder: Path) -> str:
    """Each way to the run names the file, and the file is left for the user to look at."""
    before, said = snapshot(folder), set()
    for attempt in (read_record, start, resume):
        with pytest.raises(RunError) as caught:
            attempt(folder)
        said.add(str(caught.value))
    assert snapshot(folder) == before
    (message,) = said
    assert message.startswith(str(folder / "config.json"))
    return message


def test_a_disk_that_is_full_leaves_the_record_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path)
    before = snapshot(tmp_path)

    def fill_up(path: Path, text: str, encoding: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill_up)
    with pytest.raises(RunError, match=r"cannot be written \(No space left on device\)"):
        resume(tmp_path)
    assert snapshot(tmp_path) == before
