"""``python -m covid_jax`` is ``covid-jax``."""

from covid_jax.cli.main import main

if __name__ == "__main__":
    main()
