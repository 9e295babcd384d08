"""CT segmentation of COVID-19 lesions in JAX (Zhou, Canu, Ruan 2020). Research use only.

Importing the package does not import jax: the names below are loaded at their first use.
"""

import importlib

TYPE_CHECKING = False  # importing typing would take longer than all else here
if TYPE_CHECKING:
    from covid_jax.data import SliceDataset as SliceDataset
    from covid_jax.data import open_dataset as open_dataset
    from covid_jax.evaluation import evaluate as evaluate
    from covid_jax.inference import load_run as load_run
    from covid_jax.losses import dice_loss as dice_loss
    from covid_jax.losses import focal_tversky_loss as focal_tversky_loss
    from covid_jax.losses import tversky_index as tversky_index
    from covid_jax.losses import tversky_loss as tversky_loss
    from covid_jax.models import SCSEUNet as SCSEUNet
    from covid_jax.training import train as train

__version__ = "0.2.0"

_MODULES = {
    "SCSEUNet": "models",
    **dict.fromkeys(("dice_loss", "focal_tversky_loss", "tversky_index", "tversky_loss"), "losses"),
    **dict.fromkeys(("SliceDataset", "open_dataset"), "data"),
    "evaluate": "evaluation",
    "load_run": "inference",
    "train": "training",
}
_SUBMODULES = ("models", "losses", "metrics", "transforms", "data", "training", "inference")

__all__ = ["__version__", *_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Loads a public name, or a submodule such as ``covid_jax.metrics``, at its first use."""
    if name in _MODULES:
        value = getattr(importlib.import_module(f"covid_jax.{_MODULES[name]}"), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"covid_jax.{name}")
    else:
        raise AttributeError(f"module 'covid_jax' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
