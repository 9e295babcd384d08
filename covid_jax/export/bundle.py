"""Writes a bundle: weights, settings and a model card in one folder, which others can load."""

import dataclasses
import json
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from covid_jax.errors import RunError, printable
from covid_jax.evaluation.report import EvaluationReport
from covid_jax.export.metadata import constants
from covid_jax.export.model_card import card
from covid_jax.inference import Run, bfloat16_change
from covid_jax.io.formats import DICOM, PICTURES, VOLUMES
from covid_jax.runs.bundle import WEIGHTS, is_bundle
from covid_jax.runs.config import to_dict
from covid_jax.runs.digest import digest, named_leaves
from covid_jax.splits.split import SUBSETS, Split

_PATH = re.compile(r"""(?<![\w:/.\\-])(?:~?/|[A-Za-z]:[/\\])[^\s"',;:()]+""")
_ENDINGS = "|".join(re.escape(ending) for ending in (*VOLUMES, *PICTURES, *DICOM))
# And what is before it: folders with spaces in their names cannot be told from words.
_IMAGE_FILE = re.compile(rf"""(?:[^"',;:]*/)?[^\s"',;:()/]+(?:{_ENDINGS})\b""", re.I)
_TEXTS = ("notes", "warnings", "command")
_SCORES = ("command", "slices", "patients", "threshold", "notes", "intervals", "classes")
_SCORES += ("own_grid", "network_size")


def write_bundle(run: Run, folder: Path) -> None:
    """Writes model.safetensors, config.json and README.md, the model card, into a new folder.

    config.json is the run's, with ``bundle`` added: epoch, constants, split, and the test scores of
    these weights where eval.py wrote them. Only the last part of each path is kept. Names of
    slices, patients and their files are removed from all notes and commands.

    Args:
      run: the trained run.
      folder: to make, whole or not at all.

    Raises:
      RunError: if the run is a bundle itself, or its split or its scores are damaged.
    """
    if is_bundle(run.folder):
        raise RunError(f"{run.folder}: is a bundle already; copy the folder")
    record = _record(run)
    leaves = named_leaves(run.params)
    tensors = {name: np.ascontiguousarray(leaf, np.float32) for name, leaf in leaves.items()}
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=folder.parent) as work:
        partial = Path(work, folder.name)
        partial.mkdir()
        (partial / WEIGHTS).write_bytes(pack_tensors(tensors, run.epoch))
        (partial / "config.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        (partial / "README.md").write_text(printable(card(run, record)), encoding="utf-8")
        partial.rename(folder)


def pack_tensors(tensors: dict[str, np.ndarray], epoch: int | str) -> bytes:
    """A bundle's safetensors file, the same bytes each time: safetensors shuffles the metadata."""
    file = save(tensors, {"format": "covid_jax", "epoch": str(epoch), "digest": digest(tensors)})
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + file[start:]


def _record(run: Run) -> dict[str, Any]:
    split = Split.load(run.folder / "split.json")
    test = _test_scores(run)
    bundle = {
        "epoch": run.epoch,
        "constants": constants(run),
        "split": {
            "policy": split.policy,
            "statement": split.statement,
            # Near-duplicates' without the slices at their end, which may name patients.
            "warnings": [w.partition(": ")[0] if " ~ " in w else w for w in split.warnings],
            "slices": {name: len(getattr(split, name)) for name in SUBSETS},
        },
        "test": test,
        "bfloat16_change": bfloat16_change(run.folder, run.epoch),
    }
    commands = [start.command for start in (run.record, *run.record.resumed)]
    commands += [test["command"]] if test else []
    data = run.config.data
    paths = {str(path) for path in (*data.data, data.split_file, run.config.out) if path}
    for command in commands:  # of ``--data=/home/a/ct/``: /home/a/ct/ and /home/a/ct
        values = {word.rpartition("=")[2] for word in shlex.split(command)}
        paths |= values | {str(Path(value)) for value in values}
    text = json.dumps(to_dict(dataclasses.replace(run.record, bundle=bundle)))
    for path in sorted(paths, key=len, reverse=True):  # keeps only its last part, everywhere
        if "/" in path and Path(path).name:
            text = text.replace(json.dumps(path)[1:-1], json.dumps(Path(path).name)[1:-1])
    names = {*split.patients, *(name.split(":")[0] for name in split.patients)}
    names |= {patient for patient in split.patients.values() if patient}
    hidden = [re.escape(name) for name in names if len(name) > 2 and not name.isdigit()]
    words = "|".join(sorted(hidden, key=len, reverse=True)) or "(?!)"  # else nothing
    record = _without_names(json.loads(text), re.compile(rf"(?<!\w)(?:{words})(?!\w)"))
    record["config"]["out"] = None
    return record


def _without_names(value: Any, names: re.Pattern[str], key: str = "") -> Any:
    """JSON without names of image files and of folders above others, and without these names.

    Args:
      value: any JSON.
      names: of slices and patients, taken out of notes, warnings and commands.
      key: under which the value is.
    """
    if isinstance(value, dict):
        return {key: _without_names(part, names, key) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_names(part, names, key) for part in value]
    if not isinstance(value, str):
        return value
    value = _PATH.sub(lambda found: re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], value)
    value = _IMAGE_FILE.sub("[file]", value)
    return names.sub("[name]", value) if key in _TEXTS else value


def _test_scores(run: Run) -> dict[str, Any] | None:
    """The test scores that eval.py computed with exactly these weights; None if there are none."""
    path = run.folder / "eval" / "test" / "metrics.json"
    if not path.exists():
        return None
    report = EvaluationReport.load(path)
    same = report.epoch == run.epoch and report.data_fingerprint == run.record.data.fingerprint
    return {name: getattr(report, name) for name in _SCORES} if same else None
