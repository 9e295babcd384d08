"""The scripts of docs/deploy.md, as they stand, where no covid_jax and no jax can be imported."""

import dataclasses
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnx", reason="writing ONNX needs onnx: the extra `export`")

from covid_jax.export import export_run
from covid_jax.inference import Run
from covid_jax.io.nifti import read_stack
from covid_jax.runs.config import ModelConfig
from tests.support.exported import made_run
from tests.support.synthetic import SIZE, TINY

PAGE = (Path(__file__).parents[2] / "docs/deploy.md").read_text(encoding="utf-8")
SCRIPTS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
WITHOUT = """
import runpy, sys
sys.modules["covid_jax"] = sys.modules["jax"] = sys.modules["flax"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SEGMENT = [
    ("segment_onnxruntime.py", "onnxruntime", ()),
    ("segment_openvino.py", "openvino", ("f32",)),
]


@pytest.fixture(scope="module")
def run() -> Run:
    return made_run(ModelConfig(features=TINY))


def skip_without(*libraries: str) -> None:
    """They are not imported here: OpenVINO's telemetry forks, of which JAX warns."""
    if missing := [name for name in libraries if find_spec(name) is None]:
        pytest.skip(f"the script needs {', '.join(missing)}: the group `bench`")


def execute(folder: Path, script: str, *words: str) -> None:
    (folder / script).write_text(SCRIPTS[script])
    command = [sys.executable, "-c", WITHOUT, script, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def assert_same_lesion(mask: np.ndarray, expected: np.ndarray) -> None:
    """But for pixels so near to the threshold that rounding decides."""
    sure = np.abs(expected - 0.5) > 1e-3
    assert mask.dtype == np.uint8
    assert sure.mean() > 0.9
    assert 0.05 < mask.mean() < 0.95
    np.testing.assert_array_equal(mask[sure], (expected > 0.5)[sure])


@pytest.mark.parametrize(("script", "library", "words"), SEGMENT)
def test_scripts_segment_pictures_and_volumes(
    script: str, library: str, words: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    """The volume is stored feet first, from the back, columns before rows, and tilted."""
    skip_without(library)
    export_run(run, "onnx", tmp_path / "net.onnx")
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 50)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "in.png")
    execute(tmp_path, script, "net.onnx", "in.png", "out.png", *words)
    assert_same_lesion(np.asarray(Image.open(tmp_path / "out.png")), run.predict(picture))

    deep = rng.integers(0, 4096, (40, 50)).astype(np.uint16)  # beyond 8 bits: not to be clipped
    Image.fromarray(deep).save(tmp_path / "deep.png")
    execute(tmp_path, script, "net.onnx", "deep.png", "out.png", *words)
    assert_same_lesion(np.asarray(Image.open(tmp_path / "out.png")), run.predict(deep))

    affine = np.array([[0, 1.5, 0.2, 9], [-2, 0, 0, 8], [0, -0.3, 3, -7], [0, 0, 0, 1.0]])
    for code, shape in ((2, (36, 44, 3)), (0, (36, 44, 3, 1))):  # without a place: as stored
        volume = nib.Nifti1Image(rng.normal(-700, 200, shape).astype(np.int16), affine)
        volume.set_sform(affine, code)
        nib.save(volume, tmp_path / "in.nii.gz")
        execute(tmp_path, script, "net.onnx", "in.nii.gz", "out.nii.gz", *words)
        written = nib.load(tmp_path / "out.nii.gz")
        assert written.shape == shape[:3]
        if code:
            np.testing.assert_allclose(written.affine, affine, atol=1e-6)
        seen, geometry = read_stack(tmp_path / "in.nii.gz")
        found = geometry.to_stack(np.asarray(written.dataobj))
        assert_same_lesion(np.asarray(found), run.predict(seen))


@pytest.mark.slow
def test_eight_bits_see_nearly_the_same(run: Run, tmp_path: Path) -> None:
    skip_without("nncf", "openvino")
    export_run(run, "onnx", tmp_path / "net.onnx")
    (tmp_path / "slices").mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        picture = Image.fromarray(rng.integers(0, 256, (SIZE, SIZE)).astype(np.uint8))
        picture.save(tmp_path / f"slices/{number}.png")
    execute(tmp_path, "quantize.py", "net.onnx", "slices", "small.xml")
    words = ("small.xml", "slices/0.png", "out.png", "f32")
    execute(tmp_path, "segment_openvino.py", *words)
    picture = np.asarray(Image.open(tmp_path / "slices/0.png"))
    same = np.asarray(Image.open(tmp_path / "out.png")) == (run.predict(picture) > 0.5)
    assert same.mean() > 0.9


def test_a_network_that_needs_the_lungs_box_is_refused(tmp_path: Path) -> None:
    skip_without("onnxruntime")
    network = made_run(ModelConfig(features=TINY))
    data = dataclasses.replace(network.config.data, crop="lungs", intensity="lung")
    network.config = dataclasses.replace(network.config, data=data)
    export_run(network, "onnx", tmp_path / "net.onnx")
    with pytest.raises(AssertionError, match=r"cannot prepare the input: .* lungs' box"):
        execute(tmp_path, "segment_onnxruntime.py", "net.onnx", "in.png", "out.png")
