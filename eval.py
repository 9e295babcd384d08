"""Score a trained run: ``python eval.py RUN``; ``python eval.py --help`` lists every flag."""

from covid_jax.cli.main import evaluate

if __name__ == "__main__":
    evaluate()
