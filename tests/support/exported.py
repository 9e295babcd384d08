"""Runs of random weights that nobody trained, and slices for them, to be exported."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from covid_jax.inference import Run
from covid_jax.models import SCSEUNet
from covid_jax.runs.config import DataConfig, ModelConfig, TrainConfig
from covid_jax.runs.record import DataRecord, RunRecord
from covid_jax.transforms.preprocessing import Normalization, QuantizedSlices, pack
from tests.support.synthetic import KINDS, SIZE

FOUR_LEVELS = (4, 8, 12, 16)


def made_run(
    model: ModelConfig,
    classes: int = 1,
    normalization: Normalization | None = None,
    size: int = SIZE,
) -> Run:
    """No parameter has its initial value: ones and zeros would hide one that is mapped wrongly."""
    rng = np.random.default_rng(5)

    def draw(path, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if path[-1].key == "scale":
            values = rng.uniform(0.5, 1.5, leaf.shape)
        elif path[-1].key == "bias":
            values = rng.normal(0.0, 0.3, leaf.shape)
        else:
            values = rng.normal(0.0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
        return jnp.asarray(values, jnp.float32)

    network = SCSEUNet(num_classes=classes, **model.arguments())
    image = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)["params"]
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    named = KINDS[:classes] if classes > 1 else ()
    config = TrainConfig(data=DataConfig(image_size=size, classes=named), model=model)
    data = DataRecord("blobs", "f00d", normalization or Normalization())
    return Run(Path("nowhere"), RunRecord.new(config, data), 7, params)


def chest(count: int = 3, size: int = SIZE) -> QuantizedSlices:
    """Noise of the range of HU, brighter in the middle."""
    y, x = np.mgrid[:size, :size]
    middle = np.hypot(y - size / 2, x - size / 2) < size / 4
    noise = np.random.default_rng(0).normal(-700, 150, (count, size, size))
    return pack(list((noise + 500 * middle).astype(np.float32)), size)


def raw(slices: QuantizedSlices) -> np.ndarray:
    """The intensities that packed slices stand for, (N, S, S) float32."""
    low, step = slices.low.astype(np.float64), slices.step.astype(np.float64)
    return (low[:, None, None] + step[:, None, None] * slices.codes).astype(np.float32)
