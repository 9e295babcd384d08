"""The paper's Adam, learning rate schedules, and the plateau rule on the validation loss."""

from typing import Literal

import optax

Schedule = Literal["plateau", "cosine"]


def make_optimizer(
    learning_rate: optax.ScalarOrSchedule = 5e-5, *, clip_norm: float | None = None
) -> optax.GradientTransformationExtraArgs:
    """Adam with Keras' epsilon, 1e-7; the defaults are the paper's recipe.

    Args:
      learning_rate: a number, or a schedule such as ``learning_rate_schedule`` gives.
      clip_norm: gradients of a larger norm, over all parameters, are scaled down to it.
    """
    clip = [] if clip_norm is None else [optax.clip_by_global_norm(clip_norm)]
    return optax.chain(*clip, optax.adam(learning_rate, b1=0.9, b2=0.999, eps=1e-7))


def learning_rate_schedule(
    learning_rate: float, schedule: Schedule = "plateau", *, steps: int, warmup_steps: int = 0
) -> optax.Schedule:
    """The learning rate at each step, before any plateau.

    Args:
      learning_rate: maximum learning rate.
      schedule: plateau: constant (``reduce_on_plateau`` lowers it); cosine: falls to zero.
      steps: number of steps of the run; at the end the cosine is zero.
      warmup_steps: number of steps in which the rate rises from zero.
    """
    if schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, steps)
    if not warmup_steps:
        return optax.constant_schedule(learning_rate)
    return optax.linear_schedule(0.0, learning_rate, warmup_steps)


def reduce_on_plateau(factor: float, patience: int) -> optax.GradientTransformationExtraArgs:
    """Keras' ReduceLROnPlateau(min_delta=1e-4, cooldown=0), when updated once an epoch.

    It is separate from the optimizer, because there it would be updated every step.
    """
    return optax.contrib.reduce_on_plateau(factor, patience, rtol=0.0, atol=1e-4, cooldown=0)
