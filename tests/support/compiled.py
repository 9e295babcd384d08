"""Compiled programs that the runs of a test module share."""

import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from covid_jax.inference import Run
from covid_jax.runs.config import TrainConfig
from covid_jax.training.compiled_run import CompiledRun, compile_run


@pytest.fixture(scope="module", autouse=True)
def shared_programs() -> Iterator[None]:
    """Runs of equal settings train and predict by the same jitted functions, traced once a module.

    What a run makes of its own (state, keys, batches) is passed to these functions; they keep none.
    """
    steps_of: dict[Any, CompiledRun] = {}
    forward_of: dict[Any, Any] = {}
    make_run = Run.__init__

    def compile_once(config: TrainConfig, model: Any, loss: Any, *rest: Any) -> CompiledRun:
        *others, _, steps = rest  # the devices are all of them
        optimizer = config.optimizer
        ends = optimizer.schedule == "cosine" or optimizer.warmup_epochs
        kinds = (optimizer, config.augmentation, config.data.image_size, config.init.freeze)
        which = (kinds, (config.epochs, steps) if ends else 0, model, identity(loss), *others)
        if which not in steps_of:
            steps_of[which] = compile_run(config, model, loss, *rest)
        return steps_of[which]

    def make(self: Run, *args: Any, **options: Any) -> None:
        make_run(self, *args, **options)
        which = (type(self), self.model, self.normalization, self.config.model.precision)
        self._forward = forward_of.setdefault(which, self._forward)

    with (
        mock.patch("covid_jax.training.trainer.compile_run", compile_once),
        mock.patch.object(Run, "__init__", make),
        mock.patch("covid_jax.cli.commands.keep_freed_memory"),  # of all tests that follow
    ):
        yield


def identity(loss: Any) -> Any:
    """Equal for partial functions that are made of the same."""
    if isinstance(loss, functools.partial):
        return identity(loss.func), loss.args, tuple(sorted(loss.keywords.items()))
    return loss
