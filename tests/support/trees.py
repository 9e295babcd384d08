"""Datasets of empty files: a listing that opened one of them would fail."""

from pathlib import Path

import pytest

from covid_jax.data.layouts import list_scans
from covid_jax.data.scan import Listing, ScanFiles
from covid_jax.errors import DataError

SEMISEG = {  # its halves: images with binary masks, multi-class masks
    "train": (
        "TrainingSet/LungInfection-Train/Doctor-label",
        "TrainingSet/MultiClassInfection-Train",
    ),
    "test": ("TestingSet/LungInfection-Test", "TestingSet/MultiClassInfection-Test"),
}


def touch(root: Path, *names: str) -> Path:
    """The folder, with empty files of these names in it."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def refused(root: Path) -> str:
    """What the DataError says that listing the folder ends in."""
    with pytest.raises(DataError) as caught:
        list_scans(root)
    return str(caught.value)


def names(listing: Listing) -> list[str]:
    """Of its scans, in order."""
    return [scan.name for scan in listing.scans]


def files(root: Path, scan: ScanFiles) -> tuple[str, str]:
    """Image and mask, within the folder."""
    return str(scan.image.relative_to(root)), str(scan.mask.relative_to(root))
