"""The flags of each command, as dataclasses: a field is a flag, its docstring the help."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from covid_jax.errors import ConfigError
from covid_jax.prediction.options import PredictOptions
from covid_jax.runs.config import (
    EvalConfig,
    Precision,
    PresetName,
    ScoreConfig,
    Subset,
    TrainConfig,
    Which,
)
from covid_jax.schema import Range, Settings
from covid_jax.transforms.augment_config import AugmentationName

# Markers of tyro, for fields that are not plain flags.
_POSITIONAL: Any = {"marker": "Positional"}
_REPEATED: Any = {"marker": "UseAppendAction"}
_SWITCH: Any = {"marker": "FlagCreatePairsOff"}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What every command takes."""

    quiet: bool = field(default=False, metadata=_SWITCH)
    """Print errors only."""
    verbose: bool = field(default=False, metadata=_SWITCH)
    """Print all settings, and the traceback of an error."""


@dataclass(frozen=True)
class Start:
    """The flags of ``train`` on which the defaults of its others depend."""

    preset: PresetName | None = None
    data: tuple[Path, ...] = ()
    augment: AugmentationName | None = None
    config: Path | None = None


@dataclass(frozen=True)
class Hosts:
    """Where several processes are started by hand; Slurm and Open MPI need none of these."""

    coordinator: str | None = None
    """host:port of the first process."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this one is, from 0."""


@dataclass(frozen=True, kw_only=True)
class TrainFlags(Flags):
    """Of ``train`` and ``config``."""

    config: Path | None = None
    """YAML or JSON file with settings, all or some, that replace the preset's; a run folder; or the
    name of a recipe that comes with covid_jax: semiseg, paper, network."""
    seeds: tuple[int, ...] = ()
    """A run for each, in folders of their own, with a summary; so for --fold all."""
    settings: TrainConfig
    hosts: Hosts = field(default_factory=Hosts)


@dataclass(frozen=True, kw_only=True)
class ReproduceFlags(Flags):
    """Of ``reproduce``."""

    source: Path = field(metadata=_POSITIONAL)
    """Run or study folder, or a JSON file of benchmarks/results."""
    run: str | None = None
    """Which run of a study or a file of several; by default the first."""
    data: tuple[Path, ...] = ()
    """Dataset folders, if they have moved."""
    seeds: tuple[int, ...] = ()
    """More seeds to train, where the spread of seeds is not recorded."""
    out: Path | None = None
    """Study folder for what is trained; by default runs/<name>-again. Goes on where it was."""


@dataclass(frozen=True, kw_only=True)
class CheckpointFlags(Flags):
    """Which weights of a run are taken."""

    which: Which = "best"
    """Checkpoint: of the lowest validation loss, or the last."""
    averaged: bool = True
    """Take the weights' moving average, where the run kept one."""


@dataclass(frozen=True, kw_only=True)
class EvalFlags(CheckpointFlags):
    """Of ``eval``."""

    run: tuple[Path, ...] = field(metadata=_POSITIONAL)
    """Run folder, or a bundle; several, or a study's folder, are scored as an ensemble."""
    data: tuple[Path, ...] = ()
    """Dataset folders, if they have moved, or another dataset (with --subset all)."""
    lesion_slices_only: bool | None = None
    """Leave out the slices that show no lesion; by default as in training."""
    precision: Precision | None = None
    """Type of the convolutions; by default that of the training."""
    out: Path | None = None
    """Folder for the report; by default eval/<subset> in the run, eval/<subset>-latest with --which
    latest, and so on. A bundle needs one."""
    settings: EvalConfig = field(default_factory=EvalConfig)


@dataclass(frozen=True, kw_only=True)
class CompareFlags(Flags):
    """Of ``compare``."""

    runs: tuple[Path, ...] = field(metadata=_POSITIONAL)
    """Run folders, each scored before, or folders of covid-jax score; the others are compared with
    the first."""
    data: tuple[Path, ...] = ()
    """Dataset folders, if they have moved."""
    subset: Subset = "test"
    """Which evaluation of theirs."""
    out: Path = Path("runs/compare")
    """Folder for tables and pictures."""


@dataclass(frozen=True, kw_only=True)
class ScoreFlags(Flags):
    """Of ``score``; one of --truth, --data and --like is needed."""

    predictions: Path = field(metadata=_POSITIONAL)
    """Folder of masks or probabilities, NIfTI or pictures, named as the cases are."""
    truth: Path | None = None
    """Folder of true masks; its patients.csv names patients."""
    data: tuple[Path, ...] = ()
    """Dataset folders whose masks are the truth."""
    like: Path | None = None
    """Run folder: score the slices of its --subset, to be compared with it."""
    classes: tuple[str, ...] = ()
    """Lesion classes told apart; with --truth, the names of labels 1, 2, ..."""
    lesion_slices_only: bool = False
    """Leave out the slices that show no lesion; with --like as in its training."""
    series: tuple[str, ...] = ()
    """SeriesInstanceUIDs to take from DICOM folders that hold several."""
    out: Path | None = None
    """Folder for the scores; by default scored/<name of the predictions' folder>."""
    settings: ScoreConfig = field(default_factory=ScoreConfig)

    def __post_init__(self) -> None:
        given = [self.truth, self.data, self.like]
        if sum(map(bool, given)) != 1:
            raise ConfigError("score needs one of truth, data and like", "truth", "data", "like")


@dataclass(frozen=True, kw_only=True)
class PredictFlags(CheckpointFlags):
    """Of ``predict``."""

    scans: tuple[Path, ...] = field(metadata=_POSITIONAL)
    """NIfTI, DICOM or picture files, or folders that hold them."""
    run: tuple[Path, ...] = field(default=(), metadata=_REPEATED)
    """Run folder, bundle, weights:NAME (see covid-jax weights) or hf:ORG/NAME[@REVISION] on the
    Hugging Face hub; by default installed weights. Several, or a study, are an ensemble."""
    precision: Precision | Literal["auto"] | None = None
    """Type of the convolutions; by default that of the training. auto: bfloat16 where it is faster
    here and was measured to change the validation Dice by less than 0.001."""
    out: Path
    """Folder for the masks and their summary."""
    settings: PredictOptions = field(default_factory=PredictOptions)


@dataclass(frozen=True, kw_only=True)
class ExportFlags(CheckpointFlags):
    """Of ``export``."""

    run: Path = field(metadata=_POSITIONAL)
    """Run folder, or a bundle."""
    format: Literal["bundle", "stablehlo", "onnx"]
    """bundle: weights and a model card; stablehlo: for jax alone; onnx: ONNX Runtime, OpenVINO."""
    out: Path
    """Folder (bundle) or file to make; nothing may be there."""


@dataclass(frozen=True, kw_only=True)
class DataFlags(Flags, Settings):
    """Of ``data``."""

    path: tuple[Path, ...] = field(metadata=_POSITIONAL)
    """Dataset folders; several are joined."""
    out: Path | None = None
    """Folder for the pictures; by default runs/<name of the data>-look."""
    image_size: Annotated[int, Range(16)] = 256
    """Side of the grid on which near-duplicates are searched for and examples drawn, in pixels."""
    lesion_slices_only: bool = True
    """Leave out the slices that show no lesion."""
    classes: tuple[str, ...] = ()
    """Lesion classes told apart."""
    series: tuple[str, ...] = ()
    """SeriesInstanceUIDs to take from DICOM folders that hold several."""


@dataclass(frozen=True, kw_only=True)
class PhantomFlags(Flags):
    """Of ``phantom``."""

    out: Path = field(metadata=_POSITIONAL)
    """Folder to make."""
    seed: int = 0
    """The same seed writes the same slices."""
    size: int = 256
    """Side of each slice, in pixels."""


@dataclass(frozen=True, kw_only=True)
class CacheFlags(Flags):
    """Of ``cache``."""

    clear: bool = field(default=False, metadata=_SWITCH)
    """Delete what is there; it is made again when needed."""


@dataclass(frozen=True, kw_only=True)
class CompletionFlags(Flags):
    """Of ``completion``."""

    shell: Literal["bash", "zsh", "fish"] = field(metadata=_POSITIONAL)
    """The shell that is to read the script."""


ConfigFlags = TrainFlags
WeightsFlags = Flags
