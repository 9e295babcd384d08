"""The training step as the loop compiles and places it, for whoever wants to time it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from covid_jax.models import SCSEUNet
from covid_jax.parallel import Devices
from covid_jax.runs.config import LossConfig, ModelConfig, TrainConfig
from covid_jax.training.compiled_run import compile_run, make_loss
from covid_jax.transforms.augmentation import AugmentConfig
from covid_jax.transforms.preprocessing import Normalization

FULL_WIDTH = (32, 64, 128, 256, 512)


def first_devices(count: int) -> Devices:
    """So many of those that are there."""
    return Devices(jax.devices()[:count])


@functools.cache
def initial_params(features: tuple[int, ...]) -> Any:
    """On the host: they take longer to compile than a step."""
    size = 2 ** len(features)  # no parameter depends on the slices' size
    init = jax.jit(SCSEUNet(features=features).init)
    return jax.device_get(init(jax.random.key(0), jnp.zeros((1, size, size, 1)))["params"])


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
        network = ModelConfig(features=features, precision=jnp.dtype(dtype).name)
        config = TrainConfig(model=network, augmentation=strengths)
        model = SCSEUNet(features=features, dtype=dtype)
        compiled = compile_run(config, model, make_loss(LossConfig()), Normalization(), 1, devices)
        self.place = devices.place
        params = jax.device_put(initial_params(features), devices.replicated)
        self._state = compiled.init(jax.random.key(0)).replace(params=params)
        self._step = compiled.step

    def step(self, batch: Any) -> jax.Array:
        """One step; the mean loss, which is ready when the step is done."""
        self._state, metrics = self._step(self._state, batch, jax.random.key(1))
        return metrics["loss"]
