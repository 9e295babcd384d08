"""CT segmentation of COVID-19 lesions in JAX (Zhou, Canu, Ruan 2020). Research use only."""

__version__ = "0.1.0"
