"""Reads a bundle: a trained network in one folder, as people share it. covid_jax.export writes it.

Weights in safetensors, which holds numbers and nothing that could run; their names are the
parameter tree's, joined by dots, their layout that of covid_jax (kernels are height, width, in,
out). config.json beside them is a run's.
"""

import importlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from covid_jax.errors import RunError

WEIGHTS = "model.safetensors"


def is_bundle(folder: Path) -> bool:
    """Whether the folder holds shared weights, not a run's checkpoints."""
    return (folder / WEIGHTS).is_file()


def read_bundle(folder: Path, shapes: Any) -> tuple[int, Any]:
    """The weights of a bundle.

    Args:
      folder: of the bundle.
      shapes: the network's parameters as a tree of arrays or ShapeDtypeStructs.

    Returns:
      The epoch they were taken from, and a tree like ``shapes``, float32.

    Raises:
      RunError: if the file is damaged or of another network, or safetensors is not installed.
    """
    path = folder / WEIGHTS
    stored, metadata = _read(path)
    wanted = flatten(shapes)
    names = sorted(
        name
        for name in stored.keys() | wanted.keys()
        if _described(stored.get(name)) != _described(wanted.get(name))
    )
    if names:
        shown = "; ".join(
            f"{name}: stored {_described(stored.get(name))}, "
            f"expected {_described(wanted.get(name))}"
            for name in names[:3]
        )
        raise RunError(f"{path}: is of another network or version ({shown})")
    try:
        epoch = int(metadata["epoch"])
    except (KeyError, ValueError) as error:
        raise RunError(f"{path}: does not say which epoch it is of; export it again") from error
    params = jax.tree_util.tree_map_with_path(
        lambda keys, _: jnp.asarray(stored[_name(keys)]), shapes
    )
    return epoch, params


def flatten(tree: Any) -> dict[str, Any]:
    """The leaves of a parameter tree by name, such as ``encoder1_conv.conv.kernel``."""
    return {_name(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(keys: Any) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator=".")


def _described(leaf: Any) -> str:
    return "nothing" if leaf is None else f"{leaf.dtype} {tuple(leaf.shape)}"


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        safetensors = importlib.import_module("safetensors")
    except ImportError as error:
        need = 'bundles need safetensors: pip install "covid_jax[export]"'
        raise RunError(f"{path}: {need}") from error
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (OSError, ValueError, TypeError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: damaged ({error}); get the bundle again") from error
