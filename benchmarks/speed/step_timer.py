"""The training step as the loop compiles and places it, for whoever wants to time it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from covid_jax.data.batches import Batch
from covid_jax.models import SCSEUNet
from covid_jax.parallel import Devices
from covid_jax.runs.config import LossConfig, OptimizerConfig
from covid_jax.training import optimizer
from covid_jax.training.train_state import init_state
from covid_jax.training.train_step import Inputs, make_apply, make_loss, train_step
from covid_jax.transforms.augmentation import AugmentConfig
from covid_jax.transforms.preprocessing import Normalization

FULL_WIDTH = (32, 64, 128, 256, 512)


def first_devices(count: int) -> Devices:
    """So many of those that are there."""
    return Devices(Mesh(np.asarray(jax.devices()[:count]), ("batch",)))


@functools.cache
def begin(features: tuple[int, ...]) -> Any:
    """The state before the first step, on the host: it takes longer to compile than a step."""
    config, size = OptimizerConfig(), 2 ** len(features)  # no parameter knows the slices' size
    rules = optimizer.optimizer(config, steps=1), optimizer.plateau(config)
    init = functools.partial(init_state, SCSEUNet(features=features), *rules)
    state = jax.jit(functools.partial(init, image_size=size, averaged=False))(jax.random.key(0))
    return jax.device_get(state)


class Trainer:
    """Forward, focal Tversky loss, backward and Adam; the state is donated from call to call.

    Args:
      features: of the network.
      devices: that share each batch.
      dtype: of the convolutions.
      strengths: of the augmentation; none by default.
    """

    def __init__(
        self,
        features: tuple[int, ...] = FULL_WIDTH,
        devices: Devices | None = None,
        dtype: Any = jnp.float32,
        strengths: AugmentConfig = AugmentConfig(),  # noqa: B008 (frozen)
    ) -> None:
        devices = devices or first_devices(1)
        step = functools.partial(
            train_step,
            apply=make_apply(SCSEUNet(features=features, dtype=dtype)),
            loss=make_loss(LossConfig()),
            optimizer=optimizer.optimizer(OptimizerConfig(), steps=1),
            inputs=Inputs(Normalization(), 1),
            strengths=strengths,
        )
        self.place = devices.place
        self._state = jax.device_put(begin(features), devices.replicated)
        self._step = jax.jit(step, out_shardings=devices.replicated, donate_argnums=0)

    def step(self, batch: Batch) -> jax.Array:
        """One step; the sum of the losses, which is ready when the step is done."""
        self._state, total = self._step(self._state, batch, jax.random.key(1))
        return total
