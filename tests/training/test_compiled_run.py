"""What the settings make of a step: less memory for the gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax.losses import focal_tversky_loss
from covid_jax.models import SCSEUNet
from covid_jax.parallel import Devices
from covid_jax.training.compiled_run import compile_run
from covid_jax.transforms.preprocessing import Normalization
from tests.support.synthetic import tiny_config

SIDE = 32


def test_remat_keeps_the_convolutions_outputs_alone_and_changes_no_gradient() -> None:
    """Without it as many values again are kept: normalised, activated, gated."""
    config = tiny_config()
    model = SCSEUNet(**config.model.arguments())
    images = jax.random.normal(jax.random.key(0), (2, SIDE, SIDE, 1))
    params = jax.jit(model.init)(jax.random.key(1), images)["params"]
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    features, levels = config.model.features, range(len(config.model.features))
    pixels = [len(images) * (SIDE >> level) ** 2 * features[level] for level in levels]
    outputs = 4 * (3 * sum(pixels) + 4 * sum(pixels[:-1]))
    kept, gradients = {}, {}
    for remat in (False, True):
        settings = dataclasses.replace(config, remat=remat)
        compiled = compile_run(settings, model, focal_tversky_loss, Normalization(), 1, Devices())
        apply = compiled.create(params).apply_fn

        def logits(params):
            return apply({"params": params}, images)  # noqa: B023

        def loss(params):
            labels = jnp.ones((2, SIDE, SIDE, 1))
            return focal_tversky_loss(logits(params), labels).mean()

        pullback = jax.eval_shape(lambda p: jax.vjp(logits, p)[1], params)
        leaves = jax.tree.leaves(pullback)
        kept[remat] = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) - weights
        gradients[remat] = jax.jit(jax.grad(loss))(params)
    assert kept[True] == pytest.approx(outputs + images.nbytes, rel=0.05)
    assert kept[False] > 2 * kept[True]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max() + 1e-3)),
        *gradients.values(),
    )
