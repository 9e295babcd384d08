"""The scSE gates against arithmetic done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike

from covid_jax.models import SCSE, channel_se, spatial_se

LOG3 = np.log(3.0)  # sigmoid(log 3) = 3/4, sigmoid(-log 3) = 1/4

# Two slices of 2 x 2 pixels and two channels.
Z = np.stack(
    [
        np.stack(
            [[[1, 2], [3, 6]], [[0, 0], [0, -4]]], axis=-1
        ),  # means (1+2+3+6)/4 = 3, -4/4 = -1
        np.stack([[[0, 1], [0, -1]], [[-1, -1], [-1, -1]]], axis=-1),  # means 0, -1
    ]
).astype(np.float32)

SQUEEZE = np.float32([[1], [2]])  # slice 0: relu(3 - 2) = 1;  slice 1: relu(0 - 2) = 0
EXCITE = np.float32([[LOG3, -LOG3]])  # slice 0: log 3, -log 3;  slice 1: 0, 0
CHANNEL_GATES = np.array([[3 / 4, 1 / 4], [1 / 2, 1 / 2]])

SPATIAL = np.float32([[LOG3], [LOG3 / 2]])
SPATIAL_GATES = np.array(
    [  # sigmoid(log(3) (z0 + z1 / 2)) = 1 / (1 + 3 ** -(z0 + z1 / 2))
        [[1 / (1 + 3**-1), 1 / (1 + 3**-2)], [1 / (1 + 3**-3), 1 / (1 + 3 ** -(6 - 4 / 2))]],
        [[1 / (1 + 3**0.5), 1 / (1 + 3**-0.5)], [1 / (1 + 3**0.5), 1 / (1 + 3**1.5)]],
    ]
)

PARAMS = jax.tree.map(jnp.asarray, {"squeeze": SQUEEZE, "excite": EXCITE, "spatial": SPATIAL})


@pytest.fixture(autouse=True)
def plain_float32():
    """No TF32 where the tests run on a GPU."""
    with jax.default_matmul_precision("highest"):
        yield


def test_channel_se_by_hand() -> None:
    """Gates from each slice's own channel means, through the ReLU, on all of a channel's pixels."""
    gated = channel_se(jnp.asarray(Z), jnp.asarray(SQUEEZE), jnp.asarray(EXCITE))
    np.testing.assert_allclose(gated, Z * CHANNEL_GATES[:, None, None, :], rtol=1e-6)


def test_spatial_se_by_hand() -> None:
    """Gates from each pixel's own channels, on all of a pixel's channels."""
    gated = spatial_se(jnp.asarray(Z), jnp.asarray(SPATIAL))
    np.testing.assert_allclose(gated, Z * SPATIAL_GATES[..., None], rtol=1e-6)


def test_scse_is_the_sum_of_both() -> None:
    """Eq. 7: Zc + Zs; neither their maximum nor their mean."""
    out = SCSE().apply({"params": PARAMS}, jnp.asarray(Z))
    expected = Z * (CHANNEL_GATES[:, None, None, :] + SPATIAL_GATES[..., None])
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_zero_weights_return_the_input_exactly(dtype: DTypeLike) -> None:
    """Both gates are 1/2, and z/2 + z/2 = z in every binary format."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 8)), dtype)
    shapes = {"squeeze": (8, 4), "excite": (4, 8), "spatial": (8, 1)}
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    out = SCSE(dtype=dtype).apply({"params": params}, z)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, z)


@pytest.mark.parametrize(("reduction", "bottleneck"), [(2, 16), (4, 8)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_parameters(reduction: int, bottleneck: int, dtype: DTypeLike) -> None:
    """C -> C/r -> C and C -> 1, without biases, in float32 whatever the computation's dtype is."""
    scse = SCSE(reduction=reduction, dtype=dtype)
    z = jax.ShapeDtypeStruct((1, 4, 4, 32), jnp.float32)
    params = jax.eval_shape(scse.init, jax.random.key(0), z)["params"]
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in params.items()} == {
        "squeeze": ((32, bottleneck), jnp.float32),
        "excite": ((bottleneck, 32), jnp.float32),
        "spatial": ((32, 1), jnp.float32),
    }


@pytest.mark.parametrize("reduction", [0, 16])
def test_a_bottleneck_without_channels_is_refused(reduction: int) -> None:
    """Its gate would be 1/2 whatever the features are."""
    z = jax.ShapeDtypeStruct((1, 4, 4, 8), jnp.float32)
    with pytest.raises(ValueError, match=f"reduction={reduction} .* 8 channels"):
        jax.eval_shape(SCSE(reduction=reduction).init, jax.random.key(0), z)


def test_channel_means_of_bfloat16_are_float32() -> None:
    """Means 100.25 and 100: 1/4 apart, where neighbours in bfloat16 are 1/2 apart.

    The gate is sigmoid(relu(100.25 - 100) * 4 log 3) = sigmoid(log 3) = 3/4; from rounded means it
    would be 1/2 or 9/10.
    """
    z = np.full((1, 2, 2, 2), 100.0)
    z[0, 0, :, 0] = 100.5
    squeeze, excite = jnp.array([[1.0], [-1.0]]), jnp.array([[4 * LOG3, 4 * LOG3]])
    gated = channel_se(jnp.asarray(z, jnp.bfloat16), squeeze, excite)
    assert gated.dtype == jnp.bfloat16
    np.testing.assert_allclose(gated.astype(jnp.float32), 0.75 * z, rtol=2**-8)
