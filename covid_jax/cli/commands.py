"""The commands that use a network or a dataset, given their parsed flags."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from covid_jax.cli import flags as cli
from covid_jax.cli import tables
from covid_jax.cli.main import keep_freed_memory
from covid_jax.cli.settings_shown import data_name, run_folder, show_settings, without_effect
from covid_jax.data import SliceDataset
from covid_jax.data.open_dataset import list_folders, open_listing
from covid_jax.data.statistics import source_problems, survey
from covid_jax.errors import DataError, RunError
from covid_jax.files import cache_folder, writing_to
from covid_jax.parallel import any_process, is_primary_process, join_hosts
from covid_jax.phantom.dataset import GENERATOR_VERSION, write_phantom
from covid_jax.runs.config import DataConfig, TrainConfig
from covid_jax.runs.provenance import NOTICE
from covid_jax.runs.record import read_record
from covid_jax.runs.weights import PREFIX, find_weights
from covid_jax.splits.near_duplicates import similar_pairs
from covid_jax.terminal import counting_bar


def open_data(config: DataConfig, console: Console) -> SliceDataset:
    """Opens the dataset, or the phantom (generated once and cached), and prints a description."""
    folders = config.data or (_phantom_folder(console),)
    with counting_bar(console, "decoding, once") as progress:
        dataset = open_listing(list_folders(folders, config.classes), config, progress)
        _ = dataset.network  # resized now, once, where the bar is seen
    console.print(f"{escape(dataset.layout)} in {escape(', '.join(map(str, folders)))}")
    for part in survey(dataset):
        values = f"{part.range[0]:g} to {part.range[1]:g} ({part.scale})"
        console.print(escape(f"  {part.source}: {part.slices} slices, {values}"))
    tables.show_notes((*dataset.notes, *source_problems(dataset)), console)
    return dataset


def show_terms(runs: Iterable[Path], console: Console) -> None:
    """Prints the terms of each run that is a set of installed weights."""
    for run in runs:
        if str(run).startswith(PREFIX):
            weights = find_weights(str(run).removeprefix(PREFIX))
            for text in (f"{run}: {weights.pictures}", f"Terms: {weights.terms}", NOTICE):
                console.print(escape(text))


def set_up_process(config: TrainConfig) -> None:
    """Process-wide settings, to be made before the first use of a device."""
    keep_freed_memory()
    if config.deterministic:
        xla_flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{xla_flags} --xla_gpu_deterministic_ops=true".strip()


def train(flags: cli.TrainFlags, console: Console, command: Sequence[str]) -> None:
    """Trains a run, or one for each fold and seed."""
    config = flags.settings
    set_up_process(config)
    join_hosts(**vars(flags.hosts))
    console.quiet = flags.quiet or not is_primary_process()
    if not config.data.data:
        console.print(
            "No --data given: training on the built-in [bold]synthetic phantom[/bold] "
            f"(preset {config.preset}). No patient was scanned."
        )
    show_terms([config.init.init_from or Path()], console)
    study = bool(flags.seeds) or config.data.fold == "all"
    out = run_folder(config, study=study)
    any_process(False)  # none makes the folder before all have looked for a free one
    dataset = open_data(config.data, console)
    show_settings(config, console, whole=flags.verbose)
    tables.show_notes((*without_effect(config), *_slow_bfloat16(config)), console)
    if study:
        from covid_jax.cli.study import run_study

        summary = run_study(config, flags.seeds, dataset, out, console, command)
        tables.show_study(summary, out, console)
        return

    from covid_jax.training import train as train_run

    train_run(config, dataset, out, console=console, command=command)
    scored = "python eval.py" if command[:1] == ["train.py"] else "covid-jax eval"
    console.print(escape(f"Trained: {out}. Test metrics and pictures: {scored} {out}"))


def evaluate(flags: cli.EvalFlags, console: Console, command: Sequence[str]) -> None:
    """Scores a run, or an ensemble."""
    from covid_jax.ensemble import load_runs
    from covid_jax.evaluation import evaluate as evaluate_run
    from covid_jax.reporting.evaluation_report import draw_evaluation

    show_terms(flags.run, console)
    run = load_runs(flags.run, flags.which, averaged=flags.averaged, precision=flags.precision)
    tables.show_notes(_slow_bfloat16(run.config), console)
    source, lesions = run.config.data, flags.lesion_slices_only
    folders = flags.data or _data_folders(run.members[0].folder)
    lesions = source.lesion_slices_only if lesions is None else lesions
    source = dataclasses.replace(source, data=folders, lesion_slices_only=lesions)
    dataset = open_data(source, console)
    with console.status("predicting and scoring"):
        evaluation = evaluate_run(run, dataset, flags.settings, out=flags.out, command=command)
        draw_evaluation(evaluation, report=flags.settings.report)
    tables.show_scores(evaluation.report, console)


def _slow_bfloat16(config: TrainConfig) -> list[str]:
    """A note if bfloat16 was requested but is not faster on this device."""
    from covid_jax.models.cpu_bfloat16 import slow_bfloat16

    reason = slow_bfloat16() if config.model.precision == "bfloat16" else ""
    return [f"bfloat16 takes no less time than float32 here: {reason}"] if reason else []


def _data_folders(folder: Path) -> tuple[Path, ...]:
    """The folders of a run's data; none for the phantom.

    Raises:
      RunError: if it was trained on arrays in memory.
    """
    record = read_record(folder)
    if not record.config.data.data and "phantom" not in record.data.layout:
        raise RunError(f"{folder}: trained on arrays in memory; name the data with --data")
    return record.config.data.data


def predict(flags: cli.PredictFlags, console: Console, command: Sequence[str]) -> None:
    """Writes masks of scans; exits with status 1 if a scan could not be predicted."""
    from covid_jax.ensemble import load_runs
    from covid_jax.prediction.predict_scans import predict_scans

    runs = flags.run or (Path(PREFIX + find_weights().name),)
    show_terms(runs, console)
    run = load_runs(runs, flags.which, averaged=flags.averaged, precision=flags.precision)
    tables.show_notes(_slow_bfloat16(run.config), console)
    if any("synthetic phantom" in note for note in run.record.data.notes):
        said = "this run knows the synthetic phantom only: what it marks on a patient means nothing"
        console.print(f"[bold yellow]WARNING[/bold yellow] {said}")
    outcome = predict_scans(run, flags.scans, flags.out, flags.settings, console, command)
    tables.show_scans(outcome.predicted, console)
    tables.show_failures(outcome.failures, console)
    page = ", index.html" if flags.settings.report else ""
    console.print(escape(f"files  {flags.out}/ masks, summaries, summary.csv, slices.csv{page}"))
    console.print(NOTICE)
    if outcome.failures:
        raise SystemExit(1)


def compare(flags: cli.CompareFlags, console: Console, command: Sequence[str]) -> None:
    """Compares runs that have been scored."""
    from covid_jax.evaluation.compare import compare as compare_runs
    from covid_jax.evaluation.compare import read_scored
    from covid_jax.reporting.example_figures import draw_comparison

    scored = read_scored(flags.runs, flags.subset)  # before data is opened for nothing
    first = scored[0].report
    source = first.data_settings
    folders = flags.data or source.data
    if folders or "phantom" in first.data:
        dataset = open_data(dataclasses.replace(source, data=folders), console)
        draw_comparison(scored, dataset, flags.out)
    else:
        tables.show_notes(["no pictures are drawn: their images are unknown (--data)"], console)
    record = compare_runs(flags.runs, flags.subset, flags.out, command)
    tables.show_comparison(record, flags.out, console)


def score(flags: cli.ScoreFlags, console: Console, command: Sequence[str]) -> None:
    """Scores a folder of masks or probabilities of any origin."""
    from covid_jax.evaluation.score_masks import list_truths, score_masks
    from covid_jax.reporting.evaluation_report import draw_evaluation
    from covid_jax.splits.split import Split

    read = {name: getattr(flags, name) for name in ("lesion_slices_only", "classes", "series")}
    config = DataConfig(flags.data, **read)
    split = None
    if flags.like:
        folders = _data_folders(flags.like) or (_phantom_folder(console),)
        config = dataclasses.replace(read_record(flags.like).config.data, data=folders)
        split = Split.load(flags.like / "split.json")
    known = list_truths(flags.truth, flags.classes) if flags.truth else None
    listing = known or list_folders(config.data, config.classes)
    as_stored = dataclasses.replace(config, crop="none", intensity="slice")
    out = flags.out or Path("scored") / flags.predictions.resolve().name
    with counting_bar(console, "decoding, once") as progress:
        dataset = open_listing(listing, as_stored, progress)
    with console.status("scoring"):
        evaluation = score_masks(
            flags.predictions, listing, dataset, config, out, flags.settings, split, command
        )
        draw_evaluation(evaluation, report=flags.settings.report)
    tables.show_scores(evaluation.report, console)


def export(flags: cli.ExportFlags, console: Console, command: Sequence[str]) -> None:
    """Exports a run's network."""
    from covid_jax.export import export_run
    from covid_jax.inference import load_run

    show_terms([flags.run], console)
    run = load_run(flags.run, flags.which, averaged=flags.averaged)
    with console.status(f"writing {flags.format}"):
        written = export_run(run, flags.format, flags.out)
    console.print(escape(f"Written: {', '.join(map(str, written))}. {NOTICE}"))


def look(flags: cli.DataFlags, console: Console, command: Sequence[str]) -> None:
    """Describes a dataset: a table, near-duplicates, pictures."""
    from covid_jax.reporting.contact_sheet import dataset_sheet

    chosen = flags.path, flags.image_size, flags.lesion_slices_only, flags.classes, flags.series
    dataset = open_data(DataConfig(*chosen), console)
    tables.show_survey(survey(dataset), console)
    with counting_bar(console, "searching near-duplicates") as progress:
        pairs = similar_pairs(dataset.network.images.codes, progress=progress)
    tables.show_pairs(dataset, pairs, console)
    out = flags.out or Path("runs") / f"{data_name(flags.path)}-look"
    with writing_to(out, error=DataError):
        dataset_sheet(dataset, out / "slices.png")
    console.print(f"picture: {escape(str(out))}/ slices.png")


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
