"""Settings of the augmentation, in a module of their own that does not import jax."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from covid_jax.schema import Range, Settings

AugmentationName = Literal["none", "standard", "strong"]
Strength = Annotated[float, Range(0, 10)]
# Movements, then intensities.
_STANDARD: dict[str, Any] = dict(flip=True, rotation=20.0, scale=0.2, shift=0.05, elastic=0.02)
_STANDARD |= dict(brightness=0.2, contrast=0.2, gamma_correction=0.2, noise=0.1, blur=1.0)
_STRONG: dict[str, Any] = dict(orientation="any", rotation=25.0, scale=0.3, shift=0.1, elastic=0.02)
_STRONG |= dict(brightness=0.3, contrast=0.3, gamma_correction=0.3, noise=0.15, blur=1.5)
_STRONG |= dict(intensity_curve=0.5)


@dataclass(frozen=True)
class AugmentConfig(Settings):
    """Strengths of the random changes of training slices; 0 turns a change off."""

    augment: AugmentationName = "none"
    """Named set of changes that gives the defaults of the flags below."""
    orientation: Literal["none", "any"] = "none"
    """any: put each slice into one of eight orientations (four rotations, mirrored or not) at
    random."""
    flip: bool = False
    """Flip slices left-right and up-down, each with probability 1/2."""
    rotation: Annotated[float, Range(0, 180)] = 0.0
    """Maximum rotation (+/-), in degrees."""
    scale: Annotated[float, Range(0, 0.9)] = 0.0
    """Maximum relative scale change (+/-)."""
    shift: Annotated[float, Range(0, 1)] = 0.0
    """Maximum shift along each axis (+/-), as a fraction of the slice's side."""
    elastic: Annotated[float, Range(0, 0.2)] = 0.0
    """Maximum displacement (+/-) of a coarse grid's points, as a fraction of the slice's side."""
    brightness: Strength = 0.0
    """Maximum additive shift (+/-), in slice standard deviations."""
    contrast: Annotated[float, Range(0, 1)] = 0.0
    """Maximum relative change (+/-) of the distance to the slice's mean."""
    gamma_correction: Strength = 0.0
    """Maximum log exponent (+/-) of a power law within the slice's own range."""
    intensity_curve: Annotated[float, Range(0, 1)] = 0.0
    """Strength, 0 to 1, of a random increasing curve through the slice's own range."""
    noise: Strength = 0.0
    """Maximum standard deviation of Gaussian noise, in slice standard deviations."""
    blur: Strength = 0.0
    """Maximum standard deviation of a Gaussian blur, in pixels of a 512 x 512 slice."""

    @property
    def on(self) -> bool:
        """Whether anything is changed at all."""
        return dataclasses.replace(self, augment="none") != AugmentConfig()

    @classmethod
    def named(cls, name: AugmentationName) -> "AugmentConfig":
        """The set of changes that ``--augment`` names.

        ``standard`` is for one collection of slices with the same orientation, ``strong`` for a
        network that will be used on other collections.
        """
        return cls(name, **{"none": {}, "standard": _STANDARD, "strong": _STRONG}[name])
