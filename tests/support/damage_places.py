"""Damage to a place in a dataset's folder: an image, a mask, a table, the folder itself.

Kinds are told as in ``damage_formats``.
"""

import os
import pickle
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from tests.support.damage import ANY_FILE
from tests.support.damage_formats import (
    DATASET_JSON,
    DICOM,
    NIFTI,
    NIFTI_MASK,
    PATIENTS,
    PICTURE,
    PICTURE_MASK,
    Harm,
    Kind,
    Outcome,
    kinds,
)

NO_UTF_8 = os.fsdecode(b"\xff")


def _named(outcome: Outcome, *harms: Harm) -> dict[str, Kind]:
    return kinds(outcome, **{harm.__name__: harm for harm in harms})


# Any file


def _bytes(name: str, rng: np.random.Generator, path: Path) -> None:
    path.write_bytes(ANY_FILE[name](rng, path.read_bytes()))


def gone(rng: np.random.Generator, path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def a_link_to_itself(rng: np.random.Generator, path: Path) -> None:
    gone(rng, path)
    path.symlink_to(path.name)


def a_link_to_nothing(rng: np.random.Generator, path: Path) -> None:
    gone(rng, path)
    path.symlink_to("nowhere")


def a_folder(rng: np.random.Generator, path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(rng: np.random.Generator, path: Path) -> None:
    """To open it would wait for ever."""
    path.unlink()
    os.mkfifo(path)


def unreadable(rng: np.random.Generator, path: Path) -> None:
    """A file whose reading fails, even for root: this process' memory has no address 0."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


class _Trap:
    """What unpickles it makes a folder in the folder it runs in."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("sprung",)


def a_pickle(rng: np.random.Generator, path: Path) -> None:
    path.write_bytes(pickle.dumps(_Trap()))


def an_array_of_pickles(rng: np.random.Generator, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([_Trap()]), allow_pickle=True)


_PLACE = _named(
    "refused",
    *(gone, a_link_to_itself, a_link_to_nothing, a_folder, a_pipe, unreadable),
    *(a_pickle, an_array_of_pickles),
)
_NO_IMAGE = ("a web page", "noise", "nothing")
_BYTES = {name: Kind(partial(_bytes, name), "any") for name in ANY_FILE}
_BYTES |= {name: Kind(partial(_bytes, name), "refused") for name in _NO_IMAGE}


def a_file_of_the_same_name(rng: np.random.Generator, path: Path) -> None:
    """Another ending, in capitals."""
    stem, dot, ending = path.name.partition(".")
    shutil.copy(path, path.with_name(stem + dot + ending.upper()))


def a_name_that_is_no_text(rng: np.random.Generator, path: Path) -> None:
    path.rename(path.with_name(NO_UTF_8 + path.name))


_FILE = _PLACE | _BYTES | _named("refused", a_file_of_the_same_name, a_name_that_is_no_text)

# Folders


def emptied(rng: np.random.Generator, path: Path) -> None:
    gone(rng, path)
    path.mkdir()


def a_file(rng: np.random.Generator, path: Path) -> None:
    gone(rng, path)
    path.touch()


def what_a_system_hides(rng: np.random.Generator, path: Path) -> None:
    for name in (".DS_Store", "._1.nii.gz", "._1.png"):
        (path / name).touch()
    (path / "__MACOSX").mkdir()


_FOLDER = {
    **_named("refused", gone, emptied, a_file, a_link_to_itself, a_link_to_nothing),
    **_named("same", what_a_system_hides),
}
KINDS: Mapping[str, Mapping[str, Kind]] = {
    "nifti": _FILE | NIFTI,
    "nifti mask": _FILE | NIFTI | NIFTI_MASK,
    "picture": _FILE | PICTURE,
    "picture mask": _FILE | PICTURE | PICTURE_MASK,
    "dicom slice": _FILE | DICOM | _named("same", a_name_that_is_no_text),
    "patients.csv": _PLACE | _BYTES | PATIENTS | _named("any", gone),
    "dataset.json": _PLACE | _BYTES | DATASET_JSON,
    "folder": _FOLDER,
}
