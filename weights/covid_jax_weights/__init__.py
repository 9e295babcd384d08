"""Trained networks for covid_jax, each in a folder; see its README.md and weights.json."""
