"""Training: a state, pure steps, one loop."""

from covid_jax.training.trainer import train as train
