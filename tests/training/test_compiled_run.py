"""What the settings make of a step: less memory for the gradients, bfloat16."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from covid_jax.losses import focal_tversky_loss
from covid_jax.models import SCSEUNet, cpu_bfloat16
from covid_jax.parallel import Devices
from covid_jax.runs.config import ModelConfig, OptimizerConfig
from covid_jax.terminal import Screen
from covid_jax.training import train
from covid_jax.training.compiled_run import compile_run
from covid_jax.training.loggers import read_metrics
from covid_jax.transforms.preprocessing import Normalization
from tests.support.synthetic import TINY, blob_dataset, tiny_config

SIDE = 32


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_a_warm_up_of_less_than_an_update_is_one_update(schedule: Any) -> None:
    """Four passes of two batches, four batches an update: the first of two updates warms up."""
    optimizer = OptimizerConfig(learning_rate=1e-3, schedule=schedule, warmup_epochs=1)
    config = tiny_config(epochs=4, accumulate=4, optimizer=optimizer)
    model = SCSEUNet(**config.model.arguments())
    rest = model, focal_tversky_loss, Normalization(), 1, Devices()
    compiled = compile_run(config, *rest, steps=2)
    state = compiled.init(jax.random.key(0))
    rates = [compiled.learning_rate(state.replace(step=step)) for step in (1, 2)]
    assert rates == pytest.approx([0.0, 1e-3])


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
        apply = compiled.init(jax.random.key(1)).apply_fn

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


def test_training_in_bfloat16_ends_where_float32_does(tmp_path: Path) -> None:
    """On the processor's bfloat16 convolutions, where it has them."""
    losses = []
    for precision in ("float32", "bfloat16"):
        config = tiny_config(model=ModelConfig(features=TINY, precision=precision), epochs=3)
        train(config, blob_dataset(), tmp_path / precision, console=Screen(file=io.StringIO()))
        rows = read_metrics(tmp_path / precision / "metrics.jsonl")
        losses.append([[row["train_loss"], row["val_loss"]] for row in rows])
    np.testing.assert_allclose(*losses, rtol=0.01)
    assert losses[0] != losses[1]


class Blocks(nn.Module):
    """A network of one's own, whose convolutions are jax's."""

    @nn.compact
    def __call__(self, images: Any) -> Any:
        return nn.Conv(1, (3, 3), dtype=jnp.bfloat16)(images)


@pytest.mark.parametrize("own", [False, True])
def test_gradients_of_other_networks_are_never_computed_by_onednn(
    own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_bfloat16, "slow_bfloat16", lambda: "")
    config = tiny_config(model=ModelConfig(features=TINY, precision="bfloat16"))
    model = Blocks() if own else SCSEUNet(**config.model.arguments())
    rest = focal_tversky_loss, Normalization(), 1, Devices()
    assert hasattr(compile_run(config, model, *rest).step, "lower") == own  # as jax.jit's have
