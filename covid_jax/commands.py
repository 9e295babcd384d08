"""What the commands do once their flags are understood."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from covid_jax.config import AUGMENTATIONS, DataConfig, TrainConfig
from covid_jax.data import SliceDataset, open_dataset
from covid_jax.data.duplicates import similar_pairs
from covid_jax.data.phantom import GENERATOR_VERSION, write_phantom
from covid_jax.data.survey import survey
from covid_jax.errors import DataError
from covid_jax.files import cache_folder
from covid_jax.terminal import (
    decoding_bar,
    show_config,
    show_notes,
    show_pairs,
    show_scores,
    show_study,
    show_survey,
)


def open_data(config: DataConfig, console: Console) -> SliceDataset:
    """Opens the dataset, or the phantom (drawn once into the cache), and says what it is."""
    folders = config.data or (_phantom_folder(console),)
    with decoding_bar(console) as progress:
        dataset = open_dataset(
            folders,
            config.image_size,
            lesion_slices_only=config.lesion_slices_only,
            classes=config.classes,
            series=config.series,
            progress=progress,
        )
        _ = dataset.network  # resized now, once, where the bar is seen
    console.print(f"{escape(dataset.layout)} in {escape(', '.join(map(str, folders)))}")
    for part in survey(dataset):
        low, high = part.range
        console.print(
            escape(f"  {part.source}: {part.slices} slices, {low:g} to {high:g} ({part.scale})")
        )
    show_notes(dataset.notes, console)
    return dataset


def train(
    config: TrainConfig, seeds: tuple[int, ...], console: Console, command: Sequence[str]
) -> None:
    """Trains a run, or one for each fold and seed."""
    if not config.data.data:
        console.print(
            "No --data given: training on the built-in [bold]synthetic phantom[/bold] "
            f"(preset {config.preset}). No patient was scanned."
        )
    show_config(config, console)
    dataset = open_data(config.data, console)
    out = config.out or Path("runs") / data_name(config.data.data)
    if seeds or config.data.fold == "all":
        from covid_jax.study import run_study

        show_study(run_study(config, seeds, dataset, out, console, command), out, console)
        return

    from covid_jax.training import train as train_run

    train_run(config, dataset, out, console, command)
    console.print(escape(f"Trained: {out}. Test metrics and pictures: python eval.py {out}"))


def evaluate(
    folder: Path,
    data: tuple[Path, ...],
    subset: Literal["train", "val", "test", "all"],
    batch_size: int,
    console: Console,
    command: Sequence[str],
) -> None:
    """Scores a run."""
    from covid_jax.evaluation import evaluate as score
    from covid_jax.inference import load_run

    run = load_run(folder)
    source = run.config.data
    dataset = open_data(dataclasses.replace(source, data=data or source.data), console)
    with console.status("predicting"):
        report = score(run, dataset, subset, batch_size, command)
    show_scores(report, console)


def look(config: DataConfig, out: Path | None, console: Console) -> None:
    """Shows what a dataset holds: a table, near-duplicates, pictures."""
    from covid_jax.data.pictures import augmentation_examples, contact_sheet

    dataset = open_data(config, console)
    show_survey(survey(dataset), console)
    with console.status("searching near-duplicate slices"):
        pairs = similar_pairs(dataset.network.images.codes)
    show_pairs(dataset, pairs, console)
    out = out or Path("runs") / f"{data_name(config.data)}-look"
    try:
        contact_sheet(dataset, out / "slices.png")
        augmentation_examples(dataset, AUGMENTATIONS["standard"], out / "augmentation.png")
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written ({error.strerror}); choose another --out"
        ) from error
    console.print(f"pictures: {escape(str(out))}/ slices.png, augmentation.png")


def data_name(folders: Sequence[Path]) -> str:
    """Of a run on these folders."""
    return "+".join(folder.resolve().name for folder in folders) or "phantom"


def _phantom_folder(console: Console) -> Path:
    folder = cache_folder() / f"phantom-{GENERATOR_VERSION}"
    if not folder.exists():
        with console.status("drawing the synthetic phantom, once"):
            try:
                write_phantom(folder)
            except DataError:
                if not (folder / "phantom.json").exists():  # else another process was faster
                    raise
    return folder
