"""Reads a bundle: a trained network in one folder, for sharing. covid_jax.export writes it.

Weights are a safetensors file (which cannot contain code) of float32, or of float16 to halve its
size. Their names are those of the parameter tree, joined by dots; kernels are (height, width, in,
out). The config.json next to it is the run's.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from covid_jax.errors import RunError
from covid_jax.runs.digest import differing_shapes, digest, named_leaves, not_finite

WEIGHTS = "model.safetensors"


def is_bundle(folder: Path) -> bool:
    """Whether the folder contains shared weights, not a run's checkpoints."""
    return (folder / WEIGHTS).is_file()


def read_bundle(folder: Path, shapes: Any) -> tuple[int, Any]:
    """The weights of a bundle.

    Args:
      folder: of the bundle.
      shapes: the network's parameters as a tree of arrays or ShapeDtypeStructs.

    Returns:
      The epoch they were taken from, and a tree like ``shapes``, float32.

    Raises:
      RunError: if the file is damaged (unreadable, another digest, values that are not finite), or
        of another network.
    """
    path = folder / WEIGHTS
    stored, metadata = _read(path)
    wanted = named_leaves(shapes)
    if shown := differing_shapes(stored, wanted):
        raise RunError(f"{path}: is of another network or version ({shown})")
    try:
        epoch = int(metadata["epoch"])
    except (KeyError, ValueError) as error:
        raise RunError(f"{path}: has no epoch; export it again") from error
    if metadata.get("digest") not in (None, digest(stored)):
        raise RunError(f"{path}: its weights are not those that were exported; get it again")
    if bad := not_finite(stored):
        raise RunError(f"{path}: NaN or infinite values in {bad[0]}; get it again")
    # Not by jnp.asarray, which compiles a program for every shape.
    leaves = jax.device_put([stored[name].astype(np.float32) for name in wanted])
    return epoch, jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise RunError(f"{path}: damaged ({error}); get the bundle again") from error
