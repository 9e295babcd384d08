"""Checks of stored weights: digest, shapes, finite values."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by name, such as ``encoder1_conv.conv.kernel``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(keys, simple=True, separator="."): leaf for keys, leaf in leaves}


def digest(leaves: Mapping[str, Any]) -> str:
    """BLAKE2b, 128 bits, of the names, shapes, types and values; their order does not matter."""
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(leaves):
        array = np.asarray(leaves[name])
        total.update(f"{name} {array.shape} {array.dtype}".encode() + array.tobytes())
    return total.hexdigest()


def differing_leaves(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], describe: Callable[[Any], Any]
) -> str:
    """The first leaves that differ in their description, as messages show them; empty if none."""
    described = [
        {name: describe(leaf) for name, leaf in leaves.items()} for leaves in (stored, wanted)
    ]
    names = sorted(dict(set(described[0].items()) ^ set(described[1].items())))
    return "; ".join(
        "{}: stored {}, expected {}".format(
            name, *(part.get(name, "nothing") for part in described)
        )
        for name in names[:3]
    )


def not_finite(leaves: Mapping[str, Any]) -> list[str]:
    """Names of the arrays with NaN or infinite values."""
    return [
        name
        for name, leaf in leaves.items()
        if np.asarray(leaf).dtype.kind == "f" and not np.isfinite(np.asarray(leaf)).all()
    ]
