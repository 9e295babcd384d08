"""Run folders made in a moment, for tests that need a run but none of its training."""

import contextlib
import functools
import io
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from covid_jax.data import SliceDataset
from covid_jax.errors import StoppedError
from covid_jax.inference import Run, load_run
from covid_jax.models import SCSEUNet
from covid_jax.runs.checkpoints import Checkpoints
from covid_jax.runs.config import TrainConfig
from covid_jax.terminal import Screen
from covid_jax.training import train


@contextlib.contextmanager
def killed_before_the_first_step():
    """Training within ends once config.json and split.json are written."""
    with mock.patch(
        "covid_jax.training.trainer.Checkpoints", side_effect=StoppedError(signal.SIGINT)
    ):
        yield


def begin(config: TrainConfig, dataset: SliceDataset, out: Path) -> str:
    """As far as a run comes that is killed before its first step; what it printed."""
    console = Screen(file=io.StringIO())
    with killed_before_the_first_step(), contextlib.suppress(StoppedError):
        train(config, dataset, out, console=console)
    return console.file.getvalue()


def untrained_run(config: TrainConfig, dataset: SliceDataset, out: Path) -> Run:
    """A run whose only checkpoint holds random weights."""
    begin(config, dataset, out)
    model = SCSEUNet(num_classes=max(1, len(config.data.classes)), **config.model.arguments())
    params = random_params(model, config.data.image_size)
    checkpoints = Checkpoints(out / "checkpoints")
    checkpoints.save(1, {"params": params}, {"epoch": 1}, 0.5)
    return load_run(out)


@functools.cache
def random_params(model: SCSEUNet, size: int, seed: int = 1) -> Any:
    """Initial weights of a network; the same ones are drawn once."""
    return jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, size, size, 1)))["params"]
