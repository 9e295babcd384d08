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
import shutil
import sys
import textwrap
import time
import traceback
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath  # orbax's own paths
from jax.sharding import Sharding, SingleDeviceSharding

from covid_jax.errors import RunError
from covid_jax.files import read_json, writing_to
from covid_jax.parallel import is_primary_process
from covid_jax.runs.config import Which
from covid_jax.runs.digest import differing_shapes, digest, named_leaves, not_finite
from covid_jax.schema import parse

_PARTIAL = ".orbax-checkpoint-tmp"  # in the name of what a killed save or deletion leaves


class Restored(NamedTuple):
    """A checkpoint read back.

    Attributes:
      epoch: its number.
      items: the requested trees, by name.
      damaged: messages about damaged checkpoints that were skipped; empty if there are none.
    """

    epoch: int
    items: dict[str, Any]
    damaged: tuple[str, ...]


class Checkpoints:
    """The checkpoints under one folder, numbered by epoch.

    Args:
      folder: of the checkpoints.
      create: whether to create the folder; otherwise it must exist.

    Raises:
      RunError: if the folder is missing, or cannot be made.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        if not create and not folder.is_dir():
            raise RunError(f"{folder}: no checkpoints here; was the run started?")
        self._folder = folder
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            epochs = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        self._losses: dict[int, float] = {}
        self._unranked: list[str] = []
        for epoch in epochs:
            try:
                self._losses[epoch] = self._summary(epoch).finite_loss
            except _DamagedError as error:
                self._losses[epoch] = math.inf  # never the best
                self._unranked.append(str(error))

    def save(self, epoch: int, weights: Any, trainer: Any, loss: float) -> None:
        """Writes a checkpoint, all of it or nothing; the lowest loss is the best (NaN: the worst).

        Raises:
          RunError: if it cannot be written; those before it are untouched.
        """
        items = {"weights": weights, "trainer": trainer}
        digests = {name: digest(named_leaves(tree)) for name, tree in items.items()}
        digests["loss"] = _digest_of(repr(loss))
        summary = _Summary(repr(loss), digests)
        trees = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        stored = ocp.args.JsonSave(dataclasses.asdict(summary))
        self._remove_partial()
        try:
            with _orbax(), ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
                path = self._folder.absolute() / str(epoch)
                writer.save(path, args=ocp.args.Composite(**trees, summary=stored))
        except Exception as error:  # the storage below raises bare ones
            self._remove_partial()
            problem = f"epoch {epoch} cannot be saved ({_reason(error)}); make room, then --resume"
            raise RunError(f"{self._folder}: {problem}") from error
        self._losses[epoch] = summary.finite_loss
        self._delete({*self._losses} - {*self._ranked("latest")[:2], self._ranked("best")[0]})

    def epoch(self, which: Which) -> int | None:
        """Number of the latest or best checkpoint; None where there is none."""
        return next(iter(self._ranked(which)), None)

    def restore(self, which: Which, sharding: Sharding | None = None, **abstract: Any) -> Restored:
        """Restores items into trees of the given shapes.

        Args:
          which: the latest or the best checkpoint; if it is damaged, the next one in that order.
          sharding: where the arrays go; by default onto the first device.
          **abstract: for each item wanted (weights, trainer), a tree of arrays or
            ShapeDtypeStructs of the shapes expected.

        Raises:
          RunError: if there is no checkpoint; if all are damaged (unreadable, wrong digest,
            non-finite weights); or if a leaf is missing, unexpected or of another shape. Nothing is
            loaded partially.
        """
        sharding = sharding or SingleDeviceSharding(jax.local_devices()[0])
        damaged = [*self._unranked] * (which == "best")  # any of them may have been the best
        for epoch in self._ranked(which):
            try:
                digests = self._summary(epoch).digests or {}
                items = {
                    item: self._restore(epoch, item, tree, sharding, digests.get(item))
                    for item, tree in abstract.items()
                }
                return Restored(epoch, items, tuple(damaged))
            except _DamagedError as error:
                damaged.append(str(error))
        if damaged:
            raise RunError("; ".join(dict.fromkeys(damaged)))
        raise RunError(f"{self._folder}: no checkpoint here; the run ended in its first epoch")

    def forget_after(self, epoch: int) -> None:
        """Deletes later checkpoints: they are damaged, and their epochs will be trained again."""
        self._delete({later for later in self._losses if later > epoch})

    def _ranked(self, which: Which) -> list[int]:
        """Epochs, the preferred first: the latest, or the lowest loss (the earliest of equals)."""
        epochs = sorted(self._losses, reverse=True)
        if which == "latest":
            return epochs

        def rank(epoch: int) -> tuple[float, int]:
            loss = self._losses[epoch]
            return (loss, epoch) if math.isfinite(loss) else (loss, -epoch)

        return sorted(epochs, key=rank)

    def _delete(self, epochs: set[int]) -> None:
        """Renames checkpoints before it removes them, so that a kill leaves none half deleted."""
        self._remove_partial()
        for epoch in epochs:
            del self._losses[epoch]
            if is_primary_process():
                with contextlib.suppress(OSError):
                    (self._folder / str(epoch)).rename(self._folder / f"{epoch}{_PARTIAL}")
        self._remove_partial()

    def _remove_partial(self) -> None:
        for path in self._folder.glob(f"*{_PARTIAL}*") if is_primary_process() else ():
            shutil.rmtree(path, ignore_errors=True)

    def _summary(self, epoch: int) -> "_Summary":
        folder = self._folder / str(epoch)
        with self._reading(epoch):
            if not (folder / "config").is_dir():
                return read_json(folder / "summary" / "metadata", _Summary, RunError)
            stored = read_json(folder / "config" / "metadata", error=RunError)
            return parse(_Summary, {"loss": stored.get("loss")})

    def _restore(
        self, epoch: int, item: str, tree: Any, sharding: Sharding, expected: str | None
    ) -> Any:
        """One item; its leaves are compared first: Orbax may load part of a tree without an error.

        Raises:
          _DamagedError: if it cannot be read, is not what was saved, or is not finite.
          RunError: if it is of another network.
        """
        path = epath.Path(self._folder.absolute()) / str(epoch) / item

        def placed(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        with self._reading(epoch):
            if not path.is_dir():
                raise ValueError(f"it lacks its {item}")
            handler = ocp.StandardCheckpointHandler()
            stored = named_leaves(handler.metadata(path).tree)
        if shown := differing_shapes(stored, named_leaves(tree)):
            problem = f"its {item} are of another network or version ({shown})"
            raise RunError(f"{self._folder}/{epoch}: {problem}")
        with self._reading(epoch):
            abstract = jax.tree.map(placed, tree)
            restored = handler.restore(path, args=ocp.args.StandardRestore(abstract))
            leaves = named_leaves(restored)
            if expected not in (None, digest(leaves)):
                raise ValueError(f"its {item} are not those that were saved")
            if item == "weights" and (names := not_finite(leaves)):
                raise ValueError(f"NaN or infinite values in {names[0]}")
        return restored

    @contextlib.contextmanager
    def _reading(self, epoch: int) -> Iterator[None]:
        """Names the checkpoint that the block cannot read."""
        try:
            with _orbax():
                yield
        except Exception as error:  # the storage below raises bare ones
            problem = f"this checkpoint is damaged ({_reason(error)})"
            raise _DamagedError(f"{self._folder}/{epoch}: {problem}") from error


class _DamagedError(RunError):
    """A checkpoint that cannot be read; it may nevertheless be of the right network."""


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


def _reason(error: Exception) -> str:
    text = str(error).partition(". See full TensorStore details")[0]
    if system_error := re.search(r": ([^:]+) \[os_error_code", text):
        return system_error[1]  # such as: No space left on device
    return textwrap.shorten((text.splitlines() or [type(error).__name__])[0], 160)


@contextlib.contextmanager
def _orbax() -> Iterator[None]:
    """Suppresses what is printed of orbax's other reads and writes when one fails.

    The failure itself is raised. The others end in threads of the storage within milliseconds, by
    hundreds of tracebacks: their event loop is closed, or they are never awaited.
    """
    disabled, hook = logging.root.manager.disable, sys.unraisablehook
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        logging.disable(logging.ERROR)
        sys.unraisablehook = lambda _: None
        try:
            yield
        except Exception as error:
            traceback.clear_frames(error.__traceback__)
            time.sleep(0.2)
            gc.collect()
            raise
        finally:
            sys.unraisablehook = hook
            logging.disable(disabled)
