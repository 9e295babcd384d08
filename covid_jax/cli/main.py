"""The command line: flags to settings, errors to exit status. Only this file knows tyro."""

import dataclasses
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import jax
import tyro
from rich.console import Console
from rich.markup import escape

from covid_jax.cli import commands
from covid_jax.cli.memory import keep_freed_memory
from covid_jax.cli.weights import list_weights
from covid_jax.errors import ConfigError, CovidJaxError, StoppedError, printable
from covid_jax.files import cache_folder
from covid_jax.parallel import is_primary_process, join_hosts
from covid_jax.phantom.dataset import write_phantom
from covid_jax.prediction.options import PredictOptions
from covid_jax.runs.config import (
    DataConfig,
    EvalConfig,
    PresetName,
    Subset,
    TrainConfig,
    Which,
)
from covid_jax.runs.settings_file import read_settings
from covid_jax.transforms.augment_config import AugmentationName, AugmentConfig

Command = Callable[[str, Sequence[str], Console], None]


@dataclass(frozen=True)
class _Start:
    """The flags on which the defaults of others depend."""

    preset: PresetName | None = None
    data: tuple[Path, ...] = ()
    augment: AugmentationName | None = None
    config: Path | None = None


@dataclass(frozen=True)
class TrainArguments:
    """Train on a dataset folder, or on the built-in synthetic phantom."""

    settings: TrainConfig
    config: Path | None = None
    """A run's config.json: its settings, instead of a preset's, are the defaults."""
    seeds: tuple[int, ...] = ()
    """A run for each, in folders of their own, with a summary; so for --fold all."""
    coordinator: str | None = None
    """host:port of the first process, where several are started by hand."""
    num_processes: int | None = None
    """How many processes there are, with --coordinator."""
    process_id: int | None = None
    """Which of them this one is, from 0, with --coordinator."""


@dataclass(frozen=True)
class EvalArguments:
    """Score a trained run, draw its slices, write a report."""

    run: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folder, or a bundle; several, or a study's folder, are scored as an ensemble."""
    data: tuple[Path, ...] = ()
    """Dataset folders, if they have moved, or another dataset (with --subset all)."""
    out: Path | None = None
    """Folder for the report; by default eval/<subset> in the run. A bundle needs one."""
    settings: EvalConfig = field(default_factory=EvalConfig)


@dataclass(frozen=True)
class CompareArguments:
    """Compare runs scored on the same slices: a table with intervals, a paired test, pictures."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, each scored before; the others are compared with the first."""
    data: tuple[Path, ...] = ()
    """Dataset folders, if they have moved."""
    subset: Subset = "test"
    """Which evaluation of theirs."""
    out: Path = Path("runs/compare")
    """Folder for tables and pictures."""


@dataclass(frozen=True)
class ScoreArguments:
    """Score a folder of any method's soft maps by the COVID-SemiSeg protocol."""

    predictions: Annotated[Path, tyro.conf.Positional]
    """Folder of pictures, black 0 to white 1, named as the truths are."""
    truth: Path
    """Folder of masks, such as TestingSet/LungInfection-Test/GT."""
    out: Path | None = None
    """JSON file to write the scores to."""


@dataclass(frozen=True)
class DataArguments:
    """Look at a dataset before training on it: a table, warnings, a contact sheet."""

    path: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Dataset folders; several are joined."""
    out: Path | None = None
    """Folder for the pictures; by default runs/<name of the data>-look."""
    image_size: int = 256
    """Side of the grid on which near-duplicates are searched for and examples drawn, in pixels."""
    lesion_slices_only: bool = True
    """Leave out the slices that show no lesion."""
    classes: tuple[str, ...] = ()
    """Lesion classes told apart."""
    series: tuple[str, ...] = ()
    """SeriesInstanceUIDs to take from DICOM folders that hold several."""


@dataclass(frozen=True)
class PredictArguments:
    """Write a lesion mask for every scan. Research use only; not for diagnosis or treatment."""

    scans: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """NIfTI, DICOM or picture files, or folders that hold them."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """Folder for the masks and their summary."""
    run: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """Run folder, bundle or weights:NAME (see covid-jax weights); by default installed weights.
    Given several times, or a study's folder, an ensemble."""
    settings: PredictOptions = field(default_factory=PredictOptions)
    which: Which = "best"
    """Checkpoint: of the lowest validation loss, or the last."""
    averaged: bool = True
    """Take the weights' moving average, where the run kept one."""


@dataclass(frozen=True)
class ExportArguments:
    """Write a run's network for others: a bundle to share, or a program that needs no covid_jax."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder, or a bundle."""
    format: Literal["bundle", "stablehlo", "onnx"]
    """bundle: weights and a model card; stablehlo: for jax alone; onnx: ONNX Runtime, OpenVINO."""
    out: Annotated[Path, tyro.conf.arg(aliases=("-o",))]
    """Folder (bundle) or file to make; nothing may be there."""
    which: Which = "best"
    """Checkpoint: of the lowest validation loss, or the last."""
    averaged: bool = True
    """Take the weights' moving average, where the run kept one."""


@dataclass(frozen=True)
class WeightsArguments:
    """List the installed weights: data, terms, scores, false alarms, SHA-256."""


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
    _guard(_train, "train.py", argv)


def evaluate(argv: Sequence[str] | None = None) -> None:
    """``eval.py``: scores a run."""
    _guard(_evaluate, "eval.py", argv)


def main(argv: Sequence[str] | None = None) -> None:
    """``covid-jax``: runs the command that the first word names."""
    commands: dict[str, Command] = {
        "train": _train,
        "eval": _evaluate,
        "predict": _predict,
        "compare": _compare,
        "score": _score,
        "export": _export,
        "data": _data,
        "weights": _weights,
        "phantom": _phantom,
    }
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] not in commands:
        helped = arguments[:1] in (["-h"], ["--help"])
        print(f"usage: covid-jax {{{','.join(commands)}}} [-h] [OPTIONS]")
        raise SystemExit(0 if helped else 2)
    _guard(commands[arguments[0]], f"covid-jax {arguments[0]}", arguments[1:])


def parse_train(prog: str, argv: Sequence[str]) -> TrainArguments:
    """The flags of ``train.py``; what a preset, a config or an augmentation sets are defaults."""
    argv = _gather(argv, "--data")
    start, _ = tyro.cli(_Start, args=argv, add_help=False, return_unknown_args=True)
    if start.config and start.preset:
        raise ConfigError("--config and --preset both give defaults; leave out one")
    if start.config:
        defaults = read_settings(start.config)
    else:
        defaults = TrainConfig.named(start.preset or ("paper" if start.data else "quick"))
    if start.augment:
        defaults = dataclasses.replace(defaults, augmentation=AugmentConfig.named(start.augment))
    return tyro.cli(
        TrainArguments,
        prog=prog,
        args=argv,
        default=TrainArguments(defaults),
        config=(tyro.conf.OmitArgPrefixes,),
    )


def _train(prog: str, argv: Sequence[str], console: Console) -> None:
    arguments = parse_train(prog, argv)
    if arguments.settings.deterministic:  # read when the first device is asked for
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_deterministic_ops=true".strip()
    join_hosts(arguments.coordinator, arguments.num_processes, arguments.process_id)
    console.quiet = not is_primary_process()
    commands.train(arguments.settings, arguments.seeds, console, [*prog.split(), *argv])


def _evaluate(prog: str, argv: Sequence[str], console: Console) -> None:
    arguments = tyro.cli(
        EvalArguments,
        prog=prog,
        args=_gather(argv, "--data"),
        config=(tyro.conf.OmitArgPrefixes,),
    )
    command = [*prog.split(), *argv]
    commands.evaluate(
        arguments.run, arguments.data, arguments.settings, arguments.out, console, command
    )


def _predict(prog: str, argv: Sequence[str], console: Console) -> None:
    arguments = tyro.cli(
        PredictArguments, prog=prog, args=argv, config=(tyro.conf.OmitArgPrefixes,)
    )
    done = commands.predict(
        arguments.scans,
        arguments.run,
        arguments.out,
        arguments.settings,
        arguments.which,
        arguments.averaged,
        console,
        [*prog.split(), *argv],
    )
    if not done:
        raise SystemExit(1)


def _compare(prog: str, argv: Sequence[str], console: Console) -> None:
    arguments = tyro.cli(CompareArguments, prog=prog, args=_gather(argv, "--data"))
    commands.compare(
        arguments.runs,
        arguments.data,
        arguments.subset,
        arguments.out,
        console,
        [*prog.split(), *argv],
    )


def _score(prog: str, argv: Sequence[str], console: Console) -> None:
    arguments = tyro.cli(ScoreArguments, prog=prog, args=argv)
    command = [*prog.split(), *argv]
    commands.score(arguments.predictions, arguments.truth, arguments.out, console, command)


def _export(prog: str, argv: Sequence[str], console: Console) -> None:
    arguments = tyro.cli(ExportArguments, prog=prog, args=argv)
    commands.export(
        arguments.run,
        arguments.format,
        arguments.out,
        arguments.which,
        arguments.averaged,
        console,
    )


def _data(prog: str, argv: Sequence[str], console: Console) -> None:
    arguments = tyro.cli(DataArguments, prog=prog, args=argv)
    if arguments.image_size < 16:
        raise ConfigError(f"--image-size {arguments.image_size}: expected at least 16")
    config = DataConfig(
        arguments.path,
        arguments.image_size,
        arguments.lesion_slices_only,
        arguments.classes,
        arguments.series,
    )
    commands.look(config, arguments.out, console)


def _weights(prog: str, argv: Sequence[str], console: Console) -> None:
    tyro.cli(WeightsArguments, prog=prog, args=argv)
    list_weights(console)


def _phantom(prog: str, argv: Sequence[str], console: Console) -> None:
    arguments = tyro.cli(PhantomArguments, prog=prog, args=argv)
    with console.status("drawing the synthetic phantom"):
        folder = write_phantom(arguments.out, seed=arguments.seed, size=arguments.size)
    console.print(escape(f"Synthetic phantom written to {folder}; train with --data {folder}"))


def _guard(command: Command, prog: str, argv: Sequence[str] | None) -> None:
    """Runs a command; a user's mistake or an interruption ends it in words, not in a traceback."""
    arguments = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of few letters gets escapes
            stream.reconfigure(errors="backslashreplace")
    keep_freed_memory()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # which JAX has read
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "compiled"))
    try:
        command(prog, arguments, Console(soft_wrap=True, highlight=False))
    except StoppedError as error:
        _fail(str(error), error.status)
    except CovidJaxError as error:
        _fail(f"error: {_with_flags(error)}", 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)


def _with_flags(error: CovidJaxError) -> str:
    """The message, in which a setting such as ``batch_size`` is the flag ``--batch-size``."""
    message = str(error)
    for name in getattr(error, "fields", ()):
        message = re.sub(rf"(?<![\w-]){name}\b", f"--{name.replace('_', '-')}", message)
    return message


def _fail(message: str, status: int) -> NoReturn:
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        escape(printable(message)), style="red"
    )
    raise SystemExit(status)


def _gather(argv: Sequence[str], flag: str) -> list[str]:
    """``--data A --data B`` as ``--data A B``."""
    values, rest = [], []
    remaining = list(argv)
    while remaining:
        word = remaining.pop(0)
        if word.startswith(f"{flag}="):
            values.append(word.removeprefix(f"{flag}="))
        elif word == flag:
            if not remaining or remaining[0].startswith("-"):  # such as a variable that is not set
                raise ConfigError(f"{flag}: expected a folder after it")
            while remaining and not remaining[0].startswith("-"):
                values.append(remaining.pop(0))
        else:
            rest.append(word)
    return [*rest, flag, *values] if values else list(argv)
