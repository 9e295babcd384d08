"""A run as StableHLO: a process that cannot import covid_jax computes the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.export
import numpy as np
import pytest

pytest.importorskip("flatbuffers", reason="jax.export needs flatbuffers: the extra `export`")

from covid_jax.export import export_run
from covid_jax.inference import Run
from covid_jax.runs.config import ModelConfig
from covid_jax.transforms.preprocessing import Normalization, pack
from tests.support.exported import FOUR_LEVELS, chest, made_run, raw
from tests.support.synthetic import KINDS, SIZE, TINY

ELSEWHERE = """
import sys
sys.modules["covid_jax"] = sys.modules["flax"] = None  # importing either fails from here on
import jax, jax.export, numpy as np
program = jax.export.deserialize(open(sys.argv[1], "rb").read())
images = np.load(sys.argv[2])
np.savez(sys.argv[3], all=program.call(images), one=program.call(images[:1]))
assert not [name for name in sys.modules if name.startswith("covid_jax.")]
"""


class Exported(NamedTuple):
    run: Run
    path: Path
    notes: dict


def export(run: Run, folder: Path) -> Exported:
    path, notes = export_run(run, "stablehlo", folder / "network.stablehlo")
    return Exported(run, path, json.loads(notes.read_text()))


def call(path: Path, images: np.ndarray) -> np.ndarray:
    return np.asarray(jax.export.deserialize(bytearray(path.read_bytes())).call(images[..., None]))


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    run = made_run(ModelConfig(features=FOUR_LEVELS), classes=3)
    return export(run, tmp_path_factory.mktemp("three"))


@pytest.fixture(scope="module")
def one_class(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(made_run(ModelConfig(features=TINY)), tmp_path_factory.mktemp("one"))


def test_it_runs_where_covid_jax_is_not(three_classes: Exported, tmp_path: Path) -> None:
    """And takes any batch."""
    slices = chest(3)
    np.save(tmp_path / "images.npy", raw(slices)[..., None])
    files = [three_classes.path, tmp_path / "images.npy", tmp_path / "maps.npz"]
    command = [sys.executable, "-c", ELSEWHERE, *map(str, files)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    maps = np.load(tmp_path / "maps.npz")
    expected = three_classes.run.predict_network(slices)
    assert expected.shape == (3, SIZE, SIZE, 4)
    np.testing.assert_allclose(maps["all"], expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(maps["one"], expected[:1], rtol=0, atol=1e-4)


def test_it_is_for_processors_and_nvidia(three_classes: Exported) -> None:
    program = jax.export.deserialize(bytearray(three_classes.path.read_bytes()))
    assert program.platforms == ("cpu", "cuda")
    assert [str(side) for side in program.in_avals[0].shape] == ["batch", "32", "32", "1"]


def test_its_constants_lie_beside_it(three_classes: Exported, one_class: Exported) -> None:
    notes = three_classes.notes
    assert "Research use only" in notes["use"]
    assert notes["channels"] == ["background", *KINDS]
    assert notes["input_shape"] == ["batch", SIZE, SIZE, 1]
    assert notes["output_shape"] == ["batch", SIZE, SIZE, 4]
    assert (notes["epoch"], notes["data_fingerprint"]) == (7, "f00d")
    assert (notes["platforms"], notes["jax"]) == (["cpu", "cuda"], jax.__version__)
    assert one_class.notes["channels"] == ["lesion"]
    assert one_class.notes["output_shape"] == ["batch", SIZE, SIZE, 1]


def test_one_class_and_constant_slices_agree(one_class: Exported) -> None:
    flat = [np.full((SIZE, SIZE), value, np.float32) for value in (0.0, -1000.0, 30000.1)]
    slices = pack([*flat, raw(chest(1))[0]], SIZE)
    expected = one_class.run.predict_network(slices)
    np.testing.assert_allclose(call(one_class.path, raw(slices)), expected, rtol=0, atol=1e-5)


def test_a_z_score_takes_any_unit_and_offset(one_class: Exported) -> None:
    images = raw(chest())
    expected = call(one_class.path, images)
    for scale, offset in ((1, 1024), (100, -7e4), (1e-3, 0)):
        moved = (scale * images + offset).astype(np.float32)
        np.testing.assert_allclose(call(one_class.path, moved), expected, rtol=0, atol=1e-4)


def test_a_small_spread_far_from_zero_is_not_lost(one_class: Exported) -> None:
    images = (0.01 * raw(chest()) + 4e4).astype(np.float32)
    expected = one_class.run.predict_network(pack(list(images), SIZE))
    np.testing.assert_allclose(call(one_class.path, images), expected, rtol=0, atol=3e-4)


@pytest.mark.parametrize(
    "normalization",
    [Normalization(-650.0, 220.0), Normalization(-600.0, 300.0, clip=True)],
    ids=["dataset", "window"],
)
def test_normalization_is_inside(normalization: Normalization, tmp_path: Path) -> None:
    run = made_run(ModelConfig(features=TINY), normalization=normalization)
    found = call(export(run, tmp_path).path, raw(chest()))
    np.testing.assert_allclose(found, run.predict_network(chest()), rtol=0, atol=1e-5)


def test_the_precision_is_the_runs(one_class: Exported, tmp_path: Path) -> None:
    low = export(made_run(ModelConfig(features=TINY, precision="bfloat16")), tmp_path)
    assert (one_class.notes["precision"], low.notes["precision"]) == ("float32", "bfloat16")
    for path, inside in ((one_class.path, False), (low.path, True)):
        program = jax.export.deserialize(bytearray(path.read_bytes()))
        assert ("bf16" in program.mlir_module()) is inside
        assert program.out_avals[0].dtype == np.float32


@pytest.mark.parametrize("scale", [1e-30, 1e19, 1e30, 1e35])
def test_any_unit_that_float32_holds_will_do(one_class: Exported, scale: float) -> None:
    """Squares of such values leave float32."""
    images = (scale * raw(chest())).astype(np.float32)
    expected = one_class.run.predict_network(pack(list(images), SIZE))
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(call(one_class.path, images), expected, rtol=0, atol=1e-4)


def test_it_names_no_file_and_is_the_same_each_time(one_class: Exported, tmp_path: Path) -> None:
    one_class.run.predict_network(chest())  # traced before, with its paths
    path = export(one_class.run, tmp_path).path
    program = path.read_bytes()
    assert program == one_class.path.read_bytes()
    for text in (b".py", b"covid_jax", b"packages", str(Path.home()).encode() + b"/"):
        assert text not in program
