"""Pytrees to and from a run folder's checkpoints. Only this file knows orbax; it knows no training.

A checkpoint is three items: weights (what inference needs), trainer (what resuming needs besides)
and config. The latest two and the best one are kept.
"""

import contextlib
import math
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from covid_jax.errors import RunError

Which = Literal["latest", "best"]


class Checkpoints(contextlib.AbstractContextManager):
    """The checkpoints under one folder, numbered by epoch."""

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        if not create and not folder.is_dir():
            raise RunError(f"{folder}: no checkpoints here; was the run started?")
        loss = lambda metrics: metrics["loss"]  # noqa: E731
        self._folder = folder
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                best_fn=loss,
                best_mode="min",
                preservation_policy=preservation_policy.AnyPreservationPolicy(
                    [
                        preservation_policy.LatestN(2),
                        preservation_policy.BestN(get_metric_fn=loss, reverse=True, n=1),
                    ]
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

    def __exit__(self, *exc_info: object) -> None:
        self._manager.close()

    def save(self, epoch: int, weights: Any, trainer: Any, config: dict, loss: float) -> None:
        """Writes a checkpoint whole or not at all; loss decides which is best (NaN: the worst)."""
        self._manager.save(
            epoch,
            args=ocp.args.Composite(
                weights=ocp.args.StandardSave(weights),
                trainer=ocp.args.StandardSave(trainer),
                config=ocp.args.JsonSave(config),
            ),
            metrics={"loss": loss if math.isfinite(loss) else sys.float_info.max},
        )

    def epoch(self, which: Which) -> int | None:
        """Number of the latest or best checkpoint; None where there is none."""
        return self._manager.latest_step() if which == "latest" else self._manager.best_step()

    def restore(self, which: Which, **abstract: Any) -> dict[str, Any]:
        """Restores items into trees of the given shapes, on the default device.

        Args:
          which: the latest or the best checkpoint.
          **abstract: for each item wanted (weights, trainer), a tree of arrays or
            ShapeDtypeStructs of the shapes expected.

        Raises:
          RunError: if there is no checkpoint, it is damaged, or a leaf is missing, left over or
            of another shape; nothing is loaded in part.
        """
        epoch = self.epoch(which)
        if epoch is None:
            raise RunError(f"{self._folder}: no checkpoint here; the run ended in its first epoch")
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        on_device = lambda leaf: jax.ShapeDtypeStruct(  # noqa: E731
            leaf.shape, leaf.dtype, sharding=device
        )
        for item, tree in abstract.items():
            self._check(epoch, item, tree)
        arguments = {
            item: ocp.args.StandardRestore(jax.tree.map(on_device, tree))
            for item, tree in abstract.items()
        }
        try:
            restored = self._manager.restore(epoch, args=ocp.args.Composite(**arguments))
        except Exception as error:  # the storage below raises bare ones
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RunError(
                f"{self._folder}/{epoch}: this checkpoint is damaged ({reason})"
            ) from error
        return {item: restored[item] for item in abstract}

    def _check(self, epoch: int, item: str, tree: Any) -> None:
        """Orbax can load part of a tree without a word; this compares every leaf first."""
        try:
            stored = _shapes(self._manager.item_metadata(epoch)[item].tree)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise RunError(f"{self._folder}/{epoch}: this checkpoint lacks its {item}") from error
        wanted = _shapes(tree)
        if stored == wanted:
            return
        names = sorted(set(stored.items()) ^ set(wanted.items()))
        shown = "; ".join(
            f"{name}: stored {stored.get(name, 'nothing')}, expected {wanted.get(name, 'nothing')}"
            for name in sorted({name for name, _ in names})[:3]
        )
        raise RunError(
            f"{self._folder}/{epoch}: its {item} are of another network or version ({shown})"
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }
