"""Several runs used as one: their probabilities are averaged."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jaxtyping import Array, Float

from covid_jax import inference
from covid_jax.errors import RunError
from covid_jax.inference import Run, forward, load_run
from covid_jax.models.cpu_bfloat16 import jit_bfloat16
from covid_jax.runs.config import Which
from covid_jax.runs.weights import weights_folder
from covid_jax.transforms.preprocessing import Normalization, QuantizedSlices


def load_runs(
    paths: Sequence[str | Path],
    which: Which = "best",
    *,
    averaged: bool = True,
    precision: inference.AnyPrecision = None,
    model: linen.Module | None = None,
) -> Run:
    """Loads several runs as one ``Ensemble``, which averages their probabilities; one as a ``Run``.

    Args:
      paths: run folders, bundles, and folders of a study, of which every run is a member.
      which: as in ``load_run``.
      averaged: as in ``load_run``.
      precision: as in ``load_run``; one for all.
      model: as in ``load_run``.

    Raises:
      RunError: if one cannot be loaded, differs from the first in classes, image size, crop,
        intensities or network, is given twice, or a run of a study has not ended.
    """
    folders = [folder for path in paths for folder in members_of(weights_folder(path))]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError(f"{', '.join(map(str, folders))}: duplicate run; name each one once")
    load = functools.partial(load_run, averaged=averaged, model=model)
    if not (runs := [load(folder, which, precision=precision) for folder in folders]):
        raise RunError("no run given")
    if precision == "auto" and len({run.config.model.precision for run in runs}) > 1:
        runs = [load(folder, which) for folder in folders]
    return runs[0] if len(runs) == 1 else Ensemble(runs)


def members_of(path: Path) -> list[Path]:
    """The runs of a study folder, in order; else the folder itself.

    Raises:
      RunError: if the study has not ended.
    """
    if (path / "config.json").exists():
        return [path]
    runs = sorted(file.parent for file in path.glob("*/config.json"))
    # A study tests each run once it has been trained, and writes summary.json last.
    needed = [*(run / "eval" / "test" / "metrics.json" for run in runs), path / "summary.json"]
    if missing := [file for file in needed * bool(runs) if not file.exists()]:
        advice = "finish it with the same command, or name the runs one by one"
        raise RunError(f"{path}: the study has not ended ({missing[0]} is missing); {advice}")
    return runs or [path]


class Ensemble(Run):
    """Several runs as one: their probabilities are averaged. ``load_runs`` makes it.

    One compiled program loops over the members' parameters; mapping over kernels (``vmap``) would
    make grouped convolutions of them, which are slower.

    Attributes:
      folder: the common parent folder of all members.
      config: of the first member; the settings that decide input and output are equal in all
        members.
      record: of the first member, with the data of all.
      epoch: of the first member.
      members: the runs.
    """

    def __init__(self, members: Sequence[Run]) -> None:
        first, *others = members
        for other in others:
            _require_alike(first, other)
        data = [run.record.data for run in members]
        same = len({part.fingerprint for part in data}) == 1
        joined = dataclasses.replace(
            data[0],
            layout=" + ".join(dict.fromkeys(part.layout for part in data)),
            fingerprint=data[0].fingerprint if same else "several",
            notes=tuple(dict.fromkeys(note for part in data for note in part.notes)),
            sources=tuple(row for part in data for row in part.sources),
        )
        weights = [(run.params, run.normalization.mean, run.normalization.std) for run in members]
        folder = Path(os.path.commonpath([run.folder.absolute() for run in members]))
        record = dataclasses.replace(first.record, data=joined)
        params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
        model, precision = first.model, first.config.model.precision
        super().__init__(folder, record, first.epoch, params, model, precision, first.variant)
        self.members = tuple(members)
        each = functools.partial(_forward_each, self.model, self.normalization)
        self._forward = jit_bfloat16(each, precision)


def _require_alike(first: Run, other: Run) -> None:
    """Refuses a member with a different input, output or network."""
    for name, value in _interface(first).items():
        if (differing := _interface(other)[name]) != value:
            found = f"its {name} ({differing}) differ from those of {first.folder} ({value})"
            raise RunError(f"{other.folder}: {found}; an ensemble needs runs alike in them")


def _interface(run: Run) -> dict[str, Any]:
    data, normalization = run.config.data, run.normalization
    own = normalization.mean is not None and not normalization.clip  # of its training part
    return {
        "classes": data.classes,
        "image size": data.image_size,
        "crop": data.crop,
        "intensities": (data.intensity, "its own" if own else normalization),
        "network": run.model,
    }


def _forward_each(
    model: linen.Module, normalization: Normalization, stacked: Any, images: QuantizedSlices
) -> Float[Array, "b m s s c"]:
    """One member after the other, each with its own mean and standard deviation."""

    def member(weights: Any) -> Float[Array, "b s s c"]:
        params, mean, std = weights
        return forward(model, Normalization(mean, std, normalization.clip), params, images)

    return jnp.moveaxis(jax.lax.map(member, stacked), 0, 1)
