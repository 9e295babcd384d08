"""The spatial gates, walked through the network by hand; their means, maps and the command."""

import json
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.experiments import attention
from benchmarks.experiments.attention import attention_figure, gate_contrast, spatial_gates
from covid_jax.models import SCSE, ConvBlock, ResDil, SCSEUNet
from covid_jax.reporting.figures import save_figure
from covid_jax.runs.config import ModelConfig
from tests.support.scored import by_hand
from tests.support.synthetic import blob_dataset, tiny_config
from tests.support.tiny_runs import untrained_run

FEATURES = (4, 6, 8)
PLACES = {
    "encoder_decoder": ["encoder1", "encoder2", "encoder3", "decoder2", "decoder1"],
    "skip": ["encoder1", "encoder2"],
    "none": [],
}


@pytest.fixture(autouse=True)
def plain_float32():
    """No TF32 where the tests run on a GPU."""
    with jax.default_matmul_precision("highest"):
        yield


def walk(mode: str, params: Any, images: jax.Array) -> dict[str, jax.Array]:
    """What each scSE is given, level by level as in the paper's Fig. 2."""
    given, skips, x = {}, [], images

    def block(module: Any, name: str, x: jax.Array) -> jax.Array:
        return module.apply({"params": params[name]}, x)

    for level, features in enumerate(FEATURES, start=1):
        x = block(ConvBlock(features, strides=min(level, 2)), f"encoder{level}_conv", x)
        x = skip = block(ResDil(), f"encoder{level}_resdil", x)
        if f"encoder{level}" in PLACES[mode]:
            given[f"encoder{level}"] = x
            skip = block(SCSE(), f"encoder{level}_scse", x)
            x = x if mode == "skip" else skip
        skips.append(skip)
    for level in (2, 1):
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        x = block(ConvBlock(FEATURES[level - 1]), f"decoder{level}_up", x)
        x = jnp.concatenate([skips[level - 1], x], axis=-1)
        x = block(ConvBlock(FEATURES[level - 1]), f"decoder{level}_merge", x)
        x = block(ResDil(), f"decoder{level}_resdil", x)
        if f"decoder{level}" in PLACES[mode]:
            given[f"decoder{level}"] = x
            x = block(SCSE(), f"decoder{level}_scse", x)
    return given


@pytest.mark.parametrize("mode", PLACES)
def test_gates_are_the_sigmoid_of_what_the_block_was_given(mode: Any) -> None:
    """sigmoid(z . w) at every pixel, on the level's own grid, in the order of the network."""
    model = SCSEUNet(features=FEATURES, attention=mode)
    images = jax.random.normal(jax.random.key(1), (2, 16, 16, 1))
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    gates = spatial_gates(model, params, images)
    assert list(gates) == PLACES[mode]
    for place, z in jax.jit(lambda p, x: walk(mode, p, x))(params, images).items():
        weights = np.asarray(params[f"{place}_scse"]["spatial"])[:, 0]
        expected = 1 / (1 + np.exp(-np.einsum("bhwc,c->bhw", np.asarray(z), weights)))
        side = 16 // 2 ** (int(place[-1]) - 1)
        assert gates[place].shape == (2, side, side)
        np.testing.assert_allclose(gates[place], expected, atol=2e-5)
        assert gates[place].std() > 0.01


def test_bfloat16_gives_gates_of_float32() -> None:
    model = SCSEUNet(features=(4, 6), attention="skip", dtype=jnp.bfloat16)
    images = jax.random.normal(jax.random.key(1), (1, 16, 16, 1))
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    (gate,) = spatial_gates(model, params, images).values()
    assert gate.dtype == np.float32
    (exact,) = spatial_gates(model.clone(dtype=jnp.float32), params, images).values()
    np.testing.assert_allclose(gate, exact, atol=0.05)


def test_the_contrast_is_the_mean_over_lesion_and_over_the_rest() -> None:
    """Two slices of 4 x 4; the gate of 2 x 2 counts for four pixels each."""
    gates = {
        "fine": np.arange(32.0).reshape(2, 4, 4) / 32,
        "coarse": np.array([[[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.6], [0.7, 0.8]]]),
    }
    masks = np.zeros((2, 4, 4), np.uint8)
    masks[0, 0, 1] = 1  # in the first coarse pixel
    masks[0, 1, 2] = 2  # in the second
    masks[1, 3, 3] = 1  # in the second slice's last
    found = gate_contrast(gates, masks)
    assert found["fine"]["lesion"] == pytest.approx((1 + 6 + 31) / 32 / 3)
    rest = (sum(range(32)) - 1 - 6 - 31) / 32 / 29
    assert found["fine"]["background"] == pytest.approx(rest)
    assert found["coarse"]["lesion"] == pytest.approx((0.1 + 0.2 + 0.8) / 3)
    assert found["coarse"]["background"] == pytest.approx((4 * 3.6 - 1.1) / 29)


def test_the_contrast_of_nothing_is_none() -> None:
    gates = {"fine": np.full((1, 4, 4), 0.25)}
    clean = gate_contrast(gates, np.zeros((1, 4, 4), np.uint8))["fine"]
    assert clean["lesion"] is None
    assert clean["background"] == 0.25
    assert gate_contrast(gates, np.ones((1, 4, 4), np.uint8))["fine"]["background"] is None


def drawing(masks: np.ndarray, gates: int) -> Any:
    """Gates of these slices: 0, 0.1, ... all over the first, 0.06 more over each other one."""
    more = 0.06 * np.arange(len(masks))[:, None, None]
    maps = {f"level{i}": i / 10 + more + np.zeros((1, 4, 4)) for i in range(gates)}
    images = [np.arange(64.0).reshape(8, 8) for _ in masks]
    return attention_figure(images, masks, maps, gate_contrast(maps, masks))


@pytest.mark.parametrize(("slices", "gates"), [(1, 1), (2, 4), (2, 9)])
def test_each_slice_stands_beside_each_of_its_gates(slices: int, gates: int) -> None:
    masks = np.zeros((slices, 8, 8), np.uint8)
    masks[:, 2:4, 2:4] = 1
    axes = [axis for axis in drawing(masks, gates).axes if axis.images]
    assert len(axes) == slices * (gates + 1)
    for number in range(slices):
        first, *places = axes[number * (gates + 1) : (number + 1) * (gates + 1)]
        assert "lesion" in first.get_title()
        for i, axis in enumerate(places):
            shown = axis.images[0]
            np.testing.assert_allclose(np.asarray(shown.get_array()), i / 10 + 0.06 * number)
            assert shown.get_clim() == (0, 1)  # one scale for all
            mean = f"{i / 10 + 0.03 * (slices - 1):.2f}"
            assert axis.get_title() == f"level{i}\nlesion {mean}, rest {mean}"


@pytest.mark.parametrize("value", [0, 1])
def test_slices_all_or_nothing_of_which_is_lesion_are_drawn_in_silence(
    tmp_path: Path, value: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = drawing(np.full((2, 8, 8), value, np.uint8), 2)
        save_figure(figure, tmp_path / "gates.png")
    titles = {axis.get_title().split("\n")[-1] for axis in figure.axes if axis.images}
    assert ("lesion none, rest 0.13" if value == 0 else "lesion 0.13, rest none") in titles


def test_the_command_writes_the_means_and_draws_the_extremes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means over all twelve slices at the network's size; the slices of best and worst Dice."""
    dataset = blob_dataset()
    run = untrained_run(tiny_config(), dataset, tmp_path / "run")
    monkeypatch.setattr(attention, "open_data", lambda *_: dataset)
    out, picture = tmp_path / "gates.json", tmp_path / "gates.png"
    attention.main(f"{run.folder} --subset all --out {out} --picture {picture}".split())
    images, masks = dataset.network
    raw = images.low[:, None, None] + images.step[:, None, None] * images.codes
    raw -= raw.mean((1, 2), keepdims=True)
    raw /= raw.std((1, 2), keepdims=True)
    gates = spatial_gates(run.model, run.params, raw[..., None])
    found = json.loads(out.read_text())
    assert found["slices"] == 12
    assert list(found["gates"]) == list(gates) == ["encoder1", "encoder2", "decoder1"]
    for name in ("encoder1", "decoder1"):
        means = found["gates"][name]
        assert means["lesion"] == pytest.approx(gates[name][masks > 0].mean(), abs=1e-5)
        assert means["background"] == pytest.approx(gates[name][masks == 0].mean(), abs=1e-5)
    logits = run.model.apply({"params": run.params}, raw[..., None])[..., 0]
    pairs = zip(np.asarray(logits) > 0, masks > 0, strict=True)
    dices = [by_hand(*pair)["dice"] for pair in pairs]
    ids = [item.id for item in dataset.slices]
    assert found["shown"] == [ids[np.argmax(dices)], ids[np.argmin(dices)]]
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_a_network_without_attention_has_nothing_to_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(model=ModelConfig(features=(4, 8), attention="none"))
    run = untrained_run(config, blob_dataset(), tmp_path / "run")
    monkeypatch.setattr(attention, "open_data", lambda *_: blob_dataset())
    with pytest.raises(SystemExit, match="no attention"):
        attention.main([str(run.folder), "--out", "x.json", "--picture", "x.png"])
