"""Several dataset folders as one."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from covid_jax.data.layouts.folders import full_path
from covid_jax.data.scan import Listing, ScanFiles
from covid_jax.errors import DataError

_KIN = (  # collections that are known to share patients
    ("Dataset-1", "COVID-SemiSeg", "show the same slices: joined, each counts twice"),
    ("Dataset-2", "Radiopaedia", "draw on the same Radiopaedia cases, under different names"),
)


def join(listings: Sequence[tuple[Path, Listing]]) -> Listing:
    """Joins folders' listings; one alone stays as it is.

    Scans, and patients known by their scan alone, are called after their folder too. What
    patients.csv names stays, so that one name is one patient in all folders.

    Args:
      listings: with the folder of each.

    Raises:
      DataError: if a folder is given twice.
    """
    if len(listings) == 1:
        return listings[0][1]
    folders = _short_names([full_path(root.expanduser()) for root, _ in listings])
    parts = [_within(folder, part) for folder, (_, part) in zip(folders, listings, strict=True)]
    scans = tuple(scan for part in parts for scan in part.scans)
    sources = {scan.source for scan in scans}
    kin = [f"{one} and {other} {how}" for one, other, how in _KIN if {one, other} <= sources]
    return Listing(
        layout="; ".join(part.layout for part in parts),
        scans=scans,
        notes=(*(note for part in parts for note in part.notes), *kin),
    )


def _short_names(roots: Sequence[Path]) -> list[str]:
    """The folders' names, with as much of the paths before them as tells all apart."""
    places = [root.resolve() for root in roots]
    if twice := [root for i, root in enumerate(roots) if places[i] in places[:i]]:
        raise DataError(f"{twice[0]}: given twice; name each folder once")
    depth = 1
    while len({root.parts[-depth:] for root in roots}) < len(roots):
        depth += 1
    return ["/".join(root.parts[-depth:]) for root in roots]


def _within(folder: str, listing: Listing) -> Listing:
    return Listing(
        layout=f"{folder}: {listing.layout}",
        scans=tuple(_renamed(scan, folder) for scan in listing.scans),
        notes=tuple(f"{folder}: {note}" for note in listing.notes),
    )


def _renamed(scan: ScanFiles, folder: str) -> ScanFiles:
    patient = scan.patient and f"{folder}/{scan.patient}"
    return dataclasses.replace(scan, name=f"{folder}/{scan.name}", patient=patient)
