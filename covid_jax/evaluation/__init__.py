"""Judging a trained run: numbers, tables, pictures."""

from covid_jax.evaluation.evaluate import evaluate as evaluate
