"""Many scans in one call: a bad one is reported and left out, finished ones are not done again."""

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

import covid_jax
from covid_jax.data.statistics import intensity_warning
from covid_jax.errors import DataError
from covid_jax.inference import Run
from covid_jax.io.formats import PICTURES, VOLUMES
from covid_jax.prediction.find_scans import SUMMARY, Source, find_scans, read_summary
from covid_jax.prediction.options import PredictOptions
from covid_jax.prediction.pipeline import lung_file, memory_of, predict_slices
from covid_jax.prediction.progress import Bar, bar
from covid_jax.prediction.runtime import use_runtime
from covid_jax.prediction.summary import write_tables
from covid_jax.prediction.writer import ScanWriter
from covid_jax.runs.provenance import provenance


@dataclass
class Outcome:
    """The scans of one call.

    Attributes:
      predicted: of each scan that was predicted, the content of its JSON file.
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

    A scan is complete once ``<name>_summary.json`` is next to its mask: written last, it names
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
        given that fits no folder, or ``out`` is named like a file or cannot be written.
    """
    run.check_threshold(options.threshold, "--threshold")
    if out.name.lower().endswith((*VOLUMES, *PICTURES)) and not out.is_dir():
        raise DataError(f"--out {out}: expected a folder, in which each mask is <scan>_mask.nii.gz")
    found = find_scans(paths, out)
    _check_lungs(options, found.scans)
    outcome = Outcome(failures=list(found.unreadable))
    settings = _settings(run, options)
    todo: list[Source] = []
    for scan in found.scans:
        if (done := _is_done(scan, settings, options, out, outcome)) is not None:
            (outcome.complete if done else todo).append(scan)
    console.print(escape(_announce(found.scans, found.others, outcome)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        if todo:
            members = [{"run": str(one.folder), "epoch": one.epoch} for one in run.members]
            record = members[0] | {"members": members, **settings, **provenance(command)}
            record["precision"] = run.config.model.precision
            record["runtime"] = use_runtime(run, options, todo)
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
        progress.scan_done()

    writer: ScanWriter | None = None
    slices = predict_slices(run, scans, options, failed)
    try:
        for predicted in slices:
            scan = predicted.scan
            try:
                with memory_of(scan.source.path):
                    if writer is None or writer.scan is not scan:
                        if predicted.number:  # an earlier slice of it failed
                            continue
                        writer = ScanWriter(scan, options, run, out)
                    writer.add(predicted)
                    progress.slice_done(predicted.number, len(scan.stack))
                    if writer.complete:
                        whole = _write(writer, run, record, options, progress)
                        outcome.predicted.append(whole)
                        writer = None
            except (DataError, OSError) as error:
                if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
                    raise
                failed(scan.source, error)
                writer = None
            del predicted, scan  # or they would be held while the next one is read
    finally:
        slices.close()


def _write(
    writer: ScanWriter,
    run: Run,
    record: dict[str, Any],
    options: PredictOptions,
    progress: Bar,
) -> dict[str, Any]:
    scan = writer.scan
    warning = intensity_warning(run.record, scan.stack)
    warnings = [*([warning] if warning else []), *scan.form.warnings]
    for text in warnings:
        progress.warn(scan.source.path, text)
    facts = {**_inputs(scan.source, options), "warnings": warnings}
    whole = writer.write(facts | record)
    progress.scan_done()
    return {name: value for name, value in whole.items() if name != "per_slice"}


def _is_done(
    scan: Source, settings: dict[str, Any], options: PredictOptions, out: Path, outcome: Outcome
) -> bool | None:
    """Whether an earlier call has done it; None, and a failure, if it did another of its name."""
    base = out / scan.name
    before = read_summary(base.with_name(base.name + SUMMARY))
    if before is None:
        return False
    try:
        now = _inputs(scan, options)
    except (OSError, DataError):
        return False  # reading it will say more
    if before.get("scan") != now["scan"]:
        reason = f"{out} holds the results of {before.get('scan')} under its name; choose another"
        outcome.failures.append((scan.path, f"{reason} --out"))
        return None
    same = all(before.get(name) == value for name, value in (now | settings).items())
    return same and all((base.parent / str(name)).is_file() for name in before["outputs"])


def _inputs(scan: Source, options: PredictOptions) -> dict[str, Any]:
    """What changes when the files of a scan do, or its lung mask.

    Raises:
      OSError, DataError: if they cannot be read.
    """
    digest = None
    if options.lungs is not None:
        with lung_file(options.lungs, scan).open("rb") as file:
            digest = hashlib.file_digest(file, "blake2b").hexdigest()[:16]
    return scan.signature() | {"lungs_digest": digest}


def _settings(run: Run, options: PredictOptions) -> dict[str, Any]:
    """All that decides the results besides the scan and its lung mask."""
    weights = hashlib.blake2b(digest_size=8)
    for member in run.members:
        data, network = member.config.data, (type(member.model).__name__, member.config.model)
        decides = (
            data.image_size,
            data.classes,
            data.crop,
            data.intensity,
            member.normalization,
            network,
        )
        weights.update(repr((covid_jax.__version__, decides)).encode())
        for leaf in jax.tree.leaves(member.params):
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
    names = {"nifti": "NIfTI", "itk": "NRRD or MetaImage", "dicom": "DICOM", "picture": "picture"}
    parts = [f"{kinds.count(kind)} {name}" for kind, name in names.items() if kind in kinds]
    text = f"{len(scans)} scans ({', '.join(parts)})"
    if outcome.complete:
        text += f", {len(outcome.complete)} of them done before"
    return text + (f"; {others} other files passed over" if others else "")


def _without(message: str, path: Path) -> str:
    """An error's text without the path that stands before it."""
    return message.removeprefix(f"{path}: ")
