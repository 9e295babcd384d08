"""Checkpoints: what is kept, what is best, and what is refused."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax.checkpoint import Checkpoints
from covid_jax.errors import RunError


def _save(folder: Path, losses: list[float]) -> None:
    with Checkpoints(folder) as checkpoints:
        for epoch, loss in enumerate(losses, start=1):
            weights = {"kernel": jnp.full((2, 3), float(epoch)), "bias": jnp.zeros(3)}
            checkpoints.save(epoch, weights, {"count": jnp.asarray(epoch)}, {"a": 1}, loss)


ABSTRACT = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}


def test_best_is_the_lowest_loss_and_the_latest_two_stay(tmp_path: Path) -> None:
    _save(tmp_path, [0.5, 0.2, 0.4, 0.3, 0.6])
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.epoch("best") == 2
        assert checkpoints.epoch("latest") == 5
        best = checkpoints.restore("best", weights=ABSTRACT).items["weights"]
        latest = checkpoints.restore("latest", trainer={"count": jnp.asarray(0)}).items["trainer"]
    np.testing.assert_array_equal(best["kernel"], np.full((2, 3), 2.0))
    assert int(latest["count"]) == 5
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [2, 4, 5]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_never_best(tmp_path: Path, bad: float) -> None:
    _save(tmp_path, [bad, 0.9, bad])
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.epoch("best") == 2


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"kernel": jnp.zeros((2, 3))}, "bias: stored (3,), expected nothing"),
        ({**ABSTRACT, "gate": jnp.zeros(1)}, "gate: stored nothing, expected (1,)"),
        ({**ABSTRACT, "bias": jnp.zeros(4)}, "bias: stored (3,), expected (4,)"),
    ],
    ids=["left over", "missing", "other shape"],
)
def test_another_tree_is_refused_by_leaf(tmp_path: Path, wanted: dict, named: str) -> None:
    _save(tmp_path, [0.5])
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(RunError) as error:
        checkpoints.restore("latest", weights=wanted)
    assert named in str(error.value)


def test_no_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no checkpoints here"):
        Checkpoints(tmp_path / "absent", create=False)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.epoch("latest") is None
        with pytest.raises(RunError, match="ended in its first epoch"):
            checkpoints.restore("latest", weights=ABSTRACT)


@pytest.mark.parametrize("kind", ["item gone", "file cut short", "metadata gone"])
def test_a_damaged_checkpoint_is_said_to_be(tmp_path: Path, kind: str) -> None:
    _save(tmp_path, [0.5])
    weights = tmp_path / "1" / "weights"
    if kind == "item gone":
        shutil.rmtree(weights)
    elif kind == "metadata gone":
        (weights / "_METADATA").unlink()
    else:
        for path in (path for path in weights.rglob("d/*") if path.is_file()):
            path.write_bytes(path.read_bytes()[:20])
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(RunError, match="checkpoint"):
        checkpoints.restore("latest", weights=ABSTRACT)
