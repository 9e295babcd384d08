"""Predicts many scans: unreadable ones are reported and skipped, finished ones not repeated."""

import contextlib
import errno
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

import covid_jax
from covid_jax.data.statistics import intensity_warning
from covid_jax.errors import DataError, plural
from covid_jax.files import require_file
from covid_jax.inference import Run
from covid_jax.io.formats import PICTURES, VOLUMES, files_of
from covid_jax.prediction.find_scans import SUMMARY, Source, find_scans, read_summary
from covid_jax.prediction.options import PredictOptions
from covid_jax.prediction.pipeline import lung_file, memory_of, predict_slices
from covid_jax.prediction.runtime import use_runtime
from covid_jax.prediction.summary import write_tables
from covid_jax.prediction.writer import ScanWriter
from covid_jax.runs.config import to_dict
from covid_jax.runs.digest import digest, named_leaves
from covid_jax.runs.provenance import provenance
from covid_jax.terminal import Progress, counting_bar

_UNIT_VOXELS = "slices were not averaged: 1 x 1 x 1 mm in fewer than 150 counts as unknown"
_LOUD = 3  # warnings printed in full; the others are counted


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

    def failed(self, source: Source, error: Exception) -> None:
        """Records a scan that could not be predicted."""
        self.failures.append((source.path, str(error).removeprefix(f"{source.path}: ")))


def predict_scans(
    run: Run,
    paths: Sequence[Path],
    out: Path,
    options: PredictOptions,
    console: Console,
    command: Sequence[str] = (),
) -> Outcome:
    """Writes masks, and what else is asked for, of all scans that the paths hold.

    A scan is complete once ``<name>_summary.json`` is next to its mask: written last, it names the
    scan's files, sizes and times, the weights and settings, and every result. A later call skips
    the scan if all of this is unchanged and every result exists.

    Args:
      run: the network; research use only.
      paths: scans, and folders of scans.
      out: folder for the results, made where it is missing; subfolders are those of the scans.
      options: of the prediction and of its files.
      console: for a progress bar and lines on found, unusual and skipped scans.
      command: the command line, kept with the results.

    Raises:
      ConfigError: if a threshold is given for several classes.
      DataError: if a path holds no scan, two scans would have the same results, a lung mask is
        given that fits no folder, or ``out`` is named like a file or cannot be written.
    """
    run.check_threshold(options.threshold, "--threshold")
    if out.name.lower().endswith((*VOLUMES, *PICTURES)) and not out.is_dir():
        raise DataError(f"--out {out}: expected a folder, in which each mask is <scan>_mask.nii.gz")
    options = options.completed(run.config.data.crop == "lungs")
    found = find_scans(paths, out, options.lungs)
    _check_lungs(options, found.scans)
    outcome = Outcome(failures=list(found.unreadable))
    call = _Call(run, out, options, outcome, _settings(run, options))
    todo = [scan for scan in found.scans if not call.is_finished(scan)]
    console.print(escape(_announce(found.scans, found.others, outcome)))
    try:
        out.mkdir(parents=True, exist_ok=True)
        if todo:
            with counting_bar(console, "scans") as progress:
                call.predict(todo, provenance(command), progress)
            _warn(outcome, console)
        write_tables(out)
    except OSError as error:
        where, rest = error.filename or out, "the same command goes on with the scans left"
        raise DataError(f"{where}: cannot be written ({error.strerror}); {rest}") from error
    return outcome


@dataclass(frozen=True)
class _Call:
    """The arguments of a call, what it has done, and the settings that decide its results."""

    run: Run
    out: Path
    options: PredictOptions
    outcome: Outcome
    settings: dict[str, Any]
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)  # before anything was read

    def is_finished(self, scan: Source) -> bool:
        """Whether to skip a scan: it was predicted before, or another has results of its name."""
        base = self.out / scan.name
        before = read_summary(base.with_name(base.name + SUMMARY))
        try:
            now = self.inputs[scan.name] = self._inputs(scan)
        except (OSError, DataError):
            return False  # reading it will say more
        if before is None:
            return False
        if before.get("scan") != now["scan"]:
            taken = f"{self.out} holds the results of {before.get('scan')} under its name"
            self.outcome.failures.append((scan.path, f"{taken}; choose another --out"))
            return True
        same = all(before.get(name) == value for name, value in (now | self.settings).items())
        if same and all((base.parent / name).is_file() for name in before["outputs"]):
            self.outcome.complete.append(scan)
            return True
        return False

    def predict(self, scans: Sequence[Source], origin: dict[str, Any], progress: Progress) -> None:
        """Predicts and writes scans; a failed scan is recorded and does not stop the others."""
        run, options, outcome = self.run, self.options, self.outcome
        members = [{"run": str(one.folder), "epoch": one.epoch} for one in run.members]
        record = members[0] | {"members": members, **self.settings, **origin}
        record["precision"] = run.config.model.precision
        record["runtime"] = use_runtime(run, options, scans)
        left_out = len(outcome.failures)
        writer: ScanWriter | None = None
        with contextlib.closing(predict_slices(run, scans, options, outcome.failed)) as slices:
            for predicted in slices:
                scan, number = predicted.scan, predicted.number
                try:
                    with memory_of(scan.source.path):
                        if writer is None or writer.scan is not scan:
                            if number:  # an earlier slice of it failed
                                continue
                            writer = ScanWriter(scan, options, run, self.out)
                        writer.add(predicted)
                        done = len(outcome.predicted) + len(outcome.failures) - left_out
                        progress(done + number / len(scan.stack), len(scans))
                        if writer.complete:
                            unknown = options.smooth_slices and scan.unit_voxels and _UNIT_VOXELS
                            doubts = intensity_warning(run.record, scan.stack), unknown
                            warnings = [*filter(None, doubts), *scan.form.warnings]
                            known = self.inputs.get(scan.source.name) or self._inputs(scan.source)
                            written = writer.write(known | {"warnings": warnings} | record)
                            outcome.predicted.append(written)
                            writer = None
                except (DataError, OSError) as error:
                    if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
                        raise
                    outcome.failed(scan.source, error)
                    writer = None
                del predicted, scan  # or they would be held while the next one is read

    def _inputs(self, scan: Source) -> dict[str, Any]:
        """Identifies the scan's files and its lung mask, to detect changes.

        Raises:
          OSError, DataError: if they cannot be read.
        """
        digest = None
        if lungs := self.options.lungs:
            content = b"".join(f.read_bytes() for f in files_of(lung_file(lungs, scan)))
            digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        return scan.signature() | {"lungs_digest": digest}


def _warn(outcome: Outcome, console: Console) -> None:
    """Prints the first warnings, and counts the others."""
    texts = [f"{one['scan']}: {text}" for one in outcome.predicted for text in one["warnings"]]
    if len(texts) > _LOUD:
        texts[_LOUD:] = [f"and {len(texts) - _LOUD} more warnings like these"]
    for text in texts:
        console.print(f"[bold yellow]WARNING[/bold yellow] {escape(text)}")


def _settings(run: Run, options: PredictOptions) -> dict[str, Any]:
    """All settings that affect the results, except the scan and its lung mask."""
    decides: list[Any] = [covid_jax.__version__]
    for member in run.members:
        data, network = member.config.data, (type(member.model).__name__, member.config.model)
        preparation = data.crop, data.intensity, member.normalization
        weights = digest(named_leaves(member.params))
        decides += [(data.image_size, data.classes, *preparation, network, weights)]
    chosen = to_dict(options)
    del chosen["batch_size"]
    total = hashlib.blake2b(repr(decides).encode(), digest_size=8).hexdigest()
    return {"weights": total, "options": chosen}


def _check_lungs(options: PredictOptions, scans: Sequence[Source]) -> None:
    if (lungs := options.lungs) is not None and not lungs.is_dir():
        require_file(lungs)
        if len(scans) > 1:
            raise DataError(f"--lungs {lungs}: one mask for {len(scans)} scans; give a folder")


def _announce(scans: Sequence[Source], others: int, outcome: Outcome) -> str:
    kinds = [scan.kind for scan in scans]
    names = {"nifti": "NIfTI", "itk": "NRRD or MetaImage", "dicom": "DICOM", "picture": "picture"}
    parts = [f"{kinds.count(kind)} {name}" for kind, name in names.items() if kind in kinds]
    text = f"{plural(len(scans), 'scan')} ({', '.join(parts)})"
    if outcome.complete:
        text += f", {len(outcome.complete)} of them done before"
    return text + (f"; {others} other files passed over" if others else "")
