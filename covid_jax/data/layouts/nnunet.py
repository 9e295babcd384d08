"""nnU-Net's raw datasets, of its first and second version, with one image channel."""

import re
from pathlib import Path
from typing import Any, Literal

from covid_jax.data.layouts.folders import find_files, full_path, pair, require_files
from covid_jax.data.scan import Listing, ScanFiles
from covid_jax.errors import DataError
from covid_jax.files import read_json
from covid_jax.io.formats import LOSSLESS, NIFTI, VOLUMES

NAME = "nnU-Net"
LOOKED_FOR = "imagesTr/*_0000.nii.gz, labelsTr/*.nii.gz and dataset.json"
# As other collections here call them, so that they can be joined.
_SAME = dict.fromkeys(["ggo", "ground_glass_opacity", "ground_glass_opacities"], "ground_glass")
_SAME |= {"consolidations": "consolidation", "pleural_effusion": "effusion"}
Subset = Literal["train", "test"] | None
_NUMBER = re.compile(r"[0-9]{1,4}")


def recognises(root: Path) -> bool:
    """Whether training images and labels are there."""
    return (root / "imagesTr").is_dir() and (root / "labelsTr").is_dir()


def list_scans(root: Path, classes: tuple[str, ...]) -> Listing:
    """The training part and, if it has labels, the test part as a published test part."""
    about = root / "dataset.json"
    record = read_json(about)
    ending = record.get("file_ending", NIFTI[0])
    if ending not in (*VOLUMES, *LOSSLESS):
        raise DataError(f"{about}: {ending!r} cannot be read; convert files to .nii.gz or .png")
    labels = _labels(about, record.get("labels"))
    source = str(record.get("name") or full_path(root).name)
    notes = []
    if len(names := sorted(set(labels.values()))) > 1 and not classes:
        notes.append(f"labels {', '.join(names)} are merged to one; --classes chooses among them")
    published = bool(_files(root / "labelsTs", ending))
    if not published and (unlabelled := _files(root / "imagesTs", ending)):
        notes.append(f"{len(unlabelled)} images of imagesTs have no labels and were left out")
    scans: list[ScanFiles] = []
    volumes = ending in VOLUMES
    parts: dict[str, Subset] = {"Tr": "train", "Ts": "test"} if published else {"Tr": None}
    for part, subset in parts.items():
        images = _first_channels(require_files(root / f"images{part}", [ending]))
        folder = root / f"labels{part}"
        scans += [
            ScanFiles(f"images{part}/{name}", source, image, mask, labels, None, subset, volumes)
            for name, image, mask in pair(images, find_files(folder, [ending]), folder)
        ]
    test = sum(scan.published == "test" for scan in scans)
    counts = f"{len(scans)} scans"
    if published:
        counts = f"{len(scans) - test} training and {test} test scans, published split"
    return Listing(f"{NAME} dataset {source} ({counts})", tuple(scans), tuple(notes))


def _files(folder: Path, ending: str) -> dict[str, Path]:
    return find_files(folder, [ending]) if folder.is_dir() else {}


def _first_channels(files: dict[str, Path]) -> dict[str, Path]:
    images = {}
    for stem, path in files.items():
        if not (match := re.fullmatch(r"(.+)_(\d{4})", stem)):
            raise DataError(f"{path}: expected the channel's number in its name, {stem}_0000")
        if int(match[2]):
            raise DataError(f"{path}: a second channel; the network takes one: keep _0000 alone")
        images[match[1]] = path
    return images


def _labels(path: Path, given: Any) -> dict[int, str]:
    """Version 1 writes {"1": "name"}, version 2 {"name": 1}."""
    if not isinstance(given, dict):
        raise DataError(f'{path}: expected labels, such as {{"background": 0, "lesion": 1}}')
    labels: dict[int, str] = {}
    for key, value in given.items():
        name, number = (value, key) if _NUMBER.fullmatch(key) else (key, value)
        if isinstance(number, list):
            raise DataError(f"{path}: {name} is a region, {number}; give each number one name")
        if not (isinstance(name, str) and _NUMBER.fullmatch(str(number))):
            raise DataError(f"{path}: label {key}: {value!r}; expected a name and its number")
        if name.lower() == "ignore":
            raise DataError(f"{path}: a label of pixels to be ignored cannot be taken into account")
        if name.lower() == "background" and int(number):
            raise DataError(f"{path}: the background has the number {number}; expected 0")
        if int(number) in labels:
            raise DataError(f"{path}: two labels of the number {number}")
        plain = re.sub(r"[\W_]+", "_", name.lower()).strip("_")  # as --classes takes it
        labels[int(number)] = _SAME.get(plain, plain)
    labels.pop(0, None)
    if not labels or "" in labels.values():
        raise DataError(f"{path}: expected a name for each label besides 0, the background")
    return labels
