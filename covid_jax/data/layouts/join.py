"""Several dataset folders as one."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from covid_jax.data.layouts.folders import full_path
from covid_jax.data.scan import Listing
from covid_jax.errors import DataError

_RELATED = (  # collections that are known to share patients
    ("Dataset-1", "COVID-SemiSeg", "show the same slices: joined, each counts twice"),
    ("Dataset-2", "Radiopaedia", "draw on the same Radiopaedia cases, under different names"),
)


def join(listings: Sequence[tuple[Path, Listing]]) -> Listing:
    """Joins the listings of several folders; a single one is returned unchanged.

    The folder's name is put before the names of scans and of patients that the layout knows. Names
    from patients.csv stay, so that one name is one patient in all folders.

    Args:
      listings: with the folder of each.

    Raises:
      DataError: if a folder is given twice.
    """
    if len(listings) == 1:
        return listings[0][1]
    folders = _short_names([full_path(root.expanduser()) for root, _ in listings])
    layouts, scans, notes = [], [], []
    for folder, (_, listing) in zip(folders, listings, strict=True):
        layouts.append(f"{folder}: {listing.layout}")
        notes += [f"{folder}: {note}" for note in listing.notes]
        for scan in listing.scans:
            patient = scan.patient and f"{folder}/{scan.patient}"
            name = f"{folder}/{scan.name}"
            scans.append(dataclasses.replace(scan, name=name, patient=patient))
    sources = {scan.source for scan in scans}
    notes += [f"{a} and {b} {how}" for a, b, how in _RELATED if {a, b} <= sources]
    return Listing("; ".join(layouts), tuple(scans), tuple(notes))


def _short_names(roots: Sequence[Path]) -> list[str]:
    """The folders' names, preceded by as much of their paths as makes them unique."""
    resolved = [root.resolve() for root in roots]
    if twice := [root for i, root in enumerate(roots) if resolved[i] in resolved[:i]]:
        raise DataError(f"{twice[0]}: given twice; name each folder once")
    depth = 1
    while len({root.parts[-depth:] for root in roots}) < len(roots):
        depth += 1
    return ["/".join(root.parts[-depth:]) for root in roots]
