"""Training: pure functions for your own training loop, and ``train``, which the command uses."""

from typing import TYPE_CHECKING, Any

from covid_jax.training.optimizer import make_optimizer as make_optimizer
from covid_jax.training.train_state import TrainState as TrainState
from covid_jax.training.train_step import make_eval_step as make_eval_step
from covid_jax.training.train_step import make_train_step as make_train_step

if TYPE_CHECKING:
    from covid_jax.training.trainer import train as train


def __getattr__(name: str) -> Any:
    if name == "train":  # only then what a run folder needs: checkpoints, logs, figures
        from covid_jax.training.trainer import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
