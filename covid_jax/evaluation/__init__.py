"""The scores of a trained run and their files; nothing is drawn here."""

from covid_jax.evaluation.evaluate import Evaluation as Evaluation
from covid_jax.evaluation.evaluate import evaluate as evaluate
from covid_jax.evaluation.report import EvaluationReport as EvaluationReport
