"""Starts a run folder, or resumes the run in it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from covid_jax.data import SliceDataset
from covid_jax.data.statistics import require_hu, survey
from covid_jax.errors import RunError
from covid_jax.parallel import is_primary_process, together
from covid_jax.runs import record as run_record
from covid_jax.runs.config import TrainConfig
from covid_jax.runs.record import DataRecord, Origin, RunRecord
from covid_jax.splits.near_duplicates import similar_pairs
from covid_jax.splits.policies import Split, find_split
from covid_jax.terminal import counting_bar
from covid_jax.transforms.preprocessing import Normalization, choose_normalization


def set_up_run(
    config: TrainConfig,
    dataset: SliceDataset,
    out: Path,
    console: Console,
    command: Sequence[str],
    custom: dict[str, str],
    origin: Origin | None = None,
) -> tuple[Split, Normalization]:
    """Writes config.json and split.json to the run folder, and prints how the data is split.

    Only the primary process writes; the others compute the same. ``custom`` names the loss or model
    that was passed from Python, ``origin`` describes the initial weights.

    Raises:
      ConfigError, DataError, RunError: as ``covid_jax.training.train`` does.
    """
    with together(f"{out}: opening the run folder"):
        if config.resume:
            split, normalization = _resume(config, dataset, out, console, command, custom, origin)
        else:
            split = _draw_split(dataset, config, console)
            normalization = choose_normalization(
                dataset.network.images,
                split.indices(dataset, "train"),
                intensity=config.data.intensity,
                window=config.data.window,
            )
            if is_primary_process():
                data = _describe(dataset, normalization)
                record = RunRecord.new(config, data, command, custom, origin)
                run_record.start_record(out, record)
                split.save(out / "split.json")
    for warning in (*split.warnings, *(origin.notes if origin else ())):
        console.print(f"[yellow]note:[/yellow] {escape(warning)}")
    console.print(
        f"{len(split.train)} training, {len(split.val)} validation, {len(split.test)} test slices; "
        f"{escape(split.statement)}"
    )
    return split, normalization


def _describe(dataset: SliceDataset, normalization: Normalization) -> DataRecord:
    """What config.json says of the data."""
    return DataRecord(
        layout=dataset.layout,
        fingerprint=dataset.fingerprint(),
        normalization=normalization,
        notes=dataset.notes,
        slices=len(dataset),
        sources=tuple(part._asdict() for part in survey(dataset)),
    )


def _resume(
    config: TrainConfig,
    dataset: SliceDataset,
    out: Path,
    console: Console,
    command: Sequence[str],
    custom: dict[str, str],
    origin: Origin | None,
) -> tuple[Split, Normalization]:
    """Checks that the run in the folder is this one; reads its split."""
    record = run_record.read_record(out)
    if is_primary_process():
        resumed = run_record.resume_record(out, config, dataset.fingerprint(), command)
        _check_resumable(out, config, record, custom)
        record = dataclasses.replace(resumed, origin=origin or record.origin)
    path = out / "split.json"
    if path.exists():
        split = Split.load(path)  # never drawn again: training slices must not be tested on
    elif (out / "checkpoints").exists():
        raise RunError(f"{path}: is missing; without it nobody knows which slices trained")
    else:  # killed before it was written, and so before any step
        split = _draw_split(dataset, config, console)
        if is_primary_process():
            split.save(path)
    if is_primary_process():
        run_record.write_record(out, record)
    return split, record.data.normalization


def _check_resumable(
    out: Path, config: TrainConfig, record: RunRecord, custom: dict[str, str]
) -> None:
    if record.custom != custom:
        raise RunError(
            f"{out}: was started with a custom {record.custom or 'nothing'}, not {custom}; give "
            "train the same loss and model"
        )
    epochs = record.config.epochs
    if config.optimizer.schedule == "cosine" and config.epochs != epochs:
        raise RunError(
            f"{out}: its cosine falls to zero over {epochs} epochs and cannot go on to "
            f"{config.epochs}; resume it with --epochs {epochs}, or start a new run"
        )


def _draw_split(dataset: SliceDataset, config: TrainConfig, console: Console) -> Split:
    if config.data.intensity == "window":
        require_hu(dataset)
    with counting_bar(console, "searching near-duplicates") as progress:
        similar = similar_pairs(dataset.network.images.codes, progress=progress)
    return find_split(dataset, config.data, similar)
