"""Which scans a path holds, told by names and first bytes; no image is opened."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from covid_jax.data.layouts.folders import entries, full_path
from covid_jax.errors import DataError
from covid_jax.io.formats import NIFTI, PICTURES, SUFFIXES, Format, format_of, require_file, stem_of


@dataclass(frozen=True)
class Source:
    """A scan found, not yet read.

    Attributes:
      path: of its file, or of the folder of its DICOM series.
      kind: of file.
      name: of its outputs: where it lies below the folder given, without the file's ending.
    """

    path: Path
    kind: Format
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
    found, seen = Found(), {_identity(out)} if out.exists() else set()
    for path in paths:
        before = len(found.scans) + len(found.unreadable)
        if path.is_dir():
            if path.resolve() == out.resolve():
                raise DataError(f"{path}: the scans' own folder; choose another one with --out")
            _search(path, found, seen)
            if before == len(found.scans) + len(found.unreadable):
                raise DataError(f"{path}: no scan here; expected NIfTI, DICOM or picture files")
        elif not path.exists():
            raise DataError(f"{path}: no such file or folder")
        elif kind := format_of(path):
            require_file(path)
            found.scans.append(Source(path, kind, _stem(path, kind)))
        else:
            raise DataError(
                f"{path}: not a scan; expected a DICOM file, or one that ends in "
                f"{', '.join((*NIFTI, *PICTURES))}"
            )
    _require_unique(found.scans)
    return found


def _search(root: Path, found: Found, seen: set[tuple[int, int]]) -> None:
    """Adds a folder's scans and those of all folders below, however deep."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if _identity(folder) in seen:  # the results, or a link that leads back
            continue
        seen.add(_identity(folder))
        below = folder.relative_to(root)
        try:
            items = entries(folder)
            folders = [item for item in items if item.is_dir()]
            kinds: dict[Path, Format | None] = {
                item: format_of(item) for item in items if item not in folders
            }
        except OSError as error:
            found.unreadable.append((folder, error.strerror or str(error)))
            continue
        if "dicom" in kinds.values():
            name = below.as_posix() if below.parts else full_path(folder).name
            found.scans.append(Source(folder, "dicom", name))
        for item, kind in kinds.items():
            if kind is None:
                found.others += 1
            elif kind != "dicom":
                found.scans.append(Source(item, kind, (below / _stem(item, kind)).as_posix()))
        waiting += reversed(folders)


def _identity(path: Path) -> tuple[int, int]:
    """The same for a folder and a link to it; to resolve deep paths would take minutes."""
    state = path.stat()
    return state.st_dev, state.st_ino


def _stem(path: Path, kind: Format) -> str:
    return stem_of(path, SUFFIXES[kind]) or path.name


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
