"""Scores masks or probabilities of any program, and writes the files that ``evaluate`` writes."""

import os
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float32, Num
from PIL import Image

from covid_jax.data import SliceDataset
from covid_jax.data.decode import require_labels
from covid_jax.data.layouts.folders import full_path, require_files
from covid_jax.data.patients import name_patients
from covid_jax.data.scan import Listing, ScanFiles
from covid_jax.errors import ConfigError, DataError, plural, shorten
from covid_jax.evaluation.evaluate import Evaluation, notes, write_evaluation
from covid_jax.evaluation.slice_scores import HALF, SliceScores, score_own_grid
from covid_jax.io.formats import LOSSLESS, VOLUMES, stem_of
from covid_jax.io.image_files import read_labels
from covid_jax.io.read_scan import near_whole, read_map, read_scan
from covid_jax.runs.config import DataConfig, ScoreConfig, to_dict
from covid_jax.splits.split import Split
from covid_jax.transforms.labels import LESION

Stack = Num[np.ndarray, "n h w"]  # labels or probabilities of a scan
_ENDINGS = (*VOLUMES, *LOSSLESS)
_ROUNDING = 1e-5  # of a probability outside [0, 1]
_HARD = (
    "masks were scored, not probabilities: calibration, and means over thresholds such as "
    "COVID-SemiSeg's, know only 0 and 1"
)


def list_truths(folder: Path, classes: Sequence[str] = ()) -> Listing:
    """The masks of a folder as cases of a dataset; its patients.csv names patients.

    The masks also take the place of the images, which are not available.

    Args:
      folder: of NIfTI files or pictures.
      classes: names of labels 1, 2, ...; without them 1 (in pictures 255, too) is lesion.

    Raises:
      DataError: if there are none, or two share a name.
    """
    source = full_path(folder).name
    scans = []
    for name, path in require_files(folder, _ENDINGS).items():
        labels = dict(enumerate(classes, start=1)) or _lesion_labels(path)
        volume = stem_of(path, VOLUMES) is not None
        scans.append(ScanFiles(name, source, path, path, labels, volume=volume))
    listing = Listing(f"masks in {folder} ({plural(len(scans), 'case')})", tuple(scans))
    return name_patients(listing, folder / "patients.csv")


def score_masks(
    predictions: Path,
    listing: Listing,
    dataset: SliceDataset,
    data: DataConfig,
    out: Path,
    config: ScoreConfig | None = None,
    split: Split | None = None,
    command: Sequence[str] = (),
) -> Evaluation:
    """Scores a folder of predictions; writes the files of ``evaluate`` that need no network.

    A file's numbers are labels as the truth has them (where classes are merged, 1, and in pictures
    255, is lesion too), or floats in [0, 1], probabilities of lesion.

    Args:
      predictions: NIfTI files or pictures, in folders as the cases' names say or all in one.
      listing: the scans of the dataset.
      dataset: the opened dataset of these scans.
      data: the settings it was opened with.
      out: folder of the files.
      config: which subset of the split, and how it is scored.
      split: of a run; without one, every slice is scored.
      command: the command line, recorded in the report.

    Raises:
      DataError: if a case has no prediction, or a prediction has another grid than its scan,
        unknown labels, or values that are neither labels nor probabilities.
      ConfigError: if probabilities or a threshold are given for several classes.
      RunError: if the dataset lacks a slice of the subset, or the files cannot be written.
    """
    config = config or ScoreConfig()
    if len(dataset.targets) > 1 and config.threshold != HALF:
        raise ConfigError("--threshold: several classes are scored by their labels")
    subset = config.subset if split else "all"
    part = dataset.select(split.indices(dataset, subset)) if split else dataset
    scores, remarks = _score(predictions, listing, part, data, config)
    return write_evaluation(
        out,
        dataset,
        scores,
        split or "every slice of the data",
        command,
        run=str(predictions),
        subset=subset,
        threshold=config.threshold,
        tolerance=config.tolerance,
        notes=notes(part, None) + remarks,
        training={"config": {"data": to_dict(data)}},
    )


def _score(
    folder: Path, listing: Listing, part: SliceDataset, data: DataConfig, config: ScoreConfig
) -> tuple[list[SliceScores], list[str]]:
    """The scores of each slice, in order, and what must be known of the predictions."""
    scans = {scan.name: scan for scan in listing.scans}
    cases: dict[str, list[tuple[int, int]]] = {}  # of each scan: positions in part, and in the scan
    for position, item in enumerate(part.slices):
        name, _, index = (item.id, "", "0") if item.id in scans else item.id.rpartition(":")
        cases.setdefault(name, []).append((position, int(index)))
    files = _find(folder, cases, ("", "_mask") if config.suffix is None else (config.suffix,))
    scores: dict[int, SliceScores] = {}
    soft_files, resized = 0, 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, places in cases.items():
            path, scan = files[name], scans[name]
            stack, geometry = read_scan(scan.image, data.series)
            values = _resized(path, stack.shape) if config.resize else None
            resized += values is not None
            if values is None:
                values, _ = read_map(path, scan.image, stack.shape, geometry)
            values, soft = _meaning(values, path, scan, part, config.probabilities)
            soft_files += soft

            def score(place: tuple[int, int], values=values, soft=soft) -> SliceScores:
                item, found = part.slices[place[0]], values[place[1]]
                maps = _probabilities(found, soft, len(part.targets))
                exact = found if soft and found.dtype.kind == "u" else None
                settings = config.threshold, config.tolerance
                return score_own_grid(part, item, maps, *settings, greys=exact)

            scores |= zip(dict(places), pool.map(score, places), strict=True)
    remarks = [f"{resized} maps were not of their truth's size and were resized"] * bool(resized)
    return [scores[i] for i in range(len(part))], remarks + [_HARD] * (not soft_files)


def _lesion_labels(path: Path) -> dict[int, str]:
    return {1: LESION} | ({} if stem_of(path, VOLUMES) else {255: LESION})


def _resized(path: Path, shape: tuple[int, ...]) -> Num[np.ndarray, "1 h w"] | None:
    """A picture of another size than its scan, resized to it; None for all others."""
    if stem_of(path, VOLUMES) or (values := read_labels(path)).shape == shape[1:]:
        return None
    if values.shape == shape[:0:-1]:
        rows, columns = values.shape
        sizes = f"{rows} rows and {columns} columns where the truth has {shape[1]} and {shape[2]}"
        raise DataError(f"{path}: {sizes}; rows and columns are exchanged: transpose it")
    picture = Image.fromarray(values.astype(np.float32))
    wider = np.asarray(picture.resize((shape[2], shape[1]), Image.Resampling.BICUBIC))[None]
    if values.dtype.kind == "f":
        return wider.clip(0, 1)
    return wider.round().clip(0, np.iinfo(values.dtype).max).astype(values.dtype)


def _find(folder: Path, cases: Collection[str], suffixes: Sequence[str]) -> dict[str, Path]:
    """The prediction of each case: by its whole name, or by the last part where that is unique."""
    short = [PurePosixPath(case).name for case in cases]
    files = {}
    for case, last in zip(cases, short, strict=True):
        names = dict.fromkeys([case, *[last] * (short.count(last) == 1)])
        endings = [f"{suffix}{ending}" for suffix in suffixes for ending in _ENDINGS]
        paths = [folder / f"{name}{ending}" for name in names for ending in endings]
        found = [path for path in paths if path.is_file()]
        if len(found) > 1:
            shown = ", ".join(path.name for path in found)
            raise DataError(f"{folder}: {shown} are all of {case}; choose with --suffix")
        if found:
            files[case] = found[0]
    if missing := [case for case in cases if case not in files]:
        expected = ", ".join(f"NAME{suffix}.nii.gz" for suffix in suffixes)
        lacks = f"no prediction for {len(missing)} of {len(cases)} cases ({shorten(missing)})"
        raise DataError(f"{folder}: {lacks}; expected {expected} or a picture for every case")
    return files


def _meaning(
    values: Stack, path: Path, scan: ScanFiles, dataset: SliceDataset, greys: bool
) -> tuple[Stack, bool]:
    """The values of a file as probabilities or as class ids, and which of the two they are."""
    whole = near_whole(values)
    low, high = float(values.min()), float(values.max())
    several = len(dataset.targets) > 1
    fractions = np.rint(whole) != whole if several else np.rint(values) != values
    grey = greys and values.dtype in (np.uint8, np.uint16)
    soft = grey or bool(fractions.any())
    if soft and several:
        raise ConfigError(f"{path}: probabilities; several classes are scored by their labels")
    if soft and not (grey or (low >= -_ROUNDING and high <= 1 + _ROUNDING)):
        found = f"{values.dtype} from {low:g} to {high:g}"
        raise DataError(f"{path}: {found}; expected labels, or probabilities in [0, 1]")
    if soft:
        return values, True
    labels = scan.labels if dataset.targets else {**scan.labels, **_lesion_labels(path)}
    require_labels(whole, path, labels, "; grey probabilities need --probabilities")
    ids = np.zeros(whole.shape, np.uint8)
    for value, name in labels.items():
        if not dataset.targets or name in dataset.targets:
            ids[whole == value] = 1 + dataset.targets.index(name) if dataset.targets else 1
    return ids, False


def _probabilities(values: Any, soft: bool, classes: int) -> Float32[np.ndarray, "h w c"]:
    """Probabilities of the lesion, or one-hot maps of several classes with the background first."""
    if classes > 1:
        return np.eye(classes + 1, dtype=np.float32)[values]
    largest = np.iinfo(values.dtype).max if soft and values.dtype.kind == "u" else 1
    return np.clip(values / np.float64(largest), 0, 1).astype(np.float32)[..., None]
