"""Settings of a run: the command line, config.json and the Python API are these dataclasses."""

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from covid_jax.errors import ConfigError

SplitPolicy = Literal["auto", "published", "patient", "leave-one-source-out", "slice", "paper"]
PresetName = Literal["quick", "paper"]
AugmentationName = Literal["none", "standard"]


def _check_choices(config: Any) -> None:
    for name, hint in typing.get_type_hints(type(config)).items():
        value, choices = getattr(config, name), typing.get_args(hint)
        if typing.get_origin(hint) is Literal and value not in choices:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {value}: expected one of {', '.join(choices)}")


@dataclass(frozen=True)
class DataConfig:
    """What is trained on."""

    data: tuple[Path, ...] = ()
    """Dataset folders, several are joined; without one, the built-in synthetic phantom."""
    image_size: int = 512
    """Side of the square grid the network sees, in pixels."""
    lesion_slices_only: bool = True
    """Leave out the slices that show no lesion, as the paper does."""
    classes: tuple[str, ...] = ()
    """Lesion classes told apart, such as ground_glass consolidation; none: all merged to one."""
    series: tuple[str, ...] = ()
    """SeriesInstanceUIDs to take from DICOM folders that hold several."""
    intensity: Literal["slice", "dataset", "window"] = "slice"
    """slice: z-score of each slice; dataset: z-score by the training part; window: HU, clipped."""
    window: tuple[float, float] = (-600.0, 1500.0)
    """Level and width of the window, in HU (--intensity window)."""
    split: SplitPolicy = "auto"
    """auto: published where there is such a split, else patient. paper: 80/20 by slice, leaky.
    leave-one-source-out: source --fold tests, the others train."""
    split_seed: int = 0
    """Of the draw of the split or the folds."""
    folds: int | None = None
    """Cross-validation: split into this many parts."""
    fold: int | Literal["all"] | None = None
    """Which of them (or which source) is held out, from 1; all: a run for each."""
    split_file: Path | None = None
    """A run's split.json, to be used again instead of drawing one."""

    def __post_init__(self) -> None:
        _check_choices(self)
        by_source = self.split == "leave-one-source-out"  # which knows the number of folds
        if by_source and self.fold is None and self.split_file is None:
            raise ConfigError(f"--split {self.split}: needs --fold, the source that tests, or all")
        if (self.folds is None) != (self.fold is None) and not by_source:
            raise ConfigError("--folds and --fold go together, such as --folds 5 --fold 2")
        if self.fold is not None:
            if self.folds is not None and self.folds < 2:
                raise ConfigError(f"--folds {self.folds}: expected at least 2")
            if self.fold != "all" and not 1 <= self.fold <= (self.folds or self.fold):
                raise ConfigError(f"--fold {self.fold}: expected 1 to {self.folds or 'the number of sources'}")
            if self.split_file is not None:
                raise ConfigError("--split-file holds one split; leave out --folds and --fold")
        if not 0 <= self.split_seed < 2**32:
            raise ConfigError(
                f"--split-seed {self.split_seed}: expected a whole number from 0 to 2**32 - 1"
            )
        if len(set(self.classes)) != len(self.classes):
            raise ConfigError(f"--classes {' '.join(self.classes)}: a class stands there twice")
        level, width = self.window
        if not (math.isfinite(level) and 0 < width < math.inf):
            raise ConfigError(f"--window {level} {width}: expected a level and a positive width")


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training slices (see covid_jax.transforms.augmentation); 0 turns one off."""

    augment: AugmentationName = "none"
    """Defaults of the strengths below: all off, or all on."""
    flip: bool = False
    """Left-right and up-down, each in half of the cases."""
    rotation: float = 0.0
    """At most this many degrees, either way."""
    scale: float = 0.0
    """Of the size, either way."""
    shift: float = 0.0
    """Of the slice's side, either way, along each axis."""
    elastic: float = 0.0
    """Displacement of the control points of a coarse grid, of the slice's side, either way."""
    brightness: float = 0.0
    """Added: standard deviations of the slice, either way."""
    contrast: float = 0.0
    """Multiplied: relative, either way."""
    gamma_correction: float = 0.0
    """Intensities to the power exp(u), u up to this either way, within the slice's own range."""
    noise: float = 0.0
    """Gaussian noise of at most this standard deviation, in those of the slice."""
    blur: float = 0.0
    """Gaussian blur of at most this standard deviation, in pixels of a 512 x 512 slice."""

    def __post_init__(self) -> None:
        _check_choices(self)
        limits = {"rotation": 180.0, "scale": 0.9, "contrast": 1.0, "shift": 1.0, "elastic": 0.2}
        for name, value in dataclasses.asdict(self).items():
            if not isinstance(value, str) and not 0 <= value <= limits.get(name, 10.0):
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} {value}: expected 0 to {limits.get(name, 10.0)}")

    @property
    def on(self) -> bool:
        """Whether anything is changed at all."""
        return any(value for name, value in dataclasses.asdict(self).items() if name != "augment")


@dataclass(frozen=True)
class EvalConfig:
    """How a run is scored."""

    subset: Literal["test", "val", "train", "all"] = "test"
    """Part of the run's split to score."""
    batch_size: int = 4
    """Slices computed at once."""
    threshold: Literal["0.5", "val"] = "0.5"
    """Above which a probability is lesion: one half, or what validation slices score best at."""
    tta: bool = False
    """Average over left-right and up-down flips."""
    tolerance: float = 3.0
    """Of the surface Dice: in mm, and in pixels for distances in pixels."""
    report: bool = False
    """Draw all figures, and write report.html, a page to look at every slice."""

    def __post_init__(self) -> None:
        _check_choices(self)
        if self.batch_size < 1:
            raise ConfigError(f"--batch-size {self.batch_size}: expected at least 1")
        if not 0 <= self.tolerance < math.inf:
            raise ConfigError(f"--tolerance {self.tolerance}: expected 0 or more")


AUGMENTATIONS: dict[AugmentationName, AugmentConfig] = {
    "none": AugmentConfig(),
    "standard": AugmentConfig(
        augment="standard",
        flip=True,
        rotation=20.0,
        scale=0.2,
        shift=0.05,
        elastic=0.02,
        brightness=0.2,
        contrast=0.2,
        gamma_correction=0.2,
        noise=0.1,
        blur=1.0,
    ),
}


@dataclass(frozen=True)
class ModelConfig:
    """The network (see covid_jax.models.SCSEUNet)."""

    features: tuple[int, ...] = (32, 64, 128, 256, 512)
    """Channels of each level, finest first."""
    attention: Literal["encoder_decoder", "skip", "none"] = "encoder_decoder"
    """Where the scSE attention sits; none is the paper's baseline."""
    negative_slope: float = 0.3
    """Of every LeakyReLU."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the convolutions; parameters, norms' statistics and losses stay float32."""

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of SCSEUNet."""
        return {
            "features": self.features,
            "attention": self.attention,
            "negative_slope": self.negative_slope,
            "dtype": self.precision,
        }


@dataclass(frozen=True)
class LossConfig:
    """The loss (see covid_jax.losses)."""

    loss: Literal["ftl", "tversky", "dice"] = "ftl"
    """ftl: focal Tversky."""
    alpha: float = 0.7
    """Weight of false negatives (ftl, tversky)."""
    beta: float = 0.3
    """Weight of false positives (ftl, tversky)."""
    gamma: float = 4 / 3
    """Focal exponent is 1/gamma, gamma in [1, 3] (ftl)."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, its learning rate and the early stop; the defaults are the paper's."""

    learning_rate: float = 5e-5
    """Adam's, at its highest."""
    schedule: Literal["plateau", "cosine"] = "plateau"
    """plateau: the paper's rule, below; cosine: down to zero over all epochs."""
    warmup_epochs: int = 0
    """The learning rate rises from zero over so many epochs."""
    clip_norm: float | None = None
    """Gradients of a larger norm, over all parameters, are shortened to it."""
    ema: float | None = None
    """Decay of a moving average of the weights, such as 0.999; it is what is judged and used."""
    plateau_factor: float = 0.5
    """The learning rate is multiplied by this on a plateau of the validation loss."""
    plateau_patience: int = 10
    """Epochs without an improvement of 1e-4 that make a plateau."""
    stop_patience: int = 50
    """Epochs without any improvement after which training stops."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run."""

    preset: PresetName = "paper"
    """The defaults of all other flags. paper: its recipe, at 512; quick: minutes on a laptop."""
    out: Path | None = None
    """Run folder; by default runs/<name of the data>."""
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    epochs: int = 500
    """At most this many passes over the training part."""
    batch_size: int = 1
    """Slices a step."""
    seed: int = 0
    """Of the initial weights, the order of slices and the augmentation."""
    resume: bool = False
    """Go on with the run in the run folder."""
    deterministic: bool = False
    """On a GPU, only kernels that give the same result each time; CPUs have no others."""
    profile: int = 0
    """Trace so many steps into the run folder's trace/, for Perfetto."""

    def __post_init__(self) -> None:
        for group in (self, self.model, self.loss, self.optimizer):
            _check_choices(group)
        levels = len(self.model.features)
        multiple = 2 ** (levels - 1)
        size = self.data.image_size
        if levels < 2 or min(self.model.features) < 2:
            raise ConfigError(
                f"--features {self.model.features}: expected at least two levels of 2 channels"
            )
        if size % multiple or size < 2 * multiple:
            below = max(2, size // multiple) * multiple
            raise ConfigError(
                f"--image-size {size}: {levels} levels need a multiple of {multiple}, at least "
                f"{2 * multiple}; try {below} or {below + multiple}"
            )
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"--seed {self.seed}: expected a whole number from 0 to 2**32 - 1")
        if self.loss.alpha == self.loss.beta == 0:
            raise ConfigError("--alpha 0 --beta 0: the loss would be constant")
        if not 1 <= self.loss.gamma <= 3:
            raise ConfigError(f"--gamma {self.loss.gamma}: expected a value in [1, 3]")
        amounts = (
            ("--alpha", self.loss.alpha),
            ("--beta", self.loss.beta),
            ("--negative-slope", self.model.negative_slope),
        )
        for flag, value in amounts:
            if not 0 <= value < math.inf:
                raise ConfigError(f"{flag} {value}: must be finite and not negative")
        for flag, value, least in (
            ("--epochs", self.epochs, 1),
            ("--batch-size", self.batch_size, 1),
            ("--profile", self.profile, 0),
            ("--warmup-epochs", self.optimizer.warmup_epochs, 0),
            ("--plateau-patience", self.optimizer.plateau_patience, 1),
            ("--stop-patience", self.optimizer.stop_patience, 1),
        ):
            if value < least:
                raise ConfigError(f"{flag} {value}: expected at least {least}")
        if self.optimizer.warmup_epochs >= self.epochs:
            raise ConfigError(
                f"--warmup-epochs {self.optimizer.warmup_epochs}: expected fewer than the run's "
                f"{self.epochs} epochs"
            )
        clip, ema = self.optimizer.clip_norm, self.optimizer.ema
        if clip is not None and not 0 < clip < math.inf:
            raise ConfigError(f"--clip-norm {clip}: must be finite and positive")
        if ema is not None and not 0 < ema < 1:
            raise ConfigError(f"--ema {ema}: expected a value in (0, 1)")
        rate = self.optimizer.learning_rate
        if not 0 < rate < math.inf:
            raise ConfigError(f"--learning-rate {rate}: must be finite and positive")
        if not 0 < self.optimizer.plateau_factor < 1:
            raise ConfigError(
                f"--plateau-factor {self.optimizer.plateau_factor}: expected a value in (0, 1)"
            )


PRESETS: dict[PresetName, TrainConfig] = {
    "paper": TrainConfig(),
    "quick": TrainConfig(
        preset="quick",
        data=DataConfig(image_size=128),
        model=ModelConfig(features=(8, 16, 32, 64, 128)),
        optimizer=OptimizerConfig(learning_rate=2e-3, plateau_patience=3),
        epochs=36,
        batch_size=6,
        augmentation=AUGMENTATIONS["standard"],
    ),
}


def to_dict(config: Any) -> dict[str, Any]:
    """A settings dataclass as JSON can hold it."""
    fields = ((field.name, getattr(config, field.name)) for field in dataclasses.fields(config))
    return {name: _plain(value) for name, value in fields}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def train_config_from_dict(record: dict[str, Any]) -> TrainConfig:
    """The settings ``to_dict`` wrote.

    Raises:
      ConfigError: on a field that is missing, unknown or of the wrong type.
    """
    try:
        return _from_dict(TrainConfig, record)
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"config.json: damaged ({error})") from error


def _from_dict(kind: Any, record: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    if set(hints) != set(record):
        raise ConfigError(
            f"config.json: {kind.__name__} has the fields {', '.join(sorted(set(hints)))}; "
            f"found {', '.join(sorted(record))}"
        )
    values = {}
    for name, value in record.items():
        if dataclasses.is_dataclass(hints[name]):
            value = _from_dict(hints[name], value)
        elif isinstance(value, list):
            kind_of_item = Path if Path in typing.get_args(hints[name]) else lambda item: item
            value = tuple(kind_of_item(item) for item in value)
        elif isinstance(value, str) and Path in typing.get_args(hints[name]):
            value = Path(value)
        values[name] = value
    return kind(**values)


def differences(old: TrainConfig, new: TrainConfig, ignore: tuple[str, ...] = ()) -> list[str]:
    """Fields in which two configs differ, as ``name: old -> new``."""
    flat_old, flat_new = _flat(to_dict(old)), _flat(to_dict(new))
    return [
        f"{name}: {flat_old[name]} -> {flat_new[name]}"
        for name in flat_old
        if flat_old[name] != flat_new[name] and name not in ignore
    ]


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in record.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
        # A group and its leaf may share a name (data.data, loss.loss): leaves are unique.
    return flat
