"""What the commands do once their flags are understood."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.markup import escape

from covid_jax.cli.tables import (
    decoding_bar,
    show_comparison,
    show_config,
    show_notes,
    show_pairs,
    show_scores,
    show_semiseg,
    show_study,
    show_survey,
)
from covid_jax.cli.weights import runs_to_use, show_terms
from covid_jax.data import SliceDataset, open_dataset
from covid_jax.data.statistics import source_problems, survey
from covid_jax.errors import DataError
from covid_jax.files import cache_folder, replace_text
from covid_jax.phantom.dataset import GENERATOR_VERSION, write_phantom
from covid_jax.prediction.options import PredictOptions
from covid_jax.runs.config import DataConfig, EvalConfig, TrainConfig, Which
from covid_jax.runs.provenance import NOTICE, provenance
from covid_jax.runs.record import read_record
from covid_jax.splits.near_duplicates import similar_pairs
from covid_jax.transforms.augmentation import AugmentConfig


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
            crop=config.crop == "lungs",
            grey_scale=config.intensity == "lung",
            progress=progress,
        )
        _ = dataset.network  # resized now, once, where the bar is seen
    console.print(f"{escape(dataset.layout)} in {escape(', '.join(map(str, folders)))}")
    for part in survey(dataset):
        low, high = part.range
        console.print(
            escape(f"  {part.source}: {part.slices} slices, {low:g} to {high:g} ({part.scale})")
        )
    show_notes((*dataset.notes, *source_problems(dataset)), console)
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
    show_terms([config.init.init_from or Path()], console)
    dataset = open_data(config.data, console)
    out = config.out or Path("runs") / data_name(config.data.data)
    if seeds or config.data.fold == "all":
        from covid_jax.cli.study import run_study

        show_study(run_study(config, seeds, dataset, out, console, command), out, console)
        return

    from covid_jax.training import train as train_run

    train_run(config, dataset, out, console=console, command=command)
    console.print(escape(f"Trained: {out}. Test metrics and pictures: python eval.py {out}"))


def evaluate(
    folders: tuple[Path, ...],
    data: tuple[Path, ...],
    config: EvalConfig,
    out: Path | None,
    console: Console,
    command: Sequence[str],
) -> None:
    """Scores a run, or an ensemble."""
    from covid_jax.ensemble import load_runs
    from covid_jax.evaluation import evaluate as evaluate_run
    from covid_jax.reporting.evaluation_report import draw_evaluation

    show_terms(folders, console)
    run = load_runs(folders)
    source = run.config.data
    dataset = open_data(dataclasses.replace(source, data=data or source.data), console)
    with console.status("predicting and scoring"):
        evaluation = evaluate_run(run, dataset, config, out=out, command=command)
        draw_evaluation(run, dataset, evaluation, report=config.report)
    show_scores(evaluation.report, console)


def predict(
    scans: tuple[Path, ...],
    folders: tuple[Path, ...],
    out: Path,
    options: PredictOptions,
    which: Which,
    averaged: bool,
    console: Console,
    command: Sequence[str],
) -> bool:
    """Writes masks of scans; whether none was left out."""
    from covid_jax.ensemble import load_runs
    from covid_jax.prediction.predict_scans import predict_scans
    from covid_jax.prediction.progress import show_failures, show_scans

    run = load_runs(runs_to_use(folders, console), which, averaged=averaged)
    if any("synthetic phantom" in note for note in run.record["data"].get("notes", ())):
        said = "this run knows the synthetic phantom only: what it marks on a patient means nothing"
        console.print(f"[bold yellow]WARNING[/bold yellow] {said}")
    outcome = predict_scans(run, scans, out, options, console, command)
    show_scans(outcome.predicted, console)
    show_failures(outcome.failures, console)
    console.print(escape(f"files  {out}/ masks, a summary each, summary.csv, slices.csv"))
    console.print(NOTICE)
    return not outcome.failures


def compare(
    runs: tuple[Path, ...],
    data: tuple[Path, ...],
    subset: str,
    out: Path,
    console: Console,
    command: Sequence[str],
) -> None:
    """Compares runs that have been scored."""
    from covid_jax.evaluation.compare import compare as compare_runs
    from covid_jax.evaluation.compare import read_scored
    from covid_jax.reporting.method_figure import draw_comparison

    scored = read_scored(runs, subset)  # before data is opened for nothing
    source = read_record(runs[0]).config.data
    dataset = open_data(dataclasses.replace(source, data=data or source.data), console)
    draw_comparison(scored, dataset, out)
    show_comparison(compare_runs(runs, subset, out, command), out, console)


def score(
    predictions: Path, truth: Path, out: Path | None, console: Console, command: Sequence[str]
) -> None:
    """Scores a folder of soft maps by the COVID-SemiSeg protocol."""
    from covid_jax.evaluation.score_maps import read_truths, score_folder
    from covid_jax.evaluation.summary import semiseg_record
    from covid_jax.metrics.covid_semiseg import summarize_semiseg

    scores, resized = score_folder(predictions, read_truths(truth))
    record = {
        "predictions": str(predictions),
        "truth": str(truth),
        "slices": len(scores),
        "resized": resized,
        "covid-semiseg": semiseg_record(summarize_semiseg(list(scores.values()))),
        "slices_dice": {name: float(one.dice.mean()) for name, one in scores.items()},
        **provenance(command),
    }
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            replace_text(out, json.dumps(record, indent=1))
        except OSError as error:
            raise DataError(f"{out}: cannot be written ({error.strerror})") from error
    show_semiseg(record, console)


def export(
    folder: Path,
    format: Literal["bundle", "stablehlo", "onnx"],
    out: Path,
    which: Which,
    averaged: bool,
    console: Console,
) -> None:
    """Writes a run's network for others."""
    from covid_jax.export import export_run
    from covid_jax.inference import load_run

    show_terms([folder], console)
    run = load_run(folder, which, averaged=averaged)
    with console.status(f"writing {format}"):
        written = export_run(run, format, out)
    console.print(escape(f"Written: {', '.join(map(str, written))}. {NOTICE}"))


def look(config: DataConfig, out: Path | None, console: Console) -> None:
    """Shows what a dataset holds: a table, near-duplicates, pictures."""
    from covid_jax.reporting.contact_sheet import augmentation_sheet, dataset_sheet

    dataset = open_data(config, console)
    show_survey(survey(dataset), console)
    with console.status("searching near-duplicate slices"):
        pairs = similar_pairs(dataset.network.images.codes)
    show_pairs(dataset, pairs, console)
    out = out or Path("runs") / f"{data_name(config.data)}-look"
    try:
        dataset_sheet(dataset, out / "slices.png")
        augmentation_sheet(dataset, AugmentConfig.standard(), out / "augmentation.png")
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
