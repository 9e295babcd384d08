"""patients.csv: whose a slice is, so that no patient stands on both sides of a split."""

import csv
from collections.abc import Set
from pathlib import Path

from covid_jax.errors import DataError


def read_patients(path: Path, volumes: Set[str]) -> dict[tuple[str, int | None], str | None]:
    """Reads the columns volume, patient and, optionally, slice (0-based; empty: all of the volume).

    Args:
      path: of the file; without one nobody is known.
      volumes: names that a row may speak of.

    Returns:
      The patient of each (volume, slice), slice None for the whole volume; None where the cell is
      empty.

    Raises:
      DataError: on other columns, a cell missing, a slice that is no number, a volume that is not
        there (its patients would go unseen, and leak), or one named twice.
    """
    if not path.exists():
        return {}
    patients: dict[tuple[str, int | None], str | None] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        for row in rows:
            if None in row or None in row.values():
                raise ValueError(f"a row of another length ({row})")
            key = row["volume"], int(row["slice"]) if row.get("slice") else None
            if key[0] not in volumes:
                raise ValueError(f"volume {key[0]!r}, which is not among the files")
            if key in patients:
                raise ValueError(f"volume {key[0]!r}, slice {key[1]}, given twice")
            patients[key] = row["patient"].strip() or None
    except (KeyError, ValueError, csv.Error, OSError) as error:
        raise DataError(
            f"{path}: expected columns volume, patient and, optionally, slice (a number), with "
            f"volumes named as their files; found {error}"
        ) from error
    return patients
