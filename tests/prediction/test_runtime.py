"""``predict --runtime``: the same masks by another runtime, and which one is taken."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covid_jax.errors import ConfigError
from covid_jax.files import cache_folder
from covid_jax.inference import Run, load_run
from covid_jax.prediction import runtime
from tests.support.bright_runs import predicted, read_picture, write_picture
from tests.support.synthetic import blob_dataset, tiny_config
from tests.support.tiny_runs import untrained_run

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "one"
    return untrained_run(tiny_config(), blob_dataset(), out).folder


def predict(folder: Path, out: Path, **options: Any) -> tuple[str, np.ndarray]:
    """The runtime that the summary names, and the mask."""
    picture = write_picture(out.parent / "a.png")
    predicted(load_run(folder), picture, out, **options)
    summary = json.loads((out / "a_summary.json").read_text())
    return summary["runtime"], read_picture(out / "a_mask.png")


def test_onnx_runtime_gives_the_masks_of_jax_from_a_graph_written_once(
    folder: Path, tmp_path: Path
) -> None:
    name, mask = predict(folder, tmp_path / "jax")
    assert name == "jax"
    assert 0.02 < (mask > 0).mean() < 0.98
    written = []
    for out in ("first", "second"):
        name, other = predict(folder, tmp_path / out, runtime="onnxruntime")
        assert name == "onnxruntime"
        assert (other != mask).mean() < 0.002  # rounding at the threshold
        graphs = cache_folder().glob("onnx/*/graph.bin")
        written.append([(path, path.stat().st_mtime_ns) for path in graphs])
    assert len(written[0]) == 1
    assert written[0] == written[1]


def test_a_damaged_graph_is_written_again(folder: Path, tmp_path: Path) -> None:
    """A changed weight would give other masks, a file cut short an error of the runtime."""
    _, mask = predict(folder, tmp_path / "first", runtime="onnxruntime")
    (path,) = cache_folder().glob("onnx/*/graph.bin")
    whole = path.read_bytes()
    middle = len(whole) // 2
    for k, damaged in enumerate(
        (b"", whole[:middle], whole[:middle] + b"\0" * (len(whole) - middle))
    ):
        path.write_bytes(damaged)
        _, again = predict(folder, tmp_path / f"damaged{k}", runtime="onnxruntime")
        np.testing.assert_array_equal(again, mask)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(("inverted", "taken"), [(False, "openvino"), (True, "jax")])
def test_auto_takes_openvino_if_its_masks_are_those_of_jax(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inverted: bool, taken: str
) -> None:
    calls = []

    def stand_in(run: Run, batch: int) -> runtime.Program:
        program = runtime._onnxruntime(run, batch)

        def call(images: np.ndarray) -> np.ndarray:
            calls.append(len(images))
            return 1 - program(images) if inverted else program(images)

        return call

    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(runtime, "_openvino", stand_in)
    name, mask = predict(folder, tmp_path / "auto", runtime="auto")
    assert name == taken
    assert calls == ([1] if inverted else [1, 1])  # compared; compared and used
    _, by_jax = predict(folder, tmp_path / "jax")
    assert (mask != by_jax).mean() < 0.002


def test_what_is_not_there_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    with pytest.raises(ConfigError, match=r'pip install "covid_jax\[openvino\]"'):
        predict(folder, tmp_path / "out", runtime="openvino")
    with pytest.raises(ImportError):  # OpenVINO would report its use to its vendor
        importlib.import_module("openvino_telemetry")
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    assert predict(folder, tmp_path / "auto", runtime="auto")[0] == "jax"


def test_onnx_runtime_does_not_claim_bfloat16(folder: Path, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "a.png")
    low = load_run(folder, precision="bfloat16")
    with pytest.raises(ConfigError, match="--precision float32"):
        predicted(low, picture, tmp_path / "out", runtime="onnxruntime")
