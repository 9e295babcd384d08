"""config.json of a run folder: what the run was made with, kept from its first start on."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from covid_jax.errors import ConfigError, RunError
from covid_jax.files import replace_text
from covid_jax.runs.config import TrainConfig, differences, to_dict
from covid_jax.runs.provenance import provenance
from covid_jax.schema import parse

_KEPT = {"config", "data", "command", "date", "device", "versions"}  # what others read of it
_KEPT_OF_DATA = {"layout", "fingerprint", "normalization"}
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, RecursionError, ConfigError)


def read_record(folder: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """The settings of a run, and everything else its config.json says.

    Raises:
      RunError: if there is none, or it is damaged.
    """
    path = folder / "config.json"
    try:
        record = json.loads(path.read_text())
        config = parse(TrainConfig, record["config"])
        if missing := (_KEPT - record.keys()) | (_KEPT_OF_DATA - record["data"].keys()):
            raise ValueError(f"{', '.join(sorted(missing))} is missing")
        return config, record
    except OSError as error:
        raise RunError(f"{folder}: no run here (no config.json)") from error
    except _DAMAGE as error:
        raise RunError(f"{path}: damaged ({error}); choose another run folder") from error


def read_config(path: Path) -> TrainConfig:
    """The settings in a run's config.json, as those of a new run.

    Raises:
      RunError: if the file is missing or damaged.
    """
    config, _ = read_record(path.parent if path.name == "config.json" else path)
    return dataclasses.replace(config, out=None, resume=False, profile=0)


def start_record(
    folder: Path, config: TrainConfig, data: dict[str, Any], command: Sequence[str]
) -> None:
    """Makes a run folder and writes its config.json.

    Args:
      folder: new or empty.
      config: all settings.
      data: what was trained on: layout, notes, fingerprint, normalization.
      command: the command line.

    Raises:
      RunError: if the folder holds something, or cannot be written.
    """
    with _naming(folder):
        started = (folder / "config.json").exists()
    if started:
        changed = _changed(read_record(folder)[0], config)
        what = f"another config ({'; '.join(changed)})" if changed else "this very run already"
        raise RunError(
            f"{folder}: holds a run with {what}; choose another --out"
            + ("" if changed else ", or add --resume to go on with it")
        )
    with _naming(folder):
        visible = [path for path in folder.glob("*") if not path.name.startswith(".")]
        taken = visible or (folder.exists() and not folder.is_dir())
    if taken:
        raise RunError(f"{folder}: exists and is no run folder; choose another --out")
    write_record(folder, {"config": to_dict(config), "data": data, **provenance(command)})


def resume_record(
    folder: Path, config: TrainConfig, fingerprint: str, command: Sequence[str]
) -> dict[str, Any]:
    """What config.json is to say once the run goes on; how it was started stays there.

    Args:
      folder: of the run.
      config: must be the run's but for the number of epochs, and where the data lies.
      fingerprint: of the data, which must be the run's.
      command: the command line.

    Returns:
      The record, which nobody has written yet.

    Raises:
      RunError: if there is no run, or it was made with another config or other data.
    """
    with _naming(folder):
        started = (folder / "config.json").exists()
    if not started:
        raise RunError(f"{folder}: no run to resume here (no config.json)")
    before, record = read_record(folder)
    if changed := _changed(before, config):
        raise RunError(
            f"{folder}: holds a run with another config ({'; '.join(changed)}); choose another "
            "--out, or give the same flags"
        )
    if record["data"]["fingerprint"] != fingerprint:
        raise RunError(f"{folder}: the data has changed since this run was started")
    record["config"]["epochs"] = config.epochs
    record["resumed"] = [*record.get("resumed", []), provenance(command)]
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Writes config.json, and the folder where it is missing.

    Raises:
      RunError: if it cannot be written.
    """
    with _naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(folder / "config.json", json.dumps(record, indent=1))


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """What the system refuses in the block is said of the run folder."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror}); choose another --out"
        ) from error


def _changed(before: TrainConfig, now: TrainConfig) -> list[str]:
    return differences(before, now, ignore=("out", "resume", "epochs", "data", "profile"))
