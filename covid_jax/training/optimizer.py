"""The optimiser as one chain, and the plateau rule that looks at the validation loss."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from covid_jax.runs.config import OptimizerConfig

BAD_STEPS = 5  # in a row, after which no step is taken any more


class SkipState(NamedTuple):
    """Of ``skip_nonfinite``.

    Attributes:
      inner: of what it guards.
      in_a_row: bad steps since the last one taken.
      total: steps not taken so far.
    """

    inner: Any
    in_a_row: Int[Array, ""]
    total: Int[Array, ""]


def optimizer(
    config: OptimizerConfig, steps: int, warmup_steps: int = 0
) -> optax.GradientTransformationExtraArgs:
    """From gradients to updates; the paper's recipe is Adam alone, at a constant rate.

    Args:
      config: what is in the chain.
      steps: of the whole run, over which a cosine falls to zero.
      warmup_steps: over which the learning rate rises from zero.

    Returns:
      A transformation whose update also takes ``loss`` (of the step) and ``factor`` (the plateau's,
      by which the updates are multiplied).
    """
    return skip_nonfinite(
        optax.chain(
            optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
            optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-7),  # Keras' epsilon
            optax.scale_by_learning_rate(schedule(config, steps, warmup_steps)),
            scale_by_factor(),
        )
    )


def schedule(config: OptimizerConfig, steps: int, warmup_steps: int = 0) -> optax.Schedule:
    """The learning rate at each step, before any plateau: constant, or falling as a cosine."""
    rate = config.learning_rate
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, rate, warmup_steps, steps)
    if not warmup_steps:
        return optax.constant_schedule(rate)
    return optax.linear_schedule(0.0, rate, warmup_steps)


def scale_by_factor() -> optax.GradientTransformationExtraArgs:
    """Multiplies the updates by the extra argument ``factor``."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        return jax.tree.map(lambda u: extra["factor"] * u, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def skip_nonfinite(
    inner: optax.GradientTransformationExtraArgs | optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Takes no step where the loss or a gradient's square is NaN or infinite, and counts those.

    The square, as one that overflows would leave Adam's second moment infinite ever after. Nothing
    the inner transformation has counted or averaged changes in such a step. After ``BAD_STEPS`` of
    them in a row no further step is taken, so that the last good state is kept for as long as it
    takes the host to look. ``optax.apply_if_finite`` would take the bad step then.
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Any) -> SkipState:
        return SkipState(inner.init(params), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        squares = jnp.stack([jnp.square(leaf).sum() for leaf in jax.tree.leaves(updates)])
        # Sorted, NaN come last. A sum or a maximum XLA would work out anew in every parameter's
        # kernel, which takes long to compile (benchmarks/NOTES.md).
        worst = jnp.sort(squares)[-1]
        good = jnp.isfinite(worst) & jnp.isfinite(extra.pop("loss"))
        going = good & (state.in_a_row < BAD_STEPS)
        new, inner_state = inner.update(updates, state.inner, params, **extra)
        new = jax.tree.map(lambda u: jnp.where(going, u, jnp.zeros_like(u)), new)
        kept = jax.tree.map(lambda a, b: jnp.where(going, a, b), inner_state, state.inner)
        in_a_row = jnp.where(going, 0, state.in_a_row + jnp.where(good, 0, 1))
        return new, SkipState(kept, in_a_row, state.total + jnp.where(going, 0, 1))

    return optax.GradientTransformationExtraArgs(init, update)


def moving_average(average: Any, params: Any, step: Int[Array, ""], decay: float) -> Any:
    """Exponential moving average of the parameters, ``step`` steps having been taken before.

    The decay grows as ``(1 + step) / (10 + step)`` up to its full value, so that the average soon
    forgets the initial weights.
    """
    decayed = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return optax.incremental_update(params, average, 1.0 - decayed)


def plateau(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Keras' ReduceLROnPlateau(min_delta=1e-4, cooldown=0), when updated once an epoch.

    Kept beside the chain and not in it, where it would count steps.
    """
    return optax.contrib.reduce_on_plateau(
        factor=config.plateau_factor,
        patience=config.plateau_patience,
        rtol=0.0,
        atol=1e-4,
        cooldown=0,
    )
