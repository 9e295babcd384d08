"""A digest is of names, shapes, types and values; finite is what numpy calls so."""

import numpy as np
import pytest

from covid_jax.runs.digest import digest, named_leaves, not_finite

TREE = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "b": np.zeros(2, np.int32)}


def test_leaves_have_the_trees_names() -> None:
    assert sorted(named_leaves(TREE)) == ["a.kernel", "b"]


def test_the_digest_is_blake2b_of_what_is_documented() -> None:
    """Worked out with b2sum -l 128 on the two lines of bytes."""
    leaf = np.array([1.0], np.float32)
    assert digest({"x": leaf}) == "f68b9f8a6acab49bd14be7aa50e48739"
    assert digest({}) == "cae66941d9efbd404e4d88758ea67670"


@pytest.mark.parametrize(
    "other",
    [
        {"a": {"kernel": TREE["a"]["kernel"].T}, "b": TREE["b"]},
        {"a": {"kernel": TREE["a"]["kernel"].astype(np.float64)}, "b": TREE["b"]},
        {"a": {"bias": TREE["a"]["kernel"]}, "b": TREE["b"]},
        {"a": {"kernel": np.nextafter(TREE["a"]["kernel"], np.float32(9))}, "b": TREE["b"]},
    ],
    ids=["shape", "type", "name", "last bit"],
)
def test_any_change_changes_it(other: dict) -> None:
    assert digest(named_leaves(other)) != digest(named_leaves(TREE))
    assert digest(dict(reversed(named_leaves(TREE).items()))) == digest(named_leaves(TREE))


def test_arrays_that_are_not_finite_are_named() -> None:
    bad = {"x": np.array([1, np.nan]), "y": np.array([-np.inf]), "z": np.zeros(3), "n": np.array(1)}
    assert not_finite(bad) == ["x", "y"]
