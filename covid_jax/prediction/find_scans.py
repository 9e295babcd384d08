"""Which scans a path holds, told by names and first bytes; no image is opened."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from covid_jax.data.layouts.folders import NIFTI, PICTURES, entries, full_path, stem_of
from covid_jax.errors import DataError

Kind = Literal["nifti", "dicom", "picture"]
_DICOM = ".dcm"


@dataclass(frozen=True)
class Source:
    """A scan found, not yet read.

    Attributes:
      path: of its file, or of the folder of its DICOM series.
      kind: of file.
      name: of its outputs: where it lies below the folder given, without the file's ending.
    """

    path: Path
    kind: Kind
    name: str

    def signature(self) -> dict[str, Any]:
        """What changes when the scan's files do: their number, sizes and times.

        Raises:
          OSError: if they cannot be looked at.
        """
        files = [path for path in self.path.iterdir() if path.is_file()] if self.folder else None
        states = [path.stat() for path in ([self.path] if files is None else files)]
        return {
            "scan": str(full_path(self.path)),
            "files": len(states),
            "bytes": sum(state.st_size for state in states),
            "modified_ns": max((state.st_mtime_ns for state in states), default=0),
        }

    @property
    def folder(self) -> bool:
        """Whether it is a folder's series."""
        return self.kind == "dicom" and self.path.is_dir()


@dataclass
class Found:
    """What paths hold.

    Attributes:
      scans: in order, 2 before 10.
      unreadable: folders that could not be looked into, with the reason.
      others: files that are no scans.
    """

    scans: list[Source] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    others: int = 0


def find_scans(paths: Sequence[Path], out: Path) -> Found:
    """Finds scans: files, folders of DICOM series, and both in all folders below.

    Args:
      paths: as the user gave them.
      out: the folder of the results, which are no scans.

    Raises:
      DataError: if there is no path, or one does not exist, is no scan or holds none, or if two
        scans would have the same results.
    """
    if not paths:
        raise DataError("no scan given: name files or folders")
    found, seen = Found(), {out.resolve()}
    for path in paths:
        before = len(found.scans) + len(found.unreadable)
        if path.is_dir():
            if path.resolve() == out.resolve():
                raise DataError(f"{path}: the scans' own folder; choose another one with --out")
            _search(path, Path(), found, seen)
            if before == len(found.scans) + len(found.unreadable):
                raise DataError(f"{path}: no scan here; expected NIfTI, DICOM or picture files")
        elif not path.is_file():
            raise DataError(f"{path}: no such file or folder")
        elif kind := _kind(path):
            found.scans.append(Source(path, kind, _stem(path, kind)))
        else:
            raise DataError(
                f"{path}: not a scan; expected a DICOM file, or one that ends in "
                f"{', '.join((*NIFTI, *PICTURES))}"
            )
    _require_unique(found.scans)
    return found


def _search(folder: Path, below: Path, found: Found, seen: set[Path]) -> None:
    """Adds a folder's scans; ``below``: its place below the folder given."""
    if folder.resolve() in seen:  # the results, or a link that leads back
        return
    seen.add(folder.resolve())
    try:
        items = entries(folder)
        kinds: dict[Path, Kind | None] = {i: _kind(i) for i in items if not i.is_dir()}
    except OSError as error:
        found.unreadable.append((folder, error.strerror or str(error)))
        return
    if "dicom" in kinds.values():
        name = below.as_posix() if below.parts else full_path(folder).name
        found.scans.append(Source(folder, "dicom", name))
    for item in items:
        if item not in kinds:
            _search(item, below / item.name, found, seen)
        elif (kind := kinds[item]) is None:
            found.others += 1
        elif kind != "dicom":
            found.scans.append(Source(item, kind, (below / _stem(item, kind)).as_posix()))


def _kind(path: Path) -> Kind | None:
    name = path.name.lower()
    if name.endswith(NIFTI):
        return "nifti"
    if name.endswith(PICTURES):
        return "picture"
    return "dicom" if name.endswith(_DICOM) or _has_mark(path) else None


def _has_mark(path: Path) -> bool:
    if path.name.upper() == "DICOMDIR" or not path.is_file():  # a CD's table of contents
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _stem(path: Path, kind: Kind) -> str:
    endings = {"nifti": NIFTI, "picture": PICTURES, "dicom": (_DICOM,)}[kind]
    return stem_of(path, endings) or path.name


def _require_unique(scans: Sequence[Source]) -> None:
    known: dict[str, Source] = {}
    for scan in scans:
        name = scan.name.lower()  # as file systems see it that do not tell capitals
        if name in known:
            raise DataError(
                f"{scan.path} and {known[name].path}: both results would be called {scan.name}; "
                "rename one, give the folder above both, or predict them into different folders"
            )
        known[name] = scan
