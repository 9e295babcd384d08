"""The command line: flags to configs, errors to exit status 2. Only this file knows tyro."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import jax
import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from covid_jax.config import PRESETS, DataConfig, PresetName, TrainConfig, to_dict
from covid_jax.data import SliceDataset, open_dataset
from covid_jax.data.phantom import GENERATOR_VERSION, write_phantom
from covid_jax.errors import ConfigError, CovidJaxError

Command = Callable[[Sequence[str], Console], None]


@dataclass(frozen=True)
class _Start:
    """The two flags on which the defaults of all others depend."""

    preset: PresetName | None = None
    data: Path | None = None


@dataclass(frozen=True)
class EvalArguments:
    """Score a trained run and draw its best, typical and worst slices."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder."""
    data: Path | None = None
    """Dataset folder, if it has moved, or another dataset (with --subset all)."""
    subset: Literal["test", "val", "train", "all"] = "test"
    """Part of the run's split to score."""
    batch_size: int = 4
    """Slices computed at once."""


@dataclass(frozen=True)
class PhantomArguments:
    """Write the synthetic phantom dataset (Dataset-1 + Dataset-2 layout) into a new folder."""

    out: Annotated[Path, tyro.conf.Positional]
    """Folder to make."""
    seed: int = 0
    """The same seed writes the same slices."""
    size: int = 256
    """Side of each slice, in pixels."""


def train(argv: Sequence[str] | None = None) -> None:
    """``train.py``: trains on a dataset folder, or on the built-in synthetic phantom."""
    _guard(_train, argv)


def evaluate(argv: Sequence[str] | None = None) -> None:
    """``eval.py``: scores a run."""
    _guard(_evaluate, argv)


def main(argv: Sequence[str] | None = None) -> None:
    """``covid-jax train | eval | phantom``."""
    commands: dict[str, Command] = {"train": _train, "eval": _evaluate, "phantom": _phantom}
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in commands:
        helped = arguments[:1] in (["-h"], ["--help"])
        print(f"usage: covid-jax {{{','.join(commands)}}} [-h] [OPTIONS]")
        raise SystemExit(0 if helped else 2)
    _guard(commands[arguments[0]], arguments[1:])


def _train(argv: Sequence[str], console: Console) -> None:
    start, _ = tyro.cli(_Start, args=argv, add_help=False, return_unknown_args=True)
    config = tyro.cli(
        TrainConfig,
        prog="train.py",
        description="Train on a dataset folder, or on the built-in synthetic phantom.",
        args=argv,
        default=PRESETS[start.preset or ("paper" if start.data else "quick")],
        config=(tyro.conf.OmitArgPrefixes,),
    )
    if config.data.data is None:
        console.print(
            "No --data given: training on the built-in [bold]synthetic phantom[/bold] "
            f"(preset {config.preset}). No patient was scanned."
        )
    _show(config, console)
    dataset = _open(config.data, console)
    name = "phantom" if config.data.data is None else config.data.data.resolve().name
    out = config.out or Path("runs") / name

    from covid_jax.training import train as train_loop

    train_loop(config, dataset, out, console)
    console.print(escape(f"Trained: {out}. Test metrics and pictures: python eval.py {out}"))


def _evaluate(argv: Sequence[str], console: Console) -> None:
    arguments = tyro.cli(EvalArguments, prog="eval.py", args=argv)

    from covid_jax.evaluation import evaluate as score
    from covid_jax.inference import load_run

    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size {arguments.batch_size}: expected at least 1")
    run = load_run(arguments.run)
    source = run.config.data
    if arguments.data is not None:
        source = DataConfig(arguments.data, source.image_size, source.lesion_slices_only)
    dataset = _open(source, console)
    with console.status("predicting"):
        report = score(run, dataset, arguments.subset, arguments.batch_size)
    _show_scores(report, console)


def _phantom(argv: Sequence[str], console: Console) -> None:
    arguments = tyro.cli(PhantomArguments, prog="covid-jax phantom", args=argv)
    with console.status("drawing the synthetic phantom"):
        folder = write_phantom(arguments.out, seed=arguments.seed, size=arguments.size)
    console.print(f"Synthetic phantom written to {folder}; train with --data {folder}")


def _guard(command: Command, argv: Sequence[str] | None) -> None:
    """Runs a command; a user's mistake or an interruption ends it in words, not in a traceback."""
    arguments = sys.argv[1:] if argv is None else argv
    jax.config.update("jax_compilation_cache_dir", str(_cache_folder() / "compiled"))
    try:
        command(arguments, Console(soft_wrap=True, highlight=False))
    except CovidJaxError as error:
        _fail(f"error: {error}", 2)
    except KeyboardInterrupt:
        _fail("interrupted: ended epochs are kept; the same command with --resume goes on", 130)


def _fail(message: str, status: int) -> NoReturn:
    Console(stderr=True, soft_wrap=True, highlight=False).print(escape(message), style="red")
    raise SystemExit(status)


def _cache_folder() -> Path:
    """The user's cache folder of covid_jax: the phantom and compiled steps."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "covid_jax"


def _open(config: DataConfig, console: Console) -> SliceDataset:
    """Opens the dataset, or the phantom (drawn once into the cache), and says what it is."""
    folder = config.data
    if folder is None:
        folder = _cache_folder() / f"phantom-{GENERATOR_VERSION}"
        if not folder.exists():
            with console.status("drawing the synthetic phantom, once"):
                write_phantom(folder)
    dataset = open_dataset(folder, config.image_size, lesion_slices_only=config.lesion_slices_only)
    console.print(f"{escape(dataset.layout)} in {escape(str(folder))}")
    for note in dataset.notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}")
    return dataset


def _show(config: TrainConfig, console: Console) -> None:
    """Prints the resolved settings, a group a line."""
    record = to_dict(config)
    groups = {name: value for name, value in record.items() if isinstance(value, dict)}
    groups["run"] = {name: value for name, value in record.items() if name not in groups}
    for name, settings in groups.items():
        text = ", ".join(f"{key} {value}" for key, value in settings.items())
        console.print(f"  [dim]{name:<10}[/dim] {escape(text)}")


def _show_scores(report: dict[str, Any], console: Console) -> None:
    table = Table(
        title=f"{report['slices']} {report['subset']} slices, threshold {report['threshold']}"
    )
    table.add_column("metric")
    for heading in ("mean over slices", "pooled", "at network size", "slices", "empty masks"):
        table.add_column(heading, justify="right")
    number = lambda value: "undefined" if value is None else f"{value:.4f}"  # noqa: E731
    for name, own in report["own_grid"].items():
        table.add_row(
            name,
            number(own["mean"]),
            number(own["pooled"]),
            number(report["network_size"][name]["mean"]),
            str(own["slices"]),
            str(own["empty"]),
        )
    console.print(table)
    console.print(f"[dim]split[/dim]  {escape(report['split']['statement'])}")
    for note in (*report["split"]["warnings"], *report["notes"]):
        console.print(f"[yellow]note:[/yellow] {escape(note)}")
    console.print(f"[dim]files[/dim]  {report['folder']}/ metrics.json, slices.csv, examples.png")
