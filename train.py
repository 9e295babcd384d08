"""Train a network: ``python train.py --help`` lists every flag."""

from covid_jax.cli.main import train

if __name__ == "__main__":
    train()
