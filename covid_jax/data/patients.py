"""patients.csv: the patient of each slice, so that no patient is on both sides of a split."""

import csv
import dataclasses
from collections.abc import Mapping, Set
from pathlib import Path

from covid_jax.data.layouts.folders import normal
from covid_jax.data.scan import Listing, Owners, ScanFiles, known_patient
from covid_jax.errors import DataError, shorten
from covid_jax.files import require_file
from covid_jax.io.formats import DICOM, PICTURES, VOLUMES, stem_of

_ENDINGS = (*VOLUMES, *PICTURES, *DICOM)


def read_patients(path: Path, names: Set[str]) -> tuple[Mapping[str, Owners], list[str]]:
    """Reads the columns volume, patient and, optionally, slice (0-based; empty: all of the volume).

    Args:
      path: of the file.
      names: of the scans. A row contains the full name (``rp_im/3``), or only its last part (``3``)
        if that is unique, with or without the file's suffix.

    Returns:
      For each scan, the patients of single slices by index, and that of all others by None; an
      empty cell is None. And the names of scans that are missing.

    Raises:
      DataError: on other columns, a cell missing, a slice that is not a number, a name that several
        scans have, a scan named twice, or if no row names a scan that is there.
    """
    require_file(path)
    owners: dict[str, dict[int | None, str | None]] = {name: {} for name in names}
    absent: dict[str, None] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns, rows = list(reader.fieldnames or ()), list(reader)
        if not {"volume", "patient"} <= set(columns) or len(set(columns)) < len(columns):
            raise ValueError(f"the columns {columns}")
        for row in rows:
            if None in row or None in row.values():
                raise ValueError(f"a row of another length ({row})")
            given, cell = row["volume"].strip(), row.get("slice", "").strip()
            name, index = _full_name(normal(given), names), int(cell) if cell else None
            if index is not None and index < 0:
                raise ValueError(f"slice {index}; the first is 0")
            if name is None:
                absent[given] = None
            elif index in owners[name]:
                raise ValueError(f"volume {given!r}, slice {index}, given twice")
            else:
                owners[name][index] = known_patient(row["patient"])
        if absent and not any(owners.values()):
            raise ValueError(f"volumes {shorten(absent)}, none of which is among the files")
    except (ValueError, csv.Error, OSError) as error:
        columns = "columns volume, patient and, optionally, slice (a number)"
        wanted = f"{columns}, with volumes named as their files"
        raise DataError(f"{path}: expected {wanted}; found {error!s:.300}") from error
    return owners, list(absent)


def _full_name(given: str, names: Set[str]) -> str | None:
    if given in names:
        return given
    if stem := stem_of(Path(given), _ENDINGS):
        return _full_name(given.removesuffix(Path(given).name) + stem, names)
    if len(alike := sorted(name for name in names if name.split("/")[-1] == given)) > 1:
        raise ValueError(f"volume {given!r}, which may be any of {', '.join(alike)}")
    return alike[0] if alike else None


def name_patients(listing: Listing, path: Path) -> Listing:
    """Adds the patients of patients.csv to the scans.

    Args:
      listing: of one folder.
      path: of the folder's patients.csv; without it, each volume counts as one patient.

    Raises:
      DataError: as ``read_patients`` does.
    """
    volumes = [scan for scan in listing.scans if scan.volume]
    if not (path.exists() or path.is_symlink()):  # a link to nothing is a mistake, not an absence
        guessed = any(scan.patient is None for scan in volumes)
        note = ("no patients.csv: each volume counts as one patient",) * guessed
        return dataclasses.replace(listing, notes=(*listing.notes, *note))
    owners, absent = read_patients(path, {scan.name for scan in listing.scans})
    silent = sum(not any(owners[scan.name].values()) for scan in volumes)
    notes = [f"patients.csv names no patient for {silent} of {len(volumes)} volumes"] * bool(silent)
    if absent:
        notes.append(f"patients.csv has rows for files that are not here: {shorten(absent)}")
    scans = (dataclasses.replace(scan, owners=owners[scan.name]) for scan in listing.scans)
    return Listing(listing.layout, tuple(scans), (*listing.notes, *notes))


def patients_of(scan: ScanFiles, slices: int) -> list[str | None]:
    """The patient of each slice; None where unknown.

    Rows of patients.csv override what the layout knows. A volume of several slices without either
    counts as one separate patient.

    Args:
      scan: as listed.
      slices: how many it has, lesion-free ones included.

    Raises:
      DataError: if patients.csv names a missing slice, or only some slices of a volume: the others
        would count as another patient, and leak.
    """
    named = {index: patient for index, patient in scan.owners.items() if patient}
    if late := sorted(index for index in scan.owners if index is not None and index >= slices):
        raise DataError(f"{scan.image}: has slices 0 to {slices - 1}; patients.csv names {late[0]}")
    missing = [str(index) for index in range(slices) if index not in named]
    if scan.volume and None not in named and 0 < len(missing) < slices:
        found = f"patients.csv names no patient for its slices {', '.join(missing[:5])}"
        raise DataError(f"{scan.image}: {found}; name all, or none (an empty slice means all)")
    everywhere = named.get(None) or scan.patient
    if everywhere is None and scan.volume and slices > 1:
        everywhere = scan.name
    return [named.get(index, everywhere) for index in range(slices)]
