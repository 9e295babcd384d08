"""Training: a state, pure steps, one loop."""

from covid_jax.training.loop import train as train
