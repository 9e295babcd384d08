"""Files in a dataset's folders by name: images and masks are paired here, never opened."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from covid_jax.errors import DataError
from covid_jax.io.formats import is_dicom, stem_of

Pairs = Iterator[tuple[str, Path, Path]]  # name, image, mask


def entries(folder: Path) -> list[Path]:
    """The entries of a folder in natural order (2 before 10), without hidden ones.

    Raises:
      DataError: if there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    shown = (path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))
    return sorted(shown, key=_by_number)


def full_path(folder: Path) -> Path:
    """The absolute path; links are resolved only if it has ``..``, so that its name is kept."""
    return folder.resolve() if ".." in folder.parts else folder.absolute()


def _by_number(path: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", path.name.lower())  # text and numbers by turns
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def find_files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files with these suffixes by their stems, in natural order (2 before 10).

    Raises:
      DataError: if two have the same stem, or a folder that ends in such a suffix contains no DICOM
        files.
    """
    named = [(stem, path) for path in entries(folder) if (stem := stem_of(path, suffixes))]
    for path in (path for _, path in named if path.is_dir()):
        if not any(map(is_dicom, path.iterdir())):
            raise DataError(f"{path}: expected a file, found a folder; move its file out")
    return unique((normal(stem), path) for stem, path in named if not path.is_dir())


def normal(name: str) -> str:
    """A name in Unicode's composed form (NFC); macOS stores accents decomposed."""
    return unicodedata.normalize("NFC", name)


def require_files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """As ``find_files``; a DataError where there are none."""
    if files := find_files(folder, suffixes):
        return files
    raise DataError(f"{folder}: no files here that end in {', '.join(suffixes)}")


def unique(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Paths by name.

    Raises:
      DataError: if two share a name, naming both.
    """
    paths: dict[str, Path] = {}
    for name, path in named:
        if name in paths:
            raise DataError(f"{path} and {paths[name]}: two files of the name {name}; remove one")
        paths[name] = path
    return paths


def subfolder(root: Path, names: Sequence[str]) -> Path | None:
    """The folder in ``root`` with one of these names, in any case; None where there is none.

    Raises:
      DataError: if there are several.
    """
    folders = [path for path in entries(root) if path.name.lower() in names and path.is_dir()]
    if len(folders) > 1:
        shown = " and ".join(path.name for path in folders)
        raise DataError(f"{root}: both {shown} are here; remove or rename one")
    return folders[0] if folders else None


def pair(images: Mapping[str, Path], masks: Mapping[str, Path], folder: Path) -> Pairs:
    """Names, images and masks that belong together.

    Args:
      images: by name.
      masks: by the same names.
      folder: of the masks.

    Raises:
      DataError: on an image without a mask or a mask without an image, as after an incomplete
        download.
    """
    for name, mask in masks.items():
        if name not in images:
            raise DataError(f"{mask}: the mask of no image; find its image, or remove it")
    for name, image in images.items():
        if name not in masks:
            raise DataError(f"{image}: has no mask; expected the mask of {name} in {folder}")
        yield name, image, masks[name]
