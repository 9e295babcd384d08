"""Starts a run folder, or finds in it the run to go on with."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from covid_jax.data import SliceDataset
from covid_jax.data.statistics import require_hu, survey
from covid_jax.errors import RunError
from covid_jax.parallel import is_primary_process, together
from covid_jax.runs.config import TrainConfig
from covid_jax.runs.record import read_record, resume_record, start_record, write_record
from covid_jax.splits.near_duplicates import similar_pairs
from covid_jax.splits.policies import Split, find_split
from covid_jax.transforms.preprocessing import Normalization, choose_normalization


def set_up_run(
    config: TrainConfig,
    dataset: SliceDataset,
    out: Path,
    console: Console,
    command: Sequence[str],
) -> tuple[Split, Normalization]:
    """Leaves config.json and split.json in the run folder, and says what is split how.

    Only the first process writes; the others find the same by themselves.

    Raises:
      ConfigError, DataError, RunError: as ``covid_jax.training.train`` does.
    """
    with together(f"{out}: opening the run folder"):
        split, normalization = (_resume if config.resume else _start)(config, dataset, out, command)
    for warning in split.warnings:
        console.print(f"[yellow]note:[/yellow] {escape(warning)}")
    console.print(
        f"{len(split.train)} training, {len(split.val)} validation, {len(split.test)} test slices; "
        f"{escape(split.statement)}"
    )
    return split, normalization


def _start(
    config: TrainConfig, dataset: SliceDataset, out: Path, command: Sequence[str]
) -> tuple[Split, Normalization]:
    if config.data.intensity == "window":
        require_hu(dataset)
    split = _split(dataset, config)
    train_slices = split.indices(dataset, "train")
    normalization = choose_normalization(
        dataset.network.images,
        train_slices,
        intensity=config.data.intensity,
        window=config.data.window,
    )
    if is_primary_process():
        data = {
            "layout": dataset.layout,
            "notes": dataset.notes,
            "slices": len(dataset),
            "sources": [part._asdict() for part in survey(dataset)],
            "fingerprint": dataset.fingerprint(),
            "normalization": normalization.record(),
        }
        start_record(out, config, data, command)
        split.save(out / "split.json")
    return split, normalization


def _resume(
    config: TrainConfig, dataset: SliceDataset, out: Path, command: Sequence[str]
) -> tuple[Split, Normalization]:
    if is_primary_process():
        record = resume_record(out, config, dataset.fingerprint(), command)
    else:
        record = read_record(out)
    drawn = out / "split.json"
    if drawn.exists():
        split = Split.load(drawn)  # never drawn anew: who trained must not test
    elif (out / "checkpoints").exists():
        raise RunError(f"{drawn}: is missing; without it nobody knows which slices trained")
    else:  # killed before it was written, and so before any step
        split = _split(dataset, config)
        if is_primary_process():
            split.save(drawn)
    if is_primary_process():
        write_record(out, record)
    return split, record.data.normalization


def _split(dataset: SliceDataset, config: TrainConfig) -> Split:
    similar = similar_pairs(dataset.network.images.codes)
    return find_split(dataset, config.data, similar)
