"""An image file and its lesion mask, listed by a layout and not yet read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from covid_jax.transforms.labels import LESION as LESION

Owners = Mapping[int | None, str | None]  # patients by slice; None: of all other slices


@dataclass(frozen=True)
class ScanFiles:
    """A volume, a stack of single slices or a picture, and its mask.

    Attributes:
      name: unique in its folder; slices are called ``name:017``, a picture ``name``.
      source: the collection, such as ``Dataset-1``.
      image: a NIfTI file, a picture, a DICOM file or the folder of a DICOM series.
      mask: a NIfTI file or a picture; None for a healthy scan, which has no lesion anywhere.
      labels: meaning of the mask's values; 0 is background, and any other value is an error.
      patient: of all slices, unless patients.csv says otherwise; None if unknown.
      published: the subset a published split puts it in, if there is one.
      volume: whether its slices are neighbours in one patient.
      owners: the patients in patients.csv, which override ``patient``: of single slices by index,
        of all others under the key None. A value of None is an empty cell.
    """

    name: str
    source: str
    image: Path
    mask: Path | None
    labels: Mapping[int, str] = field(default_factory=lambda: {1: LESION})
    patient: str | None = None
    published: Literal["train", "test"] | None = None
    volume: bool = False
    owners: Owners = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """The scans of a dataset folder.

    Attributes:
      layout: description of the recognised layout, such as ``MosMedData``.
      scans: in a fixed order.
      notes: limitations of the data that every result should mention.
    """

    layout: str
    scans: tuple[ScanFiles, ...]
    notes: tuple[str, ...] = ()


Scans = Sequence[ScanFiles]


def known_patient(name: str | None) -> str | None:
    """The patient's name; None if it is empty or ``unknown``."""
    name = (name or "").strip()
    return None if name.lower() in ("", "unknown") else name
