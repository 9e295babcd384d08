"""Reads a bundle: a trained network in one folder, as people share it. covid_jax.export writes it.

Weights are a safetensors file, which contains numbers and nothing that could run: float32, or
float16 to halve its size. Their names are the parameter tree's, joined by dots, their layout that
of covid_jax (kernels are height, width, in, out). The config.json next to it is a run's.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from covid_jax.errors import RunError
from covid_jax.runs.digest import digest, named_leaves, not_finite

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
    names = sorted(
        name
        for name in stored.keys() | wanted.keys()
        if _described(stored.get(name)) not in (_described(wanted.get(name)), _half(wanted, name))
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
    if metadata.get("digest", digest(stored)) != digest(stored):
        raise RunError(f"{path}: its weights are not those that were exported; get it again")
    if bad := not_finite(stored):
        raise RunError(f"{path}: NaN or infinite values in {bad[0]}; get it again")
    leaves = [jnp.asarray(stored[name], jnp.float32) for name in wanted]
    return epoch, jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _half(wanted: dict[str, Any], name: str) -> str | None:
    return f"float16 {tuple(wanted[name].shape)}" if name in wanted else None


def _described(leaf: Any) -> str:
    return "nothing" if leaf is None else f"{leaf.dtype} {tuple(leaf.shape)}"


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise RunError(f"{path}: damaged ({error}); get the bundle again") from error
