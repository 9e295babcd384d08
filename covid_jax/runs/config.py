"""Settings of a run: the command line, config.json and the Python API are these dataclasses."""

import dataclasses
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from covid_jax.errors import ConfigError
from covid_jax.schema import Amount, Count, Fraction, Range, Settings
from covid_jax.transforms.augment_config import AugmentationName, AugmentConfig

Subset = Literal["test", "val", "train", "all"]
Which = Literal["best", "latest"]
DrawnPolicy = Literal["published", "patient", "leave-one-source-out", "slice", "paper"]
SplitPolicy = Literal["auto", DrawnPolicy]
PresetName = Literal["quick", "paper"]
Precision = Literal["float32", "bfloat16"]
Balance = Literal["none", "source", "patient"]
Attention = Literal["encoder_decoder", "skip", "none"]
"""The choices of covid_jax.models.Attention, which loads jax."""
Seed = Annotated[int, Range(0, 2**32 - 1)]


@dataclass(frozen=True)
class DataConfig(Settings):
    """The training data, and how it is split."""

    data: tuple[Path, ...] = ()
    """Dataset folders; several are joined. By default the built-in synthetic phantom."""
    image_size: int = 512
    """Side of the network's square input, in pixels."""
    lesion_slices_only: bool = True
    """Leave out the slices that show no lesion, as the paper does."""
    classes: tuple[str, ...] = ()
    """Lesion classes to distinguish, such as ground_glass consolidation; by default all are
    merged."""
    series: tuple[str, ...] = ()
    """SeriesInstanceUIDs to read from DICOM folders with several series."""
    intensity: Literal["slice", "dataset", "window", "lung"] = "slice"
    """slice: z-score of each slice; dataset: z-score with mean and standard deviation of the
    training slices; window: HU clipped to --window; lung: lung and soft tissue mapped to fixed
    values, for HU and pictures."""
    crop: Literal["none", "lungs"] = "none"
    """lungs: crop each slice to the bounding box of the lungs, which are found automatically."""
    window: tuple[float, float] = (-600.0, 1500.0)
    """Level and width of the window, in HU (--intensity window)."""
    split: SplitPolicy = "auto"
    """auto: published if there is such a split, else patient; paper: 80/20 by slice, which leaks;
    leave-one-source-out: source number --fold is the test part, the others are for training."""
    split_seed: Seed = 0
    """Random seed of the split or the folds."""
    folds: Annotated[int | None, Range(2)] = None
    """Number of parts for cross-validation."""
    fold: int | Literal["all"] | None = None
    """Number of the fold (or source) to hold out, from 1; all: one run for each."""
    split_file: Path | None = None
    """The split.json of another run, to use its split instead of drawing one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        by_source = self.split == "leave-one-source-out"  # the number of sources is that of folds
        if by_source and self.fold is None and self.split_file is None:
            problem = f"split {self.split} needs fold: the source that tests, or all"
            raise ConfigError(problem, "split", "fold")
        if (self.folds is None) != (self.fold is None) and not by_source:
            problem = "folds and fold go together, such as folds 5 and fold 2"
            raise ConfigError(problem, "folds", "fold")
        Range(1, self.folds or math.inf).check("fold", self.fold)
        if self.fold is not None and self.split_file is not None:
            problem = "split_file contains one split: leave out folds and fold"
            raise ConfigError(problem, "split_file", "folds", "fold")
        if len(set(self.classes)) != len(self.classes):
            raise ConfigError(f"classes {' '.join(self.classes)}: duplicate class", "classes")
        level, width = self.window
        if not (math.isfinite(level) and 0 < width < math.inf):
            problem = f"window {level} {width}: expected a level and a positive width"
            raise ConfigError(problem, "window")


@dataclass(frozen=True)
class ScoringConfig(Settings):
    """Settings for scoring predictions, of a run or of another program."""

    subset: Subset = "test"
    """Part of the run's split to evaluate."""
    tolerance: Amount = 3.0
    """Tolerance of the surface Dice, in mm (in pixels if the spacing is unknown)."""
    report: bool = False
    """Draw all figures, and write report.html with a viewer of all slices."""


@dataclass(frozen=True)
class ScoreConfig(ScoringConfig):
    """How a folder of masks or probabilities is scored."""

    threshold: Fraction = 0.5
    """Probability above which a pixel is lesion."""
    suffix: str | None = None
    """Text between the case name and the file's suffix, such as _probability; by default nothing or
    _mask."""
    probabilities: bool = False
    """Read 8-bit or 16-bit grey values as probabilities: black is 0, white is 1."""
    resize: bool = False
    """Resize pictures of another size bicubically, as COVID-SemiSeg's evaluator does."""


@dataclass(frozen=True)
class EvalConfig(ScoringConfig):
    """How a run is evaluated."""

    batch_size: Annotated[int | None, Range(1)] = None
    """Slices computed at once. By default 1 on a CPU, else 4."""
    threshold: Annotated[float | Literal["val"], Range(0, 1, exclusive=True)] = 0.5
    """Probability above which a pixel is lesion; val: the threshold with the best mean Dice on the
    validation slices."""
    tta: bool = False
    """Average over left-right and up-down flips."""


@dataclass(frozen=True)
class ModelConfig(Settings):
    """The network (see covid_jax.models.SCSEUNet)."""

    features: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Channels of each level, finest first."""
    attention: Attention = "encoder_decoder"
    """Position of the scSE attention. encoder_decoder: after each level of encoder and decoder;
    skip: on the skip connections; none: the paper's baseline."""
    negative_slope: Amount = 0.3
    """LeakyReLU negative slope."""
    precision: Precision = "float32"
    """Number type of the convolutions; parameters, norm statistics and losses are always
    float32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.features) < 2 or min(self.features) < 2:
            problem = f"features {self.features}: expected at least two levels of 2 channels"
            raise ConfigError(problem, "features")

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of SCSEUNet."""
        arguments = dict(vars(self))
        return arguments | {"dtype": arguments.pop("precision")}


@dataclass(frozen=True)
class LossConfig(Settings):
    """The loss (see covid_jax.losses)."""

    loss: Literal["ftl", "tversky", "dice"] = "ftl"
    """Loss function; ftl: focal Tversky."""
    alpha: Amount = 0.7
    """Weight of false negatives (ftl, tversky)."""
    beta: Amount = 0.3
    """Weight of false positives (ftl, tversky)."""
    gamma: Annotated[float, Range(1, 3)] = 4 / 3
    """Focal parameter, from 1 to 3; the exponent is 1/gamma (ftl)."""
    bce_weight: Amount = 0.0
    """Weight of an additional cross-entropy; if above 0, lesion-free slices contribute only
    cross-entropy."""
    pool: Literal["slice", "batch"] = "slice"
    """slice: a loss per slice; batch: one loss over the pixels of all slices of the batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha == self.beta == 0:
            raise ConfigError("alpha 0 and beta 0: the loss would be constant", "alpha", "beta")


@dataclass(frozen=True)
class OptimizerConfig(Settings):
    """Adam, its learning rate and the early stop; the defaults are the paper's."""

    learning_rate: Annotated[float, Range(0, exclusive=True)] = 5e-5
    """Adam's maximum learning rate."""
    schedule: Literal["plateau", "cosine"] = "plateau"
    """plateau: lowered when the validation loss stops improving (the paper's rule; see
    --plateau-factor and --plateau-patience); cosine: falls to zero over all epochs."""
    warmup_epochs: Annotated[int, Range(0)] = 0
    """Epochs over which the learning rate rises from zero."""
    clip_norm: Annotated[float | None, Range(0, exclusive=True)] = None
    """Maximum norm of the gradients over all parameters; larger gradients are scaled down to this
    norm."""
    ema: Annotated[float | None, Range(0, 1, exclusive=True)] = None
    """Decay of a moving average of the weights, such as 0.999; predictions use the average."""
    plateau_factor: Fraction = 0.5
    """Factor by which the learning rate is multiplied on a plateau of the validation loss."""
    plateau_patience: Count = 10
    """Number of epochs without an improvement of 1e-4 after which there is a plateau."""
    stop_patience: Count = 50
    """Epochs without any improvement after which training stops."""


@dataclass(frozen=True)
class InitConfig:
    """Fine-tuning (see covid_jax.training.fine_tune).

    Parameters are selected by the beginning of their names.
    """

    init_from: Path | None = None
    """Run folder, bundle, weights:NAME or hf:ORG/NAME to take the initial weights from."""
    init_skip: tuple[str, ...] = ()
    """Beginnings of the names of parameters to initialise at random instead, such as head."""
    freeze: tuple[str, ...] = ()
    """Beginnings of the names of parameters that are not trained, such as encoder."""

    def __post_init__(self) -> None:
        if self.init_skip and self.init_from is None:
            raise ConfigError("init_skip: only together with init_from", "init_skip", "init_from")


@dataclass(frozen=True)
class TrainConfig(Settings):
    """All settings of a training run; the defaults are the paper's."""

    preset: PresetName = "paper"
    """Defaults of the other settings. paper: the paper's recipe, at 512 x 512; quick: a small
    network that trains in minutes on a laptop."""
    out: Path | None = None
    """Run folder; by default runs/<name of the data>."""
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    init: InitConfig = field(default_factory=InitConfig)
    epochs: Count = 500
    """Maximum number of passes over the training part."""
    batch_size: Count = 1
    """Slices per step."""
    accumulate: Count = 1
    """Number of batches whose gradients are averaged for one update of the weights. If an epoch
    ends in the middle of an update, the update is completed with batches of the next epoch."""
    remat: bool = False
    """Save memory on a GPU: activations are recomputed for the gradients."""
    epoch_slices: Annotated[int | None, Range(1)] = None
    """Number of slices drawn per epoch; by default each training slice once."""
    balance: Balance = "none"
    """Draw slices of each source, or of each patient, equally often."""
    seed: Seed = 0
    """Seed of the initial weights, the order of slices and the augmentation."""
    resume: bool = False
    """Continue the run in the run folder."""
    deterministic: bool = False
    """On a GPU, use only deterministic kernels; on a CPU training is always deterministic."""
    profile: Annotated[int, Range(0)] = 0
    """Number of steps traced into the run folder's trace/, for Perfetto."""

    def __post_init__(self) -> None:
        super().__post_init__()
        levels, size = len(self.model.features), self.data.image_size
        multiple = 2 ** (levels - 1)
        if size % multiple or size < 2 * multiple:
            below = max(2, size // multiple) * multiple
            needs = f"{levels} levels need a multiple of {multiple}, at least {2 * multiple}"
            problem = f"image_size {size}: {needs}; try {below} or {below + multiple}"
            raise ConfigError(problem, "image_size")
        if self.optimizer.warmup_epochs >= self.epochs:
            problem = f"warmup_epochs {self.optimizer.warmup_epochs}: expected fewer than epochs"
            raise ConfigError(f"{problem}, {self.epochs}", "warmup_epochs", "epochs")

    @classmethod
    def quick(cls) -> "TrainConfig":
        """Settings for minutes on a laptop: 128 x 128, a quarter of the channels, 36 epochs."""
        return cls(
            preset="quick",
            data=DataConfig(image_size=128),
            model=ModelConfig(features=(8, 16, 32, 64, 128)),
            optimizer=OptimizerConfig(learning_rate=2e-3, plateau_patience=3),
            epochs=36,
            batch_size=6,
            augmentation=AugmentConfig.named("standard"),
        )

    @classmethod
    def named(cls, preset: PresetName, augment: AugmentationName | None = None) -> "TrainConfig":
        """The settings that ``--preset`` names, with another ``--augment`` where one is given."""
        config = cls.quick() if preset == "quick" else cls()
        augmentation = AugmentConfig.named(augment or config.augmentation.augment)
        return dataclasses.replace(config, augmentation=augmentation)


def to_dict(value: Any) -> Any:
    """Settings or a record as JSON-compatible dicts, lists, numbers and strings."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    return vars(value) if dataclasses.is_dataclass(value) else os.fspath(value)


def differences(old: TrainConfig, new: TrainConfig, ignore: tuple[str, ...] = ()) -> list[str]:
    """Fields in which two configs differ, as ``name: old -> new``."""
    flat_old, flat_new = flatten(to_dict(old)), flatten(to_dict(new))
    names = [n for n in flat_old if flat_old[n] != flat_new[n] and n not in ignore]
    return [f"{name}: {flat_old[name]} -> {flat_new[name]}" for name in names]


def flatten(record: dict[str, Any]) -> dict[str, Any]:
    """The settings of all groups by name; leaf names are unique."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= flatten(value) if isinstance(value, dict) else {name: value}
        # A group and its leaf may share a name (data.data, loss.loss): leaves are unique.
    return flat
