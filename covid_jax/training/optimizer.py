"""The paper's optimiser: Adam, and the plateau rule that looks at the validation loss."""

import optax

from covid_jax.config import OptimizerConfig


def adam(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adam with Keras' defaults (epsilon 1e-7), without weight decay."""
    return optax.adam(config.learning_rate, b1=0.9, b2=0.999, eps=1e-7)


def plateau(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Keras' ReduceLROnPlateau(min_delta=1e-4, cooldown=0), when updated once an epoch.

    Kept beside Adam and not in its chain, where it would count steps.
    """
    return optax.contrib.reduce_on_plateau(
        factor=config.plateau_factor,
        patience=config.plateau_patience,
        rtol=0.0,
        atol=1e-4,
        cooldown=0,
    )
