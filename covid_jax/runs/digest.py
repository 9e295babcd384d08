"""Checks of stored weights: digest, shapes, finite values."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by name, such as ``encoder1_conv.conv.kernel``."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(keys, simple=True, separator="."): leaf for keys, leaf in leaves}


def digest(leaves: Mapping[str, Any]) -> str:
    """128-bit BLAKE2b digest of the names, shapes, types and values, independent of their order."""
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(leaves):
        array = np.asarray(leaves[name])
        total.update(f"{name} {array.shape} {array.dtype}".encode() + array.tobytes())
    return total.hexdigest()


def differing_shapes(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first leaves that differ in name or shape, for messages; empty if none does."""
    shapes = [{name: tuple(leaf.shape) for name, leaf in part.items()} for part in (stored, wanted)]
    names = [n for n in sorted({*stored, *wanted}) if shapes[0].get(n) != shapes[1].get(n)]
    return "; ".join(
        "{}: stored {}, expected {}".format(n, *(part.get(n, "nothing") for part in shapes))
        for n in names[:3]
    )


def not_finite(leaves: Mapping[str, Any]) -> list[str]:
    """Names of the arrays with NaN or infinite values."""
    arrays = ((name, np.asarray(leaf)) for name, leaf in leaves.items())
    return [name for name, a in arrays if a.dtype.kind == "f" and not np.isfinite(a).all()]
