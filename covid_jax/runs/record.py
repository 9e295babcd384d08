"""config.json of a run folder: settings, data, versions and command of the run's first start."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import covid_jax
from covid_jax.errors import ConfigError, RunError
from covid_jax.files import read_json, reading, write_json, writing_to
from covid_jax.runs.config import DrawnPolicy, TrainConfig, differences, to_dict
from covid_jax.runs.provenance import provenance
from covid_jax.schema import Range, Settings, parse
from covid_jax.transforms.preprocessing import Normalization

SCHEMA = 2  # of config.json; files of schema 1 have no such field
FREE = ("out", "resume", "epochs", "data", "profile")  # settings that --resume does not compare


@dataclass(frozen=True)
class SourceRecord:
    """One source of a dataset; a bundle of another origin may state less.

    Attributes:
      source: its name.
      slices: how many.
      patients: how many are known.
      unknown: slices of unknown patients.
      sizes: least and greatest (height, width), in pixels.
      spacings: least and greatest of rows and columns in mm; None if unknown.
      range: least and greatest intensity.
      scale: what the intensities are.
      label_pixels: of each class.
      lesion_sizes: slices without lesion, then in each bin of ``statistics.LESION_SIZES`` by the
        lesion's share of the slice.
    """

    source: str
    slices: int = 0
    patients: int = 0
    unknown: int = 0
    sizes: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    spacings: tuple[float, float] | None = None
    range: tuple[float, float] = (0.0, 0.0)
    scale: Literal["HU", "8-bit", "unknown"] = "unknown"
    label_pixels: dict[str, int] = field(default_factory=dict)
    lesion_sizes: tuple[int, ...] = ()


class SharedSplit(TypedDict):
    """What a bundle says of its run's split: no slice is named."""

    policy: DrawnPolicy
    statement: str
    warnings: list[str]
    slices: dict[str, int]


class BundleRecord(TypedDict):
    """What a bundle adds, as ``covid_jax.export.bundle`` writes it."""

    epoch: int
    constants: dict[str, Any]
    split: SharedSplit
    test: dict[str, Any] | None
    bfloat16_change: NotRequired[float | None]


@dataclass(frozen=True)
class DataRecord:
    """The data a run was trained on.

    Attributes:
      layout: name of the dataset's layout.
      fingerprint: of all slices and masks.
      normalization: of raw intensities, before the network.
      notes: limitations found when the data was opened.
      slices: number of slices in all subsets.
      sources: one for each collection.
    """

    layout: str
    fingerprint: str
    normalization: Normalization
    notes: tuple[str, ...] = ()
    slices: int | None = None
    sources: tuple[SourceRecord, ...] = ()


@dataclass(frozen=True)
class Origin:
    """The origin of a fine-tuned run's initial weights.

    Attributes:
      digest: of these weights (``covid_jax.runs.digest``).
      epoch: of these weights.
      layout: of the data they were trained on.
      fingerprint: of that data.
      drawn: names of the parameters that were drawn at random instead.
      notes: differences between the two runs.
    """

    digest: str
    epoch: int
    layout: str
    fingerprint: str
    drawn: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """Versions, device and command of one start, as ``covid_jax.runs.provenance`` gives them."""

    command: str
    date: str
    device: str
    versions: dict[str, str]
    processor: str = ""
    commit: str | None = None


@dataclass(frozen=True)
class RunRecord(Provenance, Settings):
    """config.json of a run or a bundle.

    Attributes:
      config: all settings.
      data: the training data.
      custom: names of the loss and the model where Python code passed its own.
      origin: of the initial weights; None if all were drawn at random.
      resumed: provenance of each time the run was resumed.
      bundle: epoch, split and test scores, in a bundle only.
      schema: version of these fields; those missing in an earlier one take their defaults.
    """

    config: TrainConfig = field(kw_only=True)
    data: DataRecord = field(kw_only=True)
    custom: dict[str, str] = field(default_factory=dict)
    origin: Origin | None = None
    resumed: tuple[Provenance, ...] = ()
    bundle: BundleRecord | None = None
    schema: Annotated[int, Range(1, SCHEMA)] = 1

    @classmethod
    def new(cls, config: TrainConfig, data: DataRecord, command: Sequence[str] = ()) -> "RunRecord":
        """The record of a run that starts now, by this command, on this machine."""
        return cls(config=config, data=data, **provenance(command), schema=SCHEMA)


def read_record(folder: Path) -> RunRecord:
    """Reads the config.json of a run or a bundle.

    Raises:
      RunError: if there is none, or it is damaged, or a field is unknown, missing or of another
        type; the message then also names the version of covid_jax that wrote the file.
    """
    path = folder / "config.json"
    with reading(path, RunError):
        if not path.is_file():
            raise RunError(f"{folder}: no run here (no config.json)")
    stored = read_json(path, error=RunError)
    try:
        return parse(RunRecord, stored)
    except ConfigError as error:
        known = isinstance(versions := stored.get("versions"), dict)
        writer = (versions.get("covid_jax") if known else None) or "of unknown version"
        both = f"written by covid_jax {writer}; this is {covid_jax.__version__}"
        raise RunError(f"{path}: {error} ({both})") from error


def start_record(folder: Path, record: RunRecord) -> None:
    """Writes the config.json of a new run.

    Raises:
      RunError: if the folder contains something, or cannot be written.
    """
    with writing_to(folder):
        started = (folder / "config.json").exists()
        visible = [path for path in folder.glob("*") if not path.name.startswith(".")]
        taken = visible or (folder.exists() and not folder.is_dir())
    if started:
        require_same(folder, read_record(folder).config, record.config)
        advice = "choose another --out, or add --resume to go on with it"
        raise RunError(f"{folder}: contains this very run already; {advice}")
    if taken:
        raise RunError(f"{folder}: exists and is no run folder; choose another --out")
    write_record(folder, record)


def resume_record(folder: Path, before: RunRecord, now: RunRecord) -> RunRecord:
    """The record of a resumed run; it is not written yet.

    Args:
      folder: of the run.
      before: its record.
      now: the record that the same run would have if it started now. It may differ from ``before``
        only in the number of epochs (not with a cosine schedule), the data folders and, if there is
        a checkpoint, the source of the initial weights.

    Raises:
      RunError: if the run was made with different settings, other data or another loss or model.
    """
    ignored = ("init_from", "init_skip") if has_checkpoint(folder) else ()
    require_same(folder, before.config, now.config, (*FREE, *ignored))
    if before.data.fingerprint != now.data.fingerprint:
        raise RunError(f"{folder}: the data has changed since this run was started")
    if before.custom != now.custom:
        was = f"was started with a custom {before.custom or 'nothing'}, not {now.custom}"
        raise RunError(f"{folder}: {was}; give train the same loss and model")
    then, epochs = before.config.epochs, now.config.epochs
    if before.config.optimizer.schedule == "cosine" and then != epochs:
        problem = f"its cosine falls to zero over {then} epochs and cannot go on to {epochs}"
        raise RunError(f"{folder}: {problem}; use --epochs {then}, or start a new run")
    start = {item.name: getattr(now, item.name) for item in dataclasses.fields(Provenance)}
    return dataclasses.replace(
        before,
        config=dataclasses.replace(before.config, epochs=epochs),
        origin=now.origin or before.origin,
        resumed=(*before.resumed, Provenance(**start)),
        schema=SCHEMA,
    )


def has_checkpoint(folder: Path) -> bool:
    """Whether a run folder contains a checkpoint."""
    return any(path.name.isdecimal() for path in (folder / "checkpoints").glob("*"))


def write_record(folder: Path, record: RunRecord) -> None:
    """Writes config.json, and the folder where it is missing.

    Raises:
      RunError: if it cannot be written.
    """
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", to_dict(record))


def require_same(
    folder: Path, before: TrainConfig, now: TrainConfig, free: tuple[str, ...] = FREE
) -> None:
    """Refuses settings that differ from those of a run.

    Args:
      folder: of the run.
      before: its settings.
      now: settings that were given.
      free: names of settings that may differ.

    Raises:
      RunError: naming what differs.
    """
    if changed := "; ".join(differences(before, now, free)):
        problem = f"contains a run with different settings ({changed})"
        raise RunError(f"{folder}: {problem}; choose another --out, or give the same flags")
