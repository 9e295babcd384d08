"""Pytrees to and from a run folder's checkpoints. Only this file knows orbax; it knows no training.

A checkpoint is three items: weights (what inference needs), trainer (what resuming needs besides)
and config, which holds the loss as well. The latest two and the best one are kept.
"""

import contextlib
import gc
import logging
import math
import re
import sys
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding, SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import preservation_policy

from covid_jax.errors import RunError
from covid_jax.runs.config import Which


class Restored(NamedTuple):
    """A checkpoint read back.

    Attributes:
      epoch: its number.
      items: the trees asked for, by name.
      damaged: what is wrong with those that would have come before it.
    """

    epoch: int
    items: dict[str, Any]
    damaged: tuple[str, ...]


class Checkpoints(contextlib.AbstractContextManager):
    """The checkpoints under one folder, numbered by epoch.

    Args:
      folder: of the checkpoints.
      create: whether to make the folder; else it must be there.

    Raises:
      RunError: if the folder is missing, or cannot be made.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        if not create and not folder.is_dir():
            raise RunError(f"{folder}: no checkpoints here; was the run started?")
        self._folder = folder
        self._best = _Best()
        latest = preservation_policy.LatestN(2)
        try:
            self._manager = ocp.CheckpointManager(
                folder.absolute(),
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=preservation_policy.AnyPreservationPolicy(
                        [latest, self._best]
                    ),
                    enable_async_checkpointing=False,
                    create=create,
                    save_root_metadata=False,
                ),
                item_handlers={
                    "weights": ocp.StandardCheckpointHandler(),
                    "trainer": ocp.StandardCheckpointHandler(),
                    "config": ocp.JsonCheckpointHandler(),
                },
            )
        except OSError as error:
            raise RunError(f"{folder}: cannot be used ({error.strerror or error})") from error
        for epoch in self._manager.all_steps():
            try:
                self._best.losses[epoch] = self._stored_loss(epoch)
            except _DamagedError:
                self._best.losses[epoch] = math.inf  # never the best

    def __exit__(self, *exc_info: object) -> None:
        self._manager.close()

    def save(self, epoch: int, weights: Any, trainer: Any, config: dict, loss: float) -> None:
        """Writes a checkpoint whole or not at all; loss decides which is best (NaN: the worst).

        Raises:
          RunError: if it cannot be written; those before it are untouched.
        """
        self._best.losses[epoch] = _finite(loss)
        try:
            with _heard_once():
                self._manager.save(
                    epoch,
                    args=ocp.args.Composite(
                        weights=ocp.args.StandardSave(weights),
                        trainer=ocp.args.StandardSave(trainer),
                        config=ocp.args.JsonSave({"config": config, "loss": repr(loss)}),
                    ),
                )
        except Exception as error:  # the storage below raises bare ones
            raise RunError(
                f"{self._folder}: epoch {epoch} cannot be saved ({_reason(error)}); the epochs "
                "before it are kept. Make room, then go on with --resume"
            ) from error

    def epoch(self, which: Which) -> int | None:
        """Number of the latest or best checkpoint; None where there is none."""
        return next(iter(self._candidates(which)), None)

    def restore(self, which: Which, sharding: Sharding | None = None, **abstract: Any) -> Restored:
        """Restores items into trees of the given shapes.

        Args:
          which: the latest or the best checkpoint; if it is damaged, the next one in that order.
          sharding: where the arrays go; by default onto the first device.
          **abstract: for each item wanted (weights, trainer), a tree of arrays or
            ShapeDtypeStructs of the shapes expected.

        Raises:
          RunError: if there is no checkpoint, all are damaged, or a leaf is missing, left over or
            of another shape; nothing is loaded in part.
        """
        sharding = sharding or SingleDeviceSharding(jax.local_devices()[0])
        damaged = []
        for epoch in self._candidates(which):
            try:
                items = self._restore(epoch, sharding, abstract)
                return Restored(epoch, items, tuple(damaged))
            except _DamagedError as error:
                damaged.append(str(error))
        if damaged:
            raise RunError("; ".join(damaged))
        raise RunError(f"{self._folder}: no checkpoint here; the run ended in its first epoch")

    def forget_after(self, epoch: int) -> None:
        """Deletes later checkpoints: those found damaged, whose epochs will be trained again."""
        for later in [step for step in self._manager.all_steps() if step > epoch]:
            self._manager.delete(later)
            self._best.losses.pop(later)

    def _candidates(self, which: Which) -> list[int]:
        epochs = sorted(self._manager.all_steps(), reverse=True)
        return epochs if which == "latest" else sorted(epochs, key=self._best.rank)

    def _stored_loss(self, epoch: int) -> float:
        try:
            arguments = ocp.args.Composite(config=ocp.args.JsonRestore())
            return _finite(float(self._manager.restore(epoch, args=arguments)["config"]["loss"]))
        except Exception as error:  # the storage below raises bare ones
            raise self._damaged(epoch, error) from error

    def _restore(self, epoch: int, sharding: Sharding, abstract: dict[str, Any]) -> dict[str, Any]:
        self._stored_loss(epoch)
        for item, tree in abstract.items():
            self._check(epoch, item, tree)

        def placed(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        arguments = {
            item: ocp.args.StandardRestore(jax.tree.map(placed, tree))
            for item, tree in abstract.items()
        }
        try:
            with _heard_once():
                restored = self._manager.restore(epoch, args=ocp.args.Composite(**arguments))
        except Exception as error:  # the storage below raises bare ones
            raise self._damaged(epoch, error) from error
        return {item: restored[item] for item in abstract}

    def _check(self, epoch: int, item: str, tree: Any) -> None:
        """Orbax can load part of a tree without a word; this compares every leaf first."""
        try:
            described = self._manager.item_metadata(epoch).get(item)
        except Exception as error:  # the storage below raises bare ones
            raise self._damaged(epoch, error) from error
        if described is None:
            raise _DamagedError(f"{self._folder}/{epoch}: this checkpoint lacks its {item}")
        stored = _shapes(described.tree)
        wanted = _shapes(tree)
        if stored == wanted:
            return
        names = sorted(dict(set(stored.items()) ^ set(wanted.items())))
        shown = "; ".join(
            f"{name}: stored {stored.get(name, 'nothing')}, expected {wanted.get(name, 'nothing')}"
            for name in names[:3]
        )
        raise RunError(
            f"{self._folder}/{epoch}: its {item} are of another network or version ({shown})"
        )

    def _damaged(self, epoch: int, error: Exception) -> Exception:
        return _DamagedError(
            f"{self._folder}/{epoch}: this checkpoint is damaged ({_reason(error)})"
        )


class _DamagedError(RunError):
    """A checkpoint that cannot be read, though it may be of the right network."""


@dataclass
class _Best(preservation_policy.PreservationPolicy):
    """Keeps the checkpoint of the lowest loss, the earliest of equals."""

    losses: dict[int, float] = field(default_factory=dict)

    def rank(self, epoch: int) -> tuple[float, int]:
        loss = self.losses[epoch]
        return (loss, epoch) if math.isfinite(loss) else (loss, -epoch)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        best = min((info.step for info in checkpoints), key=self.rank, default=None)
        return [info.step == best for info in checkpoints]


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _finite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _reason(error: Exception) -> str:
    told = str(error).partition(". See full TensorStore details")[0]
    if refused := re.search(r": ([^:]+) \[os_error_code", told):
        return refused[1]  # such as: No space left on device
    return textwrap.shorten((told.splitlines() or [type(error).__name__])[0], 160)


@contextlib.contextmanager
def _heard_once() -> Iterator[None]:
    """What cannot be read or written is raised; its threads and other reads do not print it too."""
    printer, logger = sys.unraisablehook, logging.getLogger("absl")
    silent = logger.disabled
    sys.unraisablehook, logger.disabled = lambda _: None, True
    try:
        yield
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        gc.collect()  # reads that nobody waits for any more complain when they are collected
        raise
    finally:
        sys.unraisablehook, logger.disabled = printer, silent
