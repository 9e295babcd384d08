"""Starts a run folder, or resumes the run in it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from covid_jax.data import SliceDataset
from covid_jax.data.statistics import require_hu, survey
from covid_jax.errors import ConfigError, RunError
from covid_jax.parallel import is_primary_process, together
from covid_jax.runs import record as records
from covid_jax.runs.config import TrainConfig
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
    origin: records.Origin | None = None,
) -> tuple[Split, Normalization]:
    """Writes config.json and split.json to the run folder, and prints how the data is split.

    Only the primary process writes; the others compute the same. ``custom`` names the loss or model
    that was passed from Python, ``origin`` describes the initial weights.

    Raises:
      ConfigError, DataError, RunError: as ``covid_jax.training.train`` does.
    """
    with together(f"{out}: opening the run folder"):
        before = records.read_record(out) if config.resume else None
        split_file = out / "split.json"
        if config.resume and split_file.exists():
            split = Split.load(split_file)  # never drawn again: no training slice may be tested
        elif config.resume and (out / "checkpoints").exists():
            raise RunError(f"{split_file}: is missing; without it the training slices are unknown")
        else:
            split = _draw_split(dataset, config, console)
        batches = -(-(config.epoch_slices or len(split.train)) // config.batch_size)
        if (left := batches * (config.epochs - config.optimizer.warmup_epochs)) < config.accumulate:
            few = f"only {left} batches come after the warm-up; use fewer, or more --epochs"
            raise ConfigError(f"--accumulate {config.accumulate}: {few}")
        normalization = before.data.normalization if before else _measure(dataset, config, split)
        about = dataset.layout, dataset.fingerprint(), normalization, dataset.notes
        data = records.DataRecord(*about, slices=len(dataset), sources=tuple(survey(dataset)))
        record = records.RunRecord.new(config, data, command)
        record = dataclasses.replace(record, custom=custom, origin=origin)
        if is_primary_process():
            if before is None:
                records.start_record(out, record)
            else:
                records.write_record(out, records.resume_record(out, before, record))
            if not split_file.exists():
                split.save(split_file)
    for warning in (*split.warnings, *(origin.notes if origin else ())):
        console.print(f"[yellow]note:[/yellow] {escape(warning)}")
    train, val, test = map(len, (split.train, split.val, split.test))
    counts = f"{train} training, {val} validation, {test} test slices"
    console.print(f"{counts}; {escape(split.statement)}")
    return split, normalization


def _measure(dataset: SliceDataset, config: TrainConfig, split: Split) -> Normalization:
    """The normalization of a new run."""
    how = {"intensity": config.data.intensity, "window": config.data.window}
    return choose_normalization(dataset.network.images, split.indices(dataset, "train"), **how)


def _draw_split(dataset: SliceDataset, config: TrainConfig, console: Console) -> Split:
    if config.data.intensity == "window":
        require_hu(dataset)
    with counting_bar(console, "searching near-duplicates") as progress:
        similar = similar_pairs(dataset.network.images.codes, progress=progress)
    return find_split(dataset, config.data, similar)
