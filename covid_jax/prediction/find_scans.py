"""Finds the scans in a path by names and first bytes, and excludes results of earlier calls."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from covid_jax.data.layouts.folders import entries, full_path
from covid_jax.errors import CovidJaxError, DataError
from covid_jax.files import read_json, require_file
from covid_jax.io.formats import PICTURES, SUFFIXES, VOLUMES, Format, files_of, format_of, stem_of
from covid_jax.schema import parse

SUMMARY = "_summary.json"  # after a scan's name: written last, it lists the files of its results
REPORT = "_report.html"
Record = dict[str, Any]
_TYPES = {"name": str, "classes": dict[str, Record], "outputs": list[str], "warnings": list[str]}
_TYPES |= {"per_slice": list[Record], "lungs": list[Record]}  # of what is read from a summary


@dataclass(frozen=True)
class Source:
    """A scan found, not yet read.

    Attributes:
      path: of its file, or of the folder of its DICOM series.
      kind: of file.
      name: base name of its outputs: the path below the given folder, without suffix.
    """

    path: Path
    kind: Format
    name: str

    def signature(self) -> dict[str, Any]:
        """Names, sizes and modification times of the scan's files, to detect changes.

        Raises:
          OSError: if a file cannot be accessed.
        """
        states = [(path.name, path.stat()) for path in files_of(self.path)]
        # The time of the last change too: some copies keep the other one.
        facts = [(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in states]
        digest = hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()
        return {"scan": str(full_path(self.path)), "files_digest": digest}


@dataclass
class Found:
    """The content of the given paths.

    Attributes:
      scans: in natural order (2 before 10).
      unreadable: folders that could not be read, with the reason.
      others: files that are not scans.
    """

    scans: list[Source] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    others: int = 0


def find_scans(paths: Sequence[Path], out: Path, lungs: Path | None = None) -> Found:
    """Finds scans: files, folders of DICOM series, and both in all folders below.

    Results of earlier calls, which are listed in their summaries, are not treated as scans. A scan
    that is given twice counts once.

    Args:
      paths: as the user gave them.
      out: the folder of the results, which is not searched.
      lungs: the folder of the lung masks, not searched either.

    Raises:
      DataError: if no path is given; if a path does not exist, is not a scan, is a result, or
        contains no scan; or if two scans would have the same results.
    """
    if not paths:
        raise DataError("no scan given: name files or folders")
    found = Found()
    seen = {_identity(folder) for folder in (out, lungs) if folder and folder.is_dir()}
    for path in paths:
        before = len(found.scans) + len(found.unreadable)
        if not path.is_dir():
            found.scans.append(_single(path))
        elif path.resolve() == out.resolve():
            raise DataError(f"{path}: the scans' own folder; choose another one with --out")
        elif _identity(path) in seen and found.scans:  # in a folder that was given before it
            continue
        else:
            _search(path, found, seen)
        if before == len(found.scans) + len(found.unreadable):
            raise DataError(f"{path}: no scan here; expected volumes, DICOM or pictures")
    found.scans = _unique(found.scans)
    return found


def _single(path: Path) -> Source:
    """The scan of a file that was given directly."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if full_path(path) in set().union(*map(_results, path.absolute().parents[:2])):
        raise DataError(f"{path}: a result of an earlier prediction, not a scan")
    if kind := format_of(path):
        require_file(path)
        return Source(path, kind, _stem(path, kind))
    endings = ", ".join((*VOLUMES, *PICTURES))
    raise DataError(f"{path}: not a scan; expected DICOM, or a file ending in {endings}")


def _search(root: Path, found: Found, seen: set[tuple[int, int]]) -> None:
    """Adds the scans of a folder and of all below, however deep they are nested."""
    waiting = [root]
    results: set[Path] = set()
    series: set[Path] = set()
    while waiting:
        path = waiting.pop()
        try:
            if not path.is_dir():
                kind = None if full_path(path) in results else format_of(path)
            elif _identity(path) in seen:  # the folder of the results, or a link that leads back
                continue
            else:
                seen.add(_identity(path))
                waiting += reversed(entries(path))
                results |= _results(path)
                continue
        except OSError as error:
            found.unreadable.append((path, error.strerror or str(error)))
            continue
        if kind is None:
            found.others += 1
        elif kind != "dicom":
            name = (path.relative_to(root).parent / _stem(path, kind)).as_posix()
            found.scans.append(Source(path, kind, name))
        elif path.parent not in series:  # files of a series are one scan, their folder
            series.add(path.parent)
            below = path.parent.relative_to(root)
            name = below.as_posix() if below.parts else full_path(root).name
            found.scans.append(Source(path.parent, "dicom", name))


def _identity(path: Path) -> tuple[int, int]:
    """Equal for a folder and a link to it; resolving deep paths instead would take minutes."""
    state = path.stat()
    return state.st_dev, state.st_ino


def _results(folder: Path) -> set[Path]:
    """The files that the summaries in a folder list."""
    records = (read_summary(path) for path in folder.glob(f"*{SUMMARY}"))
    return {full_path(folder) / name for one in records if one for name in one["outputs"]}


def read_summary(path: Path) -> dict[str, Any] | None:
    """The summary of a scan; None where there is none, or it is damaged.

    Its ``outputs`` must be files in its folder or below; a summary with any other path counts as
    damaged.
    """
    try:
        record = read_json(path)
        parts = {name: parse(kind, record.get(name, kind())) for name, kind in _TYPES.items()}
    except CovidJaxError:
        return None
    inside = path.parent.resolve()
    whole = parts["name"] and "outputs" in record
    return record if whole and all(_is_below(inside, n) for n in parts["outputs"]) else None


def _is_below(folder: Path, name: str) -> bool:
    """Whether a name stays in the folder, links followed."""
    parts = PurePosixPath(name).parts
    plain = bool(parts) and ".." not in parts and not PurePosixPath(name).is_absolute()
    return plain and (folder / name).parent.resolve().is_relative_to(folder)


def _stem(path: Path, kind: Format) -> str:
    return stem_of(path, SUFFIXES[kind]) or path.name


def _unique(scans: Sequence[Source]) -> list[Source]:
    known: dict[str, Source] = {}
    for scan in scans:
        other = known.setdefault(scan.name.lower(), scan)  # as some file systems see names
        if full_path(other.path) != full_path(scan.path):
            advice = f"both results would be called {scan.name}; rename one, or give their folder"
            raise DataError(f"{scan.path} and {other.path}: {advice}")
    return list(known.values())
