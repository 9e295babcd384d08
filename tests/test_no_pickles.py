"""No pickle is ever loaded: whoever wrote it would run a program of theirs."""

import ast
from pathlib import Path

import numpy as np
import pytest

import covid_jax
from tests.support.damage_places import KINDS

PICKLING = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "torch"}


def pickling(code: str) -> list[str]:
    """What in a program might load a pickle; numpy does where somebody says allow_pickle."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in PICKLING]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").split(".")[0] in PICKLING else []
        elif isinstance(node, ast.Attribute):
            found += [node.attr] if node.attr in ("read_pickle",) else []
        elif isinstance(node, ast.keyword):
            found += [node.arg] if node.arg == "allow_pickle" else []
        elif isinstance(node, ast.Constant):
            found += [node.value] if node.value in PICKLING else []  # import_module("pickle")
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import torch.serialization as t",
        "np.load(path, allow_pickle=True)",
        "pandas.read_pickle(path)",
        "importlib.import_module('pickle')",
    ],
)
def test_pickles_are_found(code: str) -> None:
    assert len(pickling(code)) == 1


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name)
        for path in sorted(Path(covid_jax.__file__).parent.rglob("*.py"))
    ],
)
def test_the_package_loads_none(path: Path) -> None:
    assert pickling(path.read_text(encoding="utf-8")) == []


def test_the_traps_of_damaged_datasets_do_spring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they plant in the place of images and masks runs, were it loaded."""
    monkeypatch.chdir(tmp_path)
    KINDS["nifti"]["an array of pickles"].harm(np.random.default_rng(0), tmp_path / "planted")
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(tmp_path / "planted")
    assert not (tmp_path / "sprung").exists()
    np.load(tmp_path / "planted", allow_pickle=True)
    assert (tmp_path / "sprung").is_dir()
