"""Many scans in one call: a bad one is told of and left out, finished ones are not done again."""

import dataclasses
import errno
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape

from covid_jax.data.statistics import scale_warning
from covid_jax.errors import ConfigError, DataError
from covid_jax.inference import Run
from covid_jax.prediction.find_scans import Source, find_scans
from covid_jax.prediction.options import PredictOptions
from covid_jax.prediction.pipeline import predict_slices
from covid_jax.prediction.progress import Bar, bar
from covid_jax.prediction.summary import ENDING, read_summary, write_tables
from covid_jax.prediction.writer import ScanWriter
from covid_jax.runs.provenance import provenance


@dataclass
class Outcome:
    """What became of the scans of one call.

    Attributes:
      predicted: what the JSON file of each scan holds that was predicted.
      complete: scans that an earlier call had done.
      failures: path of each scan that was left out, and why.
    """

    predicted: list[dict[str, Any]] = field(default_factory=list)
    complete: list[Source] = field(default_factory=list)
    failures: list[tuple[Path, str]] = field(default_factory=list)


def predict_scans(
    run: Run,
    paths: Sequence[Path],
    out: Path,
    options: PredictOptions,
    console: Console,
    command: Sequence[str] = (),
) -> Outcome:
    """Writes masks, and what else is asked for, of all scans that the paths hold.

    A scan is complete once ``<name>_summary.json`` stands beside its mask: written last, it names
    the scan's files, sizes and times, the weights and settings, and every result. A later call
    leaves a scan out if all that is unchanged and every result is there.

    Args:
      run: the network; research use only.
      paths: scans, and folders of scans.
      out: folder for the results, made where it is missing; subfolders are those of the scans.
      options: how, and what is written.
      console: for a bar, and a line on what is found, odd or left out.
      command: the command line, kept with the results.

    Raises:
      ConfigError: if a threshold is given for several classes.
      DataError: if a path holds no scan, two scans would have the same results, a lung mask is
        given that fits no folder, or ``out`` cannot be written.
    """
    classes = run.config.data.classes
    if len(classes) > 1 and options.threshold != 0.5:
        raise ConfigError("--threshold: several classes are told apart without one; leave it out")
    found = find_scans(paths, out)
    _check_lungs(options, found.scans)
    outcome = Outcome(failures=list(found.unreadable))
    settings = _settings(run, options)
    todo = []
    for scan in found.scans:
        if (done := _is_done(scan, settings, out, outcome)) is not None:
            (outcome.complete if done else todo).append(scan)
    console.print(escape(_announce(found.scans, found.others, outcome)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        if todo:
            record = {"run": str(run.folder), "epoch": run.epoch, **settings, **provenance(command)}
            with bar(console, len(todo)) as progress:
                _predict(run, todo, out, options, outcome, record, progress)
        write_tables(out)
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be written ({error.strerror}); scans that are done "
            "stay so: the same command goes on with the rest"
        ) from error
    return outcome


def _predict(
    run: Run,
    scans: Sequence[Source],
    out: Path,
    options: PredictOptions,
    outcome: Outcome,
    record: dict[str, Any],
    progress: Bar,
) -> None:
    def failed(source: Source, error: Exception) -> None:
        outcome.failures.append((source.path, _without(str(error), source.path)))
        progress.left_out()

    writer: ScanWriter | None = None
    slices = predict_slices(run, scans, options, failed)
    try:
        for predicted in slices:
            if writer is None:
                writer = ScanWriter(predicted.scan, options, run.config.data.classes, out)
            writer.add(predicted)
            progress.slice_done(len(predicted.scan.stack))
            if not writer.complete:
                continue
            try:
                outcome.predicted.append(_written(writer, run, record, progress))
            except (DataError, OSError) as error:
                if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
                    raise
                failed(predicted.scan.source, error)
            writer = None
    finally:
        slices.close()


def _written(writer: ScanWriter, run: Run, record: dict[str, Any], progress: Bar) -> dict[str, Any]:
    scan = writer.scan
    warning = scale_warning(run.record, *scan.range)
    if warning:
        progress.warn(scan.source.path, warning)
    facts = {**scan.source.signature(), "warnings": [warning] if warning else []}
    whole = writer.write(facts | record)
    progress.scan_done()
    return {name: value for name, value in whole.items() if name != "per_slice"}


def _is_done(scan: Source, settings: dict[str, Any], out: Path, outcome: Outcome) -> bool | None:
    """Whether an earlier call has done it; None, and a failure, if it did another of its name."""
    base = out / scan.name
    before = read_summary(base.with_name(base.name + ENDING))
    if before is None:
        return False
    try:
        now = scan.signature()
    except OSError:
        return False  # reading it will say more
    if before.get("scan") != now["scan"]:
        reason = f"{out} holds the results of {before.get('scan')} under its name; choose another"
        outcome.failures.append((scan.path, f"{reason} --out"))
        return None
    same = all(before.get(name) == value for name, value in (now | settings).items())
    return same and all((base.parent / str(name)).is_file() for name in before["outputs"])


def _settings(run: Run, options: PredictOptions) -> dict[str, Any]:
    """All that decides what the results are, besides the scan."""
    weights = hashlib.blake2b(digest_size=8)
    for leaf in jax.tree.leaves(run.params):
        weights.update(np.asarray(leaf).tobytes())
    chosen = dataclasses.asdict(options) | {"lungs": options.lungs and str(options.lungs)}
    del chosen["batch_size"]
    return {"weights": weights.hexdigest(), "options": chosen | {"series": list(options.series)}}


def _check_lungs(options: PredictOptions, scans: Sequence[Source]) -> None:
    if options.lungs is None or options.lungs.is_dir():
        return
    if not options.lungs.is_file():
        raise DataError(f"--lungs {options.lungs}: no such file or folder")
    if len(scans) > 1:
        raise DataError(
            f"--lungs {options.lungs}: one mask for {len(scans)} scans; give a folder of masks "
            "named as the scans are"
        )


def _announce(scans: Sequence[Source], others: int, outcome: Outcome) -> str:
    kinds = [scan.kind for scan in scans]
    names = {"nifti": "NIfTI", "dicom": "DICOM", "picture": "picture"}
    parts = [f"{kinds.count(kind)} {name}" for kind, name in names.items() if kind in kinds]
    text = f"{len(scans)} scans ({', '.join(parts)})"
    if outcome.complete:
        text += f", {len(outcome.complete)} of them done before"
    return text + (f"; {others} other files passed over" if others else "")


def _without(message: str, path: Path) -> str:
    """An error's text without the path that stands before it."""
    return message.removeprefix(f"{path}: ")
