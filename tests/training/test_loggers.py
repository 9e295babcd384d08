"""What a run tells: lines of metrics.jsonl, events that TensorBoard's format knows, a trace."""

import gzip
import io
import json
import struct
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from covid_jax.errors import RunError
from covid_jax.terminal import Screen
from covid_jax.training.loggers import Logs, NoLogs, peak_memory, read_metrics

ROW = {
    "epoch": 1,
    "train_loss": 0.7,
    "val_loss": 0.6,
    "val_dice": 0.25,
    "learning_rate": 5e-5,
    "skipped_steps": 0,
    "seconds": 2.0,
    "slices_per_second": 4.0,
    "peak_memory_gib": 0.5,
}


def open_logs(folder: Path, done: int = 0, profile: int = 0) -> tuple[Logs, Console]:
    console = Screen(file=io.StringIO())
    return Logs(folder, console, 5, 2, done, profile), console


def end(logs: Logs, epoch: int, panel: Any = None, **changes: Any) -> None:
    logs.end_epoch(ROW | {"epoch": epoch} | changes, panel)


def events(folder: Path) -> list[Event]:
    """Of all files, as the record format frames them: length, checksum, data, checksum."""
    found = []
    for path in sorted(folder.glob("tensorboard/*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): value.simple_value
        for event in events(folder)
        for value in event.summary.value
        if not value.HasField("image")
    }


def test_each_epoch_is_a_line_and_a_point_of_each_curve(tmp_path: Path) -> None:
    logs, console = open_logs(tmp_path)
    with logs:
        end(logs, 1)
        end(logs, 2, val_dice=0.5, skipped_steps=3, panel=np.zeros((1, 4, 4, 3), np.uint8))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [ROW, ROW | {"epoch": 2, "val_dice": 0.5, "skipped_steps": 3}] == logs.rows
    found = scalars(tmp_path)
    assert {name for name, _ in found} == set(ROW) - {"epoch"}
    assert found["val_dice", 1] == 0.25
    assert found["val_dice", 2] == 0.5
    assert found["skipped_steps", 2] == 3
    first, second = (line for line in console.file.getvalue().splitlines() if "val Dice" in line)
    assert "skipped" not in first
    assert "best" not in first
    assert "val Dice 0.5000" in second
    assert "3 steps skipped" in second
    assert "best so far" in second


def test_an_epoch_is_on_the_disk_before_the_next_begins(tmp_path: Path) -> None:
    logs, _ = open_logs(tmp_path)
    with logs:
        end(logs, 1)
        assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
        assert ("val_loss", 1) in scalars(tmp_path)


def test_resuming_drops_lines_whose_epoch_was_not_saved(tmp_path: Path) -> None:
    """And tells TensorBoard from which epoch on the earlier file no longer counts."""
    for done in (0, 1):
        logs, _ = open_logs(tmp_path, done)
        with logs:
            end(logs, done + 1, train_loss=done)
            end(logs, done + 2, train_loss=done)
    assert [(row["epoch"], row["train_loss"]) for row in logs.rows] == [(1, 0), (2, 1), (3, 1)]
    assert read_metrics(tmp_path / "metrics.jsonl") == logs.rows
    starts = [event.step for event in events(tmp_path) if event.HasField("session_log")]
    assert sorted(starts) == [1, 2]


@pytest.mark.parametrize(
    "line",
    [
        *("", "{", '{"epoch": 3', "[3]", "3", "\x00\xff", json.dumps(ROW | {"epoch": "3"})),
        *(json.dumps(ROW | {"val_loss": bad}) for bad in ("0.5", None, [0.5])),
        json.dumps({name: value for name, value in ROW.items() if name != "learning_rate"}),
    ],
)
def test_a_damaged_line_is_none(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{line}\n{json.dumps(ROW | {'epoch': 2})}\n")
    assert [row["epoch"] for row in read_metrics(path)] == [1, 2]
    assert read_metrics(tmp_path / "none") == []


def test_the_panel_is_shown_pixel_by_pixel(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 3), np.uint8)
    logs, _ = open_logs(tmp_path)
    with logs:
        end(logs, 3, pictures)
    values = [(e.step, v) for e in events(tmp_path) for v in e.summary.value]
    shown = [(step, v) for step, v in values if v.HasField("image")]
    ((step, value),) = shown
    assert step == 3
    seen = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)).convert("RGB"))
    for picture in pictures:
        windows = np.lib.stride_tricks.sliding_window_view(seen, (8, 8, 3))[:, :, 0]
        assert (windows == picture).all((-1, -2, -3)).any()


@pytest.mark.parametrize("asked", [0, 2])
def test_a_trace_of_as_many_steps_as_asked(tmp_path: Path, asked: int) -> None:
    """The first steps, which compile, are left out; Perfetto reads gzipped trace events."""
    count = jax.jit(lambda x: x + 1)
    logs, _ = open_logs(tmp_path, profile=asked)
    with logs:
        for number in range(8):
            with jax.profiler.TraceAnnotation(f"step {number}"):
                count(number).block_until_ready()
            logs.step()
    traces = list(tmp_path.rglob("perfetto_trace.json.gz"))
    assert len(traces) == bool(asked)
    for trace in traces:
        recorded = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
        names = {event.get("name", "") for event in recorded}
        assert {name for name in names if name.startswith("step ")} == {"step 3", "step 4"}


def test_the_bar_says_that_the_first_step_compiles(tmp_path: Path) -> None:
    logs, _ = open_logs(tmp_path)
    said = []
    with logs:
        (bar,) = logs._progress.tasks
        for _ in range(4):
            said.append(bar.description)
            logs.step()
    first, second = "epoch 1/5", "epoch 2/5"
    assert [*said, bar.description] == ["compiling", first, first, second, second]
    with open_logs(tmp_path, done=5)[0] as logs:
        assert logs._progress.tasks[0].description == "finished"


def test_a_trace_ends_with_the_run(tmp_path: Path) -> None:
    logs, _ = open_logs(tmp_path, profile=100)
    with logs:
        for _ in range(5):
            logs.step()
    assert list(tmp_path.rglob("perfetto_trace.json.gz"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(RunError, match=f"^{tmp_path}: cannot be written .*--resume"):
        open_logs(tmp_path)


def test_other_processes_tell_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with NoLogs() as logs:
        logs.step()
        end(logs, 1, np.zeros((1, 4, 4, 3), np.uint8))
    assert logs.rows == []
    assert list(tmp_path.iterdir()) == []


def test_peak_memory_is_that_of_a_process() -> None:
    """More than Python with JAX needs, less than any machine has."""
    before = peak_memory()
    assert 0.1 < before < 1000
    ballast = np.ones(2**27, np.uint8)  # 1/8 GiB, touched
    assert peak_memory() >= before
    assert ballast[-1] == 1
