"""export_run: whole outputs or none, nothing overwritten, and what is missing is named."""

import sys
from pathlib import Path
from typing import Any

import pytest

from covid_jax.errors import ConfigError, RunError
from covid_jax.export import export_run
from covid_jax.inference import Run
from covid_jax.runs.config import ModelConfig
from tests.support.exported import made_run
from tests.support.synthetic import TINY

LIBRARIES = {"onnx": "onnx", "stablehlo": "flatbuffers", "bundle": "safetensors"}


@pytest.fixture(scope="module")
def run() -> Run:
    return made_run(ModelConfig(features=TINY))


def held(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("format", "name"),
    [("onnx", "net"), ("stablehlo", "net"), ("stablehlo", "net.json"), ("bundle", "net")],
)
def test_what_is_there_is_never_overwritten(
    run: Run, tmp_path: Path, format: Any, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match=rf"{name}: exists already; choose another -o"):
        export_run(run, format, tmp_path / "net")
    assert held(tmp_path) == {name: "mine"}


@pytest.mark.parametrize("format", LIBRARIES)
def test_a_place_that_cannot_be_written_is_named(run: Run, tmp_path: Path, format: Any) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"net: cannot be written \(Not a directory|File exists"):
        export_run(run, format, tmp_path / "file/net")
    assert held(tmp_path) == {"file": "mine"}


@pytest.mark.usefixtures("unchecked_annotations")
def test_an_unknown_format_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="--format tflite: expected one of bundle, stablehlo, onnx"
    ):
        export_run(run, "tflite", tmp_path / "net")  # type: ignore[arg-type]


@pytest.mark.parametrize(("format", "library"), [*LIBRARIES.items()][:2])  # of the extra
def test_a_missing_library_names_its_extra(
    run: Run, tmp_path: Path, format: Any, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf'needs {library}: pip install "covid_jax\[export\]"'):
        export_run(run, format, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("format", "library"), LIBRARIES.items())
def test_what_fails_on_the_way_leaves_nothing(
    run: Run, tmp_path: Path, format: Any, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full once the file is open. (Bundles read the split first; this run has none.)"""
    pytest.importorskip(library, reason="the extra `export`")

    def full(path: Path, *_: Any, **__: Any) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("covid_jax.export.bundle._record", lambda run: {})
    for method in ("write_bytes", "write_text"):
        monkeypatch.setattr(Path, method, full)
    with pytest.raises(RunError, match=r"net: cannot be written \(No space left on device\)"):
        export_run(run, format, tmp_path / "net")
    assert list(tmp_path.iterdir()) == []
