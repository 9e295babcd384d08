"""A run as ONNX: ONNX Runtime gives what covid_jax gives, for every option of the network."""

import dataclasses
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx", reason="writing ONNX needs onnx: the extra `export`")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="running ONNX needs onnxruntime: the extra `test`"
)

from covid_jax.export import export_run  # noqa: E402
from covid_jax.export.onnx_graph import doubled  # noqa: E402
from covid_jax.inference import Run  # noqa: E402
from covid_jax.runs.config import ModelConfig  # noqa: E402
from covid_jax.transforms.preprocessing import Normalization, QuantizedSlices, pack  # noqa: E402
from tests.support import drawn_chest  # noqa: E402
from tests.support.exported import FOUR_LEVELS, chest, made_run, raw  # noqa: E402
from tests.support.synthetic import KINDS, SIZE, TINY  # noqa: E402

AGREE = 1e-4

OPTIONS: dict[str, tuple[dict[str, Any], int]] = {
    "encoder_decoder": ({"features": FOUR_LEVELS}, 1),  # the fourth level has no head
    "skip": ({"features": (4, 8, 12), "attention": "skip"}, 1),
    "none, relu": ({"features": (4, 8), "attention": "none", "negative_slope": 0.0}, 1),
    "three classes": ({"features": (4, 8, 12), "negative_slope": 0.01}, 3),
    "two levels": ({"features": TINY}, 1),
    "five levels": ({"features": (4, 4, 4, 4, 4), "attention": "none"}, 1),
    "odd and narrowing widths": ({"features": (7, 3), "attention": "encoder_decoder"}, 1),
}


@functools.cache
def built(option: str) -> tuple[Run, bytes]:
    """One network compiled and exported for several tests."""
    model, classes = OPTIONS[option]
    run = made_run(ModelConfig(**model), classes)
    return run, exported(run)


def exported(run: Run) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        (path,) = export_run(run, "onnx", Path(folder, "network.onnx"))
        return path.read_bytes()


def probabilities(file: bytes, images: np.ndarray) -> np.ndarray:
    """What ONNX Runtime computes from slices (N, S, S), channels last."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"image": images[:, None]})
    return found.transpose(0, 2, 3, 1)


def assert_agree(run: Run, file: bytes, slices: QuantizedSlices, tolerance: float = AGREE) -> None:
    expected = run.predict_network(slices)
    found = probabilities(file, raw(slices))
    assert found.dtype == np.float32
    assert np.ptp(expected) > 0.1  # no flat map, with which anything might agree
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_the_network_agrees(option: str) -> None:
    run, file = built(option)
    assert_agree(run, file, chest(3))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_agrees_on_real_slices(option: str, real_data: Path) -> None:
    run, file = built(option)
    folder = real_data / "covid_semiseg/TestingSet/LungInfection-Test/Imgs"
    paths = sorted(folder.iterdir())[:3]
    assert len(paths) == 3
    images = [np.asarray(Image.open(path).convert("L")) for path in paths]
    assert_agree(run, file, pack(images, SIZE))


@pytest.mark.parametrize(
    "normalization",
    [Normalization(-650.0, 220.0), Normalization(-600.0, 300.0, clip=True)],
    ids=["dataset", "window"],
)
def test_normalization_is_inside(normalization: Normalization) -> None:
    run = made_run(ModelConfig(features=TINY), normalization=normalization)
    images = raw(chest())
    assert images.min() < -900
    assert images.max() > -300
    assert_agree(run, exported(run), chest())


def test_a_program_starts_at_the_cropped_slice_on_the_lung_grey_scale() -> None:
    """The box and the grey scale come before it, and its constants say so; then it agrees."""
    run = made_run(ModelConfig(features=TINY), normalization=Normalization(0.45, 0.65))
    data = dataclasses.replace(run.config.data, crop="lungs", intensity="lung")
    run.config = dataclasses.replace(run.config, data=data)
    stack = drawn_chest.chest()
    seen = pack(list(stack), SIZE, run.input_form(stack).slices)
    assert seen.decode().max() <= 1.1
    file = exported(run)
    assert_agree(run, file, seen)
    (said,) = [p.value for p in onnx.load_from_string(file).metadata_props if p.key == "input"]
    assert "cropped to the lungs' box" in said
    assert "0 is aerated lung (-860 HU), 1 is soft tissue (40 HU)" in said


def test_a_z_score_takes_any_unit_and_offset() -> None:
    """Stored values of 1024 above HU, or a hundred times as large, are the same picture."""
    _, file = built("two levels")
    images = raw(chest())
    expected = probabilities(file, images)
    for scale, offset in ((1, 1024), (100, -7e4), (1e-3, 0)):
        found = probabilities(file, (scale * images + offset).astype(np.float32))
        np.testing.assert_allclose(found, expected, rtol=0, atol=AGREE)


@pytest.mark.parametrize("value", [0.0, -1000.0, 30000.1])
def test_a_constant_slice_is_one_of_zeros(value: float) -> None:
    """As in covid_jax, not a division by rounding; its neighbour in the batch is not touched."""
    run, file = built("two levels")
    images = np.full((3, SIZE, SIZE), value, np.float32)
    images[1, 3, 4] += 1e-6 * abs(value)  # the last of float32's digits
    images[2] = raw(chest(1))[0]
    expected = run.predict_network(pack(list(images), SIZE))
    np.testing.assert_array_equal(expected[0], expected[1])
    np.testing.assert_allclose(probabilities(file, images), expected, rtol=0, atol=AGREE)


def test_a_small_spread_far_from_zero_is_not_lost() -> None:
    """The mean of 4e4 and a spread of 3 is rounded; at 512 x 512 that would decide every pixel."""
    run, file = built("two levels")
    images = (0.01 * raw(chest()) + 4e4).astype(np.float32)
    expected = run.predict_network(pack(list(images), SIZE))
    np.testing.assert_allclose(probabilities(file, images), expected, rtol=0, atol=3e-4)


def test_the_batch_is_free_and_slices_do_not_mix() -> None:
    _, file = built("encoder_decoder")
    images = raw(chest(5))
    together = probabilities(file, images)
    for image, expected in zip(images, together, strict=True):
        np.testing.assert_allclose(probabilities(file, image[None])[0], expected, atol=1e-6)


def test_a_run_in_bfloat16_is_exported_in_float32() -> None:
    _, file = built("two levels")
    low = made_run(ModelConfig(features=TINY, precision="bfloat16"))
    np.testing.assert_array_equal(
        probabilities(exported(low), raw(chest())), probabilities(file, raw(chest()))
    )


@pytest.mark.slow
def test_full_width_agrees() -> None:
    """The paper's channels, where sums are longest."""
    run = made_run(ModelConfig())
    file = exported(run)
    assert 52e6 < len(file) < 60e6  # 13 million numbers, and the taps that doubling adds
    assert_agree(run, file, chest(1))


def test_the_file_says_what_it_is() -> None:
    _, file = built("three classes")
    model = onnx.load_from_string(file)
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    assert "Research use only" in model.doc_string
    notes = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    assert "Research use only" in notes["use"]
    assert notes["channels"] == ["background", *KINDS]
    assert notes["image_size"] == SIZE
    assert notes["threshold"] == 0.5
    assert (notes["epoch"], notes["data_fingerprint"]) == (7, "f00d")
    assert notes["normalization"]["inside"] is True
    assert notes["normalization"]["mean"] is None
    (image,), (output,) = model.graph.input, model.graph.output
    for value, channels in ((image, 1), (output, 4)):
        dims = value.type.tensor_type.shape.dim
        assert [d.dim_param or d.dim_value for d in dims] == ["batch", channels, SIZE, SIZE]
    assert {entry.domain for entry in model.graph.node} == {""}
    parts = list(dict.fromkeys(entry.name.split("/")[0] for entry in model.graph.node))
    assert parts[:3] == ["normalization", "encoder1_conv", "encoder1_resdil.first"]
    assert parts[-3:] == ["decoder1_scse", "head1", "probabilities"]


def test_one_class_has_its_name() -> None:
    _, file = built("two levels")
    notes = {p.key: json.loads(p.value) for p in onnx.load_from_string(file).metadata_props}
    assert notes["channels"] == ["lesion"]


def test_doubling_a_single_tap_by_hand() -> None:
    """The centre tap alone repeats pixels 2 x 2; the first reaches one output further on."""
    for (row, column), corner in (((1, 1), (1, 1)), ((0, 0), (2, 2)), ((2, 1), (0, 1))):
        kernel = np.zeros((3, 3, 1, 1))
        kernel[row, column] = 5.0
        expected = np.zeros((4, 4))
        expected[corner[0] : corner[0] + 2, corner[1] : corner[1] + 2] = 5.0
        np.testing.assert_array_equal(doubled(kernel)[..., 0, 0], expected)


@pytest.mark.parametrize("scale", [1e-30, 1e19, 1e30, 1e35])
def test_any_unit_that_float32_holds_will_do(scale: float) -> None:
    """Squares of such values leave float32."""
    run, file = built("two levels")
    images = (scale * raw(chest())).astype(np.float32)
    expected = run.predict_network(pack(list(images), SIZE))
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(probabilities(file, images), expected, rtol=0, atol=1e-4)


def test_a_file_is_the_same_each_time() -> None:
    run, file = built("two levels")
    assert exported(run) == file
