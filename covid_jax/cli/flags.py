"""The flags of each command, as dataclasses: a field is a flag, its docstring the help."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from covid_jax.errors import ConfigError
from covid_jax.prediction.options import PredictOptions
from covid_jax.runs import config as configs
from covid_jax.schema import Range, Settings
from covid_jax.transforms.augment_config import AugmentationName

# Markers of tyro, for fields that are not plain flags.
_POSITIONAL: Any = {"marker": "Positional"}
_REPEATED: Any = {"marker": "UseAppendAction"}
_SWITCH: Any = {"marker": "FlagCreatePairsOff"}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Flags of every command."""

    quiet: bool = field(default=False, metadata=_SWITCH)
    """Print errors only."""
    verbose: bool = field(default=False, metadata=_SWITCH)
    """Print all settings, and the traceback of an error."""


@dataclass(frozen=True)
class Start:
    """The flags of ``train`` that decide the defaults of its other flags."""

    preset: configs.PresetName | None = None
    data: tuple[Path, ...] = ()
    augment: AugmentationName | None = None
    config: Path | None = None


@dataclass(frozen=True)
class Hosts:
    """For several processes without a launcher; not needed under Slurm or Open MPI."""

    coordinator: str | None = None
    """host:port of the first process."""
    num_processes: int | None = None
    """Number of processes of the run."""
    process_id: int | None = None
    """Number of this process, from 0."""


@dataclass(frozen=True, kw_only=True)
class TrainFlags(Flags):
    """Flags of ``train`` and ``config``."""

    config: Path | None = None
    """Settings that replace those of the preset: a YAML or JSON file with all or some settings, a
    run folder, or the name of a built-in recipe (semiseg, paper, network)."""
    seeds: tuple[int, ...] = ()
    """Train one run per seed, each in its own folder, and summarise them; --fold all does the same
    for folds."""
    settings: configs.TrainConfig
    hosts: Hosts = field(default_factory=Hosts)


@dataclass(frozen=True, kw_only=True)
class ReproduceFlags(Flags):
    """Flags of ``reproduce``."""

    source: Path = field(metadata=_POSITIONAL)
    """Run or study folder, or a JSON file of benchmarks/results."""
    run: str | None = None
    """Name of the run, if the study or file contains several; by default the first."""
    data: tuple[Path, ...] = ()
    """Dataset folders, if they have moved."""
    seeds: tuple[int, ...] = ()
    """Additional seeds to train, if the record has no spread between seeds."""
    out: Path | None = None
    """Output folder; by default runs/<name>-again. An interrupted command continues in it."""


@dataclass(frozen=True, kw_only=True)
class CheckpointFlags(Flags):
    """Which weights of a run are used."""

    which: configs.Which = "best"
    """best: checkpoint with the lowest validation loss; latest: the last checkpoint."""
    averaged: bool = True
    """Use the moving average of the weights, if the run kept one."""


@dataclass(frozen=True, kw_only=True)
class EvalFlags(CheckpointFlags):
    """Flags of ``eval``."""

    run: tuple[Path, ...] = field(metadata=_POSITIONAL)
    """Run folder or bundle. Several of them, or the folder of a study, are scored as one
    ensemble."""
    data: tuple[Path, ...] = ()
    """Dataset folders: needed if they have moved, or to score another dataset (with --subset
    all)."""
    lesion_slices_only: bool | None = None
    """Leave out slices without lesion; by default as in the training of the run."""
    precision: configs.Precision | None = None
    """Number type of the convolutions; by default as in training."""
    out: Path | None = None
    """Folder for the report; by default eval/<subset> in the run, eval/<subset>-latest with --which
    latest, and so on. Required for a bundle and for an ensemble."""
    settings: configs.EvalConfig = field(default_factory=configs.EvalConfig)


@dataclass(frozen=True, kw_only=True)
class CompareFlags(Flags):
    """Flags of ``compare``."""

    runs: tuple[Path, ...] = field(metadata=_POSITIONAL)
    """Folders of runs that were already evaluated, or output folders of covid-jax score. All are
    compared with the first."""
    data: tuple[Path, ...] = ()
    """Dataset folders, if they have moved."""
    subset: configs.Subset = "test"
    """Subset of the evaluations to compare."""
    out: Path = Path("runs/compare")
    """Folder for tables and pictures."""


@dataclass(frozen=True, kw_only=True)
class ScoreFlags(Flags):
    """Flags of ``score``; one of --truth, --data and --like is needed."""

    predictions: Path = field(metadata=_POSITIONAL)
    """Folder of masks or probability maps (NIfTI or pictures) with the names of the cases."""
    truth: Path | None = None
    """Folder of true masks; a patients.csv in it names the patients."""
    data: tuple[Path, ...] = ()
    """Dataset folders; their masks are the truth."""
    like: Path | None = None
    """Run folder: score the --subset of its split with its classes, to compare with it."""
    classes: tuple[str, ...] = ()
    """Lesion classes to distinguish; with --truth, the names of labels 1, 2, ..."""
    lesion_slices_only: bool = False
    """Leave out slices without lesion."""
    series: tuple[str, ...] = ()
    """SeriesInstanceUIDs to read from DICOM folders with several series."""
    out: Path | None = None
    """Folder for the scores; by default scored/<name of the predictions' folder>."""
    settings: configs.ScoreConfig = field(default_factory=configs.ScoreConfig)

    def __post_init__(self) -> None:
        if sum(map(bool, [self.truth, self.data, self.like])) != 1:
            raise ConfigError("score needs one of truth, data and like", "truth", "data", "like")
        if self.like and (self.classes or self.lesion_slices_only or self.series):
            taken = ("classes", "lesion_slices_only", "series")
            raise ConfigError(f"like takes {', '.join(taken)} from its run", "like", *taken)


@dataclass(frozen=True, kw_only=True)
class PredictFlags(CheckpointFlags):
    """Flags of ``predict``."""

    scans: tuple[Path, ...] = field(metadata=_POSITIONAL)
    """NIfTI, NRRD, MetaImage, DICOM or picture files, or folders that contain them."""
    run: tuple[Path, ...] = field(default=(), metadata=_REPEATED)
    """Run folder, bundle, weights:NAME (see covid-jax weights) or hf:ORG/NAME[@REVISION] on the
    Hugging Face hub; by default the installed weights. Several runs, or a study, are averaged as an
    ensemble."""
    precision: configs.Precision | Literal["auto"] | None = None
    """Number type of the convolutions; by default as in training. auto: bfloat16, if it is faster
    on this machine and its measured effect on the validation Dice is below 0.001."""
    out: Path
    """Folder for the masks and their summary."""
    settings: PredictOptions = field(default_factory=PredictOptions)


@dataclass(frozen=True, kw_only=True)
class ExportFlags(CheckpointFlags):
    """Flags of ``export``."""

    run: Path = field(metadata=_POSITIONAL)
    """Run folder, or a bundle."""
    format: Literal["bundle", "stablehlo", "onnx"]
    """bundle: weights and a model card; stablehlo: for jax alone; onnx: ONNX Runtime, OpenVINO."""
    out: Path
    """New folder (bundle) or file to write; it must not exist."""


@dataclass(frozen=True, kw_only=True)
class DataFlags(Flags, Settings):
    """Flags of ``data``."""

    path: tuple[Path, ...] = field(metadata=_POSITIONAL)
    """Dataset folders; several are joined."""
    out: Path | None = None
    """Folder for the pictures; by default runs/<name of the data>-look."""
    image_size: Annotated[int, Range(16)] = 256
    """Side of the slices in pixels, for the near-duplicate search and the drawn examples."""
    lesion_slices_only: bool = True
    """Leave out slices without lesion."""
    classes: tuple[str, ...] = ()
    """Lesion classes to distinguish."""
    series: tuple[str, ...] = ()
    """SeriesInstanceUIDs to read from DICOM folders with several series."""


@dataclass(frozen=True, kw_only=True)
class PhantomFlags(Flags):
    """Flags of ``phantom``."""

    out: Path = field(metadata=_POSITIONAL)
    """New folder to write."""
    seed: int = 0
    """Random seed of the phantom."""
    size: int = 256
    """Side of each slice, in pixels."""


@dataclass(frozen=True, kw_only=True)
class CacheFlags(Flags):
    """Flags of ``cache``."""

    clear: bool = field(default=False, metadata=_SWITCH)
    """Delete the cache; its content is computed again when needed."""


@dataclass(frozen=True, kw_only=True)
class CompletionFlags(Flags):
    """Flags of ``completion``."""

    shell: Literal["bash", "zsh", "fish"] = field(metadata=_POSITIONAL)
    """Shell to write the script for."""


ConfigFlags = TrainFlags
WeightsFlags = Flags
