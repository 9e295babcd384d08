"""The maps of the spatial gates, walked through the network by hand, and their means."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax.evaluation.attention import gate_contrast, spatial_gates
from covid_jax.models import SCSE, ConvBlock, ResDil, SCSEUNet

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
