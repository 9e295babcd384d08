"""Settings of a run: the command line, config.json and the Python API are these dataclasses."""

import dataclasses
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from covid_jax.errors import ConfigError

SplitPolicy = Literal["auto", "published", "patient", "slice", "paper"]
PresetName = Literal["quick", "paper"]


@dataclass(frozen=True)
class DataConfig:
    """What is trained on."""

    data: Path | None = None
    """Dataset folder; without one, the built-in synthetic phantom."""
    image_size: int = 512
    """Side of the square grid the network sees, in pixels."""
    lesion_slices_only: bool = True
    """Leave out Dataset-2's slices without lesion, as the paper does."""
    split: SplitPolicy = "auto"
    """auto: published where there is such a split, else patient. paper: 80/20 by slice, leaky."""


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
    """Adam, the plateau rule and the early stop; the defaults are the paper's."""

    learning_rate: float = 5e-5
    """Adam's, before any plateau."""
    plateau_factor: float = 0.5
    """The learning rate is multiplied by this on a plateau of the validation loss."""
    plateau_patience: int = 10
    """Epochs without an improvement of 1e-4 that make a plateau."""
    stop_patience: int = 50
    """Epochs without any improvement after which training stops."""


def _check_choices(config: Any) -> None:
    for name, hint in typing.get_type_hints(type(config)).items():
        value, choices = getattr(config, name), typing.get_args(hint)
        if typing.get_origin(hint) is Literal and value not in choices:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} {value}: expected one of {', '.join(choices)}")


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run."""

    preset: PresetName = "paper"
    """The defaults of all other flags. paper: its recipe, at 512; quick: minutes on a laptop."""
    out: Path | None = None
    """Run folder; by default runs/<name of the data>."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    epochs: int = 500
    """At most this many passes over the training part."""
    batch_size: int = 1
    """Slices a step."""
    augment: Literal["none", "standard"] = "none"
    """standard: flips, rotation, scale, brightness and contrast at random."""
    seed: int = 0
    """Of the initial weights, the split, the order of slices and the augmentation."""
    resume: bool = False
    """Go on with the run in the run folder."""

    def __post_init__(self) -> None:
        for group in (self, self.data, self.model, self.loss, self.optimizer):
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
        for flag, value in (
            ("--epochs", self.epochs),
            ("--batch-size", self.batch_size),
            ("--plateau-patience", self.optimizer.plateau_patience),
            ("--stop-patience", self.optimizer.stop_patience),
        ):
            if value < 1:
                raise ConfigError(f"{flag} {value}: expected at least 1")
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
        augment="standard",
    ),
}


def to_dict(config: Any) -> dict[str, Any]:
    """A settings dataclass as JSON can hold it."""
    plain = lambda value: str(value) if isinstance(value, Path) else value  # noqa: E731
    return {
        name: to_dict(value) if dataclasses.is_dataclass(value) else plain(value)
        for name, value in ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    }


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
            value = tuple(value)
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
