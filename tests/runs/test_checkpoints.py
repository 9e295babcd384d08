"""Checkpoints: what is kept, what is best, and what is refused."""

import errno
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from covid_jax.errors import RunError
from covid_jax.runs.checkpoints import Checkpoints


def _save(folder: Path, losses: list[float]) -> None:
    checkpoints = Checkpoints(folder)
    for epoch, loss in enumerate(losses, start=1):
        weights = {"kernel": jnp.full((2, 3), float(epoch)), "bias": jnp.zeros(3)}
        checkpoints.save(epoch, weights, {"count": jnp.asarray(epoch)}, loss)


ABSTRACT = {"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}


def test_best_is_the_lowest_loss_and_the_latest_two_stay(tmp_path: Path) -> None:
    _save(tmp_path, [0.5, 0.2, 0.4, 0.3, 0.6])
    checkpoints = Checkpoints(tmp_path)
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
    checkpoints = Checkpoints(tmp_path)
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
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(RunError) as error:
        checkpoints.restore("latest", weights=wanted)
    assert named in str(error.value)


def test_no_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no checkpoints here"):
        Checkpoints(tmp_path / "absent", create=False)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.epoch("latest") is None
    with pytest.raises(RunError, match="ended in its first epoch"):
        checkpoints.restore("latest", weights=ABSTRACT)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _cut(path: Path) -> None:
    if path.is_file():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [_remove, _cut])
def test_whatever_is_damaged_the_epoch_before_is_taken(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Each kind of file and folder; where orbax can do without it, nothing is lost at all."""
    _save(tmp_path / "run", [0.5, 0.2])
    paths = {path.name: path for path in sorted((tmp_path / "run/2").rglob("*"), reverse=True)}
    chunks = [path for path in paths.values() if path.parent.name == "d"][:1]
    for path in [path for path in paths.values() if path.parent.name != "d"] + chunks:
        place = path.relative_to(tmp_path / "run")
        copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
        damage(copy / place)
        checkpoints = Checkpoints(copy)
        found = checkpoints.restore("latest", weights=ABSTRACT, trainer={"count": jnp.asarray(0)})
        assert found.epoch == 2 - len(found.damaged), place
        assert all(f"{copy}/2: this checkpoint" in said for said in found.damaged), place
        weights, trainer = found.items["weights"], found.items["trainer"]
        np.testing.assert_array_equal(weights["kernel"], np.full((2, 3), found.epoch))
        assert int(trainer["count"]) == found.epoch, place
        if path.name in {"weights", "trainer", "summary", "manifest.ocdbt", "metadata"}:
            needed = path.parent.name != "ocdbt.process_0" and path.is_dir() <= (damage is _remove)
            assert bool(found.damaged) == needed, place
        checkpoints.forget_after(found.epoch)
        assert checkpoints.epoch("latest") == found.epoch
        assert checkpoints.epoch("best") == found.epoch
        shutil.rmtree(copy)


@pytest.mark.parametrize("changed", ["0.9", "", "0.2x"])
def test_another_epoch_than_the_best_is_never_taken_in_silence(
    tmp_path: Path, changed: str
) -> None:
    """The loss that made it the best may be what was damaged."""
    _save(tmp_path, [0.2, 0.5])
    path = tmp_path / "1/summary/metadata"
    path.write_text(path.read_text().replace("0.2", changed))
    checkpoints = Checkpoints(tmp_path)
    found = checkpoints.restore("best", weights=ABSTRACT)
    assert found.epoch == 2
    (said,) = found.damaged
    assert said.startswith(f"{tmp_path}/1: this checkpoint is damaged")


def test_reads_that_fail_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _save(tmp_path, [0.5, 0.2])
    hook = sys.unraisablehook
    for path in (tmp_path / "2/weights").rglob("*"):
        _cut(path)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore("latest", weights=ABSTRACT).epoch == 1
    assert capfd.readouterr() == ("", "")
    assert sys.unraisablehook is hook


def test_other_weights_than_were_saved_are_damage(tmp_path: Path) -> None:
    """Whole and of the right shapes: only their digest shows it, as with a flipped bit."""
    _save(tmp_path, [0.5, 0.2, 0.3])
    shutil.rmtree(tmp_path / "2/weights")
    shutil.copytree(tmp_path / "3/weights", tmp_path / "2/weights")
    checkpoints = Checkpoints(tmp_path)
    found = checkpoints.restore("best", weights=ABSTRACT)
    assert found.epoch == 3
    said = f"{tmp_path}/2: this checkpoint is damaged (its weights are not those that were saved)"
    assert found.damaged == (said,)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_damage(tmp_path: Path, value: float) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {**ABSTRACT, "bias": jnp.full(3, value)}, {"count": 1}, 0.5)
    with pytest.raises(RunError, match=r"1: .* damaged \(NaN or infinite values in bias\)"):
        checkpoints.restore("latest", weights=ABSTRACT)


def test_a_full_disk_keeps_the_epochs_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(tmp_path, [0.5])

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(tmp_path.rglob("*"))
    checkpoints = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(ocp.StandardCheckpointHandler, "finalize", full)
        said = rf"{tmp_path}: epoch 2 cannot be saved .*No space left on device.*--resume"
        with pytest.raises(RunError, match=said):
            checkpoints.save(2, ABSTRACT, {"count": jnp.asarray(2)}, 0.1)
        assert checkpoints.epoch("best") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_deletion_that_was_interrupted_leaves_no_damaged_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epoch 2 is to go; of a process killed then only its folder's new name is left."""
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        _save(tmp_path, [0.1, 0.5, 0.4, 0.3])
    assert any(path.name.startswith("2.") for path in tmp_path.iterdir())
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore("best", weights=ABSTRACT)[::2] == (1, ())
    checkpoints.save(5, ABSTRACT, {"count": jnp.asarray(5)}, 0.2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "4", "5"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=f"{tmp_path}/file/checkpoints: cannot be written"):
        Checkpoints(tmp_path / "file/checkpoints")
