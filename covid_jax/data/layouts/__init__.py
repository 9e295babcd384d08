"""The scans of dataset folders of any layout, by file names; no image or mask is opened."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from covid_jax.data.layouts import medseg, mosmed, nnunet, pairs, semiseg, zenodo
from covid_jax.data.layouts.folders import entries, full_path
from covid_jax.data.patients import name_patients
from covid_jax.data.scan import Listing
from covid_jax.errors import DataError
from covid_jax.files import reading

_PUBLISHED = (medseg, semiseg, zenodo, mosmed, nnunet)  # pairs only where none of them is found
_RELATED = (  # collections that are known to share patients
    ("Dataset-1", "COVID-SemiSeg", "show the same slices: joined, each counts twice"),
    ("Dataset-2", "Radiopaedia", "draw on the same Radiopaedia cases, under different names"),
)


def list_scans(root: Path, classes: tuple[str, ...] = ()) -> Listing:
    """Lists the scans of a dataset folder of any layout, with their patients.

    Args:
      root: the folder.
      classes: lesion classes to distinguish; where a collection has both multi-class and binary
        masks, this chooses the multi-class ones.

    Raises:
      DataError: on a missing folder, an unknown layout (saying what was looked for), several at
        once, an image without a mask or a mask without an image, two files of one name, or a
        folder that cannot be listed.
    """
    with reading(root):
        if not root.is_dir():
            raise DataError(f"{root}: no such folder")
        layouts = [layout for layout in _PUBLISHED if layout.recognises(root)]
        if len(layouts) > 1:
            names = " and ".join(layout.NAME for layout in layouts)
            raise DataError(f"{root}: holds {names}; give each a folder of its own and name both")
        if not layouts and not pairs.recognises(root):
            raise DataError(_unknown(root))
        listing = (*layouts, pairs)[0].list_scans(root, classes)
        return name_patients(listing, root / "patients.csv")


def _unknown(root: Path) -> str:
    layouts = (*_PUBLISHED, pairs)
    width = max(len(layout.NAME) for layout in layouts)
    looked_for = "".join(f"\n  {layout.NAME:{width}}  {layout.LOOKED_FOR}" for layout in layouts)
    names = [path.name for path in entries(root)]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if names[6:] else "")
    found = shown or "an empty folder"
    return f"{root}: no dataset of a known layout here. Looked for:{looked_for}\nFound: {found}"


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
