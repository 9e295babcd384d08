"""Pytrees to and from a run folder's checkpoints; the only module that imports orbax.

A checkpoint is three items: weights (what inference needs), trainer (what resuming needs as well)
and summary: the validation loss and a digest of each of the other two. Checkpoints of version 0.1
have no digest, and their loss is in an item ``config``. The latest two and the best one are kept.
"""

import contextlib
import dataclasses
import gc
import logging
import math
import re
import sys
import textwrap
import traceback
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding, SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import preservation_policy

from covid_jax.errors import RunError
from covid_jax.files import read_json, writing_to
from covid_jax.runs.config import Which
from covid_jax.runs.digest import differing_shapes, digest, named_leaves, not_finite
from covid_jax.schema import parse


class Restored(NamedTuple):
    """A checkpoint read back.

    Attributes:
      epoch: its number.
      items: the trees asked for, by name.
      damaged: what is wrong with those that would have come before it; empty if none is.
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
        policy = preservation_policy.AnyPreservationPolicy([latest, self._best])
        handlers = {
            "weights": ocp.StandardCheckpointHandler(),
            "trainer": ocp.StandardCheckpointHandler(),
            "summary": ocp.JsonCheckpointHandler(),
        }
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            enable_async_checkpointing=False,
            create=create,
            save_root_metadata=False,
        )
        with writing_to(folder), _orbax_silenced():
            self._manager = ocp.CheckpointManager(
                folder.absolute(), options=options, item_handlers=handlers
            )
        self._unranked: list[str] = []
        for epoch in self._manager.all_steps():
            try:
                self._best.losses[epoch] = self._summary(epoch).finite_loss
            except _DamagedError as error:
                self._best.losses[epoch] = math.inf  # never the best
                self._unranked.append(str(error))

    def __exit__(self, *exc_info: object) -> None:
        self._manager.close()

    def save(self, epoch: int, weights: Any, trainer: Any, loss: float) -> None:
        """Writes a checkpoint whole or not at all; loss decides which is best (NaN: the worst).

        Raises:
          RunError: if it cannot be written; those before it are untouched.
        """
        items = {"weights": weights, "trainer": trainer}
        digests = {name: digest(named_leaves(tree)) for name, tree in items.items()}
        digests["loss"] = _digest_of(repr(loss))
        summary = _Summary(repr(loss), digests)
        self._best.losses[epoch] = summary.finite_loss
        try:
            with _orbax_silenced():
                self._manager.save(
                    epoch,
                    args=ocp.args.Composite(
                        **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
                        summary=ocp.args.JsonSave(dataclasses.asdict(summary)),
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
          RunError: if there is no checkpoint, all are damaged (unreadable, another digest, weights
            that are not finite), or a leaf is missing, left over or of another shape; nothing is
            loaded in part.
        """
        sharding = sharding or SingleDeviceSharding(jax.local_devices()[0])
        damaged = [*self._unranked] * (which == "best")  # any of them may have been the best
        for epoch in self._candidates(which):
            try:
                items = self._restore(epoch, sharding, abstract)
                return Restored(epoch, items, tuple(damaged))
            except _DamagedError as error:
                damaged.append(str(error))
        if damaged:
            raise RunError("; ".join(dict.fromkeys(damaged)))
        raise RunError(f"{self._folder}: no checkpoint here; the run ended in its first epoch")

    def forget_after(self, epoch: int) -> None:
        """Deletes later checkpoints: they are damaged, and their epochs will be trained again."""
        for later in [step for step in self._manager.all_steps() if step > epoch]:
            self._manager.delete(later)
            self._best.losses.pop(later)

    def _candidates(self, which: Which) -> list[int]:
        epochs = sorted(self._manager.all_steps(), reverse=True)
        return epochs if which == "latest" else sorted(epochs, key=self._best.rank)

    def _summary(self, epoch: int) -> "_Summary":
        folder = self._folder / str(epoch)
        with self._reading(epoch):
            if not (folder / "config").is_dir():
                return read_json(folder / "summary" / "metadata", _Summary, RunError)
            stored = read_json(folder / "config" / "metadata", error=RunError)
            return parse(_Summary, {"loss": stored.get("loss")})

    def _restore(self, epoch: int, sharding: Sharding, abstract: dict[str, Any]) -> dict[str, Any]:
        digests = self._summary(epoch).digests or {}
        self._check(epoch, abstract)

        def placed(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        arguments = {
            item: ocp.args.StandardRestore(jax.tree.map(placed, tree))
            for item, tree in abstract.items()
        }
        with self._reading(epoch):
            restored = self._manager.restore(epoch, args=ocp.args.Composite(**arguments))
            for item in abstract:
                leaves = named_leaves(restored[item])
                if item in digests and digests[item] != digest(leaves):
                    raise ValueError(f"its {item} are not those that were saved")
                if item == "weights" and (names := not_finite(leaves)):
                    raise ValueError(f"NaN or infinite values in {names[0]}")
        return {item: restored[item] for item in abstract}

    def _check(self, epoch: int, abstract: dict[str, Any]) -> None:
        """Compares every leaf first: Orbax may load part of a tree without an error."""
        with self._reading(epoch):
            described = self._manager.item_metadata(epoch)
            if missing := [item for item in abstract if described.get(item) is None]:
                raise ValueError(f"it lacks its {missing[0]}")
            stored = {item: named_leaves(described[item].tree) for item in abstract}
        for item, tree in abstract.items():
            if shown := differing_shapes(stored[item], named_leaves(tree)):
                raise RunError(
                    f"{self._folder}/{epoch}: its {item} are of another network or version "
                    f"({shown})"
                )

    @contextlib.contextmanager
    def _reading(self, epoch: int) -> Iterator[None]:
        """Names the checkpoint that the block cannot read."""
        try:
            with _orbax_silenced():
                yield
        except Exception as error:  # the storage below raises bare ones
            raise _DamagedError(
                f"{self._folder}/{epoch}: this checkpoint is damaged ({_reason(error)})"
            ) from error


class _DamagedError(RunError):
    """A checkpoint that cannot be read, though it may be of the right network."""


@dataclass(frozen=True)
class _Summary:
    """A checkpoint's validation loss as text, and each item's digest."""

    loss: str
    digests: dict[str, str] | None = None

    def __post_init__(self) -> None:
        float(self.loss)  # or a ValueError
        if (self.digests or {}).get("loss", "") not in ("", _digest_of(self.loss)):
            raise ValueError(f"its loss {self.loss} is not that which was saved")

    @property
    def finite_loss(self) -> float:
        """The loss; infinity where it is not finite, which is never the best."""
        return float(self.loss) if math.isfinite(float(self.loss)) else math.inf


def _digest_of(loss: str) -> str:
    return f"{zlib.crc32(loss.encode()):08x}"


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


def _reason(error: Exception) -> str:
    text = str(error).partition(". See full TensorStore details")[0]
    if system_error := re.search(r": ([^:]+) \[os_error_code", text):
        return system_error[1]  # such as: No space left on device
    return textwrap.shorten((text.splitlines() or [type(error).__name__])[0], 160)


@contextlib.contextmanager
def _orbax_silenced() -> Iterator[None]:
    """Drops what orbax prints about a failed read or write; the failure is raised as well.

    Its reads run concurrently; those left over after a failure report it when they are collected.
    Everything else is printed as before.
    """
    before, logger = sys.unraisablehook, logging.getLogger("absl")

    def report(unraisable: Any) -> None:
        coroutine = getattr(unraisable.object, "cr_code", None)
        closed = str(unraisable.exc_value) == "Event loop is closed"
        if not closed and "orbax" not in getattr(coroutine, "co_filename", ""):
            before(unraisable)

    def from_elsewhere(record: logging.LogRecord) -> bool:
        return "orbax" not in Path(record.pathname).parts

    sys.unraisablehook = report
    logger.addFilter(from_elsewhere)
    try:
        yield
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        gc.collect()
        raise
    finally:
        sys.unraisablehook = before
        logger.removeFilter(from_elsewhere)
