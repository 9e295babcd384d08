"""Measurements of a mask: the JSON summary of a scan, and tables of all scans in a folder."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from covid_jax.data.statistics import scale_of
from covid_jax.files import write_csv
from covid_jax.prediction.find_scans import REPORT, SUMMARY, read_summary
from covid_jax.prediction.pipeline import LoadedScan
from covid_jax.reporting.scan_report import write_index
from covid_jax.transforms.labels import class_names

_TABLE = (
    *("name", "scan", "slices", "slices_with_lesion", "lesion_voxels", "lesion_ml", "lesions"),
    *("lesion_hu_mean", "lesion_hu_sd", "share_of_lung", "probability", "probability_in_lesion"),
    *("entropy", "entropy_in_lesion", "agreement", "disagreement", "disagreement_in_lesion"),
    *("scale", "warnings", "notice"),
)
_SLAB = 16  # slices
_MAPS = ("probability", "entropy", "agreement", "disagreement")  # what is known of pixels
Masks = UInt8[np.ndarray, "n h w"]  # class ids
Sums = tuple[float, float]  # over a slice, and over the lesion in it
_TOUCHING = np.ones((3, 3, 3), bool)  # voxels that share a corner are of one lesion


def summarize(
    scan: LoadedScan, masks: Masks, sums: dict[str, list[Sums]], classes: tuple[str, ...]
) -> dict[str, Any]:
    """The numbers of a scan, as JSON can hold them; None is what is unknown or undefined.

    Args:
      scan: the scan.
      masks: class ids.
      sums: sums over pixels by name, for each slice: ``probability``, ``entropy`` (bits) and, if
        available, ``agreement`` of the flips and ``disagreement`` of an ensemble's members.
      classes: names of class ids 1, 2, ...
    """
    names = class_names(classes)
    counts = np.stack([np.bincount(ids.flat, minlength=len(classes) + 1)[1:] for ids in masks])
    pixels = np.c_[counts.sum(1), counts] if len(classes) > 1 else counts  # the lesion, classes
    lesion, *others = pixels.sum(0).tolist()
    lungs = _lungs(scan, masks)
    in_lung, lung = (sum(part[name] for part in lungs) for name in ("lesion_voxels", "voxels"))
    scale = scale_of(*scan.range)
    mean, deviation = _intensities(scan, masks) if scale == "HU" and lesion else (None, None)

    def mean_of(name: str, part: int, count: int) -> float | None:
        return sum(one[part] for one in sums[name]) / count if name in sums and count else None

    per_slice = []
    for i, row in enumerate(pixels.tolist()):
        numbers = {f"{name}_pixels": count for name, count in zip(names, row, strict=True)}
        lung_pixels = None if scan.lungs is None else int(np.sum(scan.lungs[i] > 0))
        means = {k: sums[k][i][0] / masks[i].size if k in sums else None for k in _MAPS}
        per_slice.append({**numbers, "lung_pixels": lung_pixels, **means})
    return {
        "name": scan.source.name,
        "slices": len(masks),
        "rows_columns": list(scan.stack.shape[1:]),
        "spacing_mm": list(scan.geometry.spacing) if scan.pixel_area and scan.geometry else None,
        "range": list(scan.range),
        "scale": scale,
        "slices_with_lesion": int(np.count_nonzero(pixels[:, 0])),
        **scan.volume(lesion, "lesion_"),
        "lesions": _count_lesions(masks),
        "lesion_hu_mean": mean,
        "lesion_hu_sd": deviation,
        "classes": dict(zip(names[1:], map(scan.volume, others), strict=True)),
        "lungs": lungs,
        "lung_voxels": None if scan.lungs is None else lung,
        "lesion_outside_lung_voxels": None if scan.lungs is None else lesion - in_lung,
        "share_of_lung": in_lung / lung if lung else None,
        **{name: mean_of(name, 0, masks.size) for name in _MAPS},
        **{f"{name}_in_lesion": mean_of(name, 1, lesion) for name in _MAPS},
        "per_slice": per_slice,
    }


def _intensities(scan: LoadedScan, masks: Masks) -> tuple[float, float]:
    """Mean and standard deviation of the intensities within the lesion."""
    parts = (image[ids > 0].astype(float) for image, ids in zip(scan.stack, masks, strict=True))
    moments = np.sum([(part.size, part.sum(), np.square(part).sum()) for part in parts], axis=0)
    mean, square = (moments[1:] / moments[0]).tolist()
    return mean, max(0.0, square - mean**2) ** 0.5


def _lungs(scan: LoadedScan, masks: Masks) -> list[dict[str, Any]]:
    """Each label of the lung mask: its side, volume and the lesion in it.

    Lung masks disagree on which of 1 and 2 is the right lung, so that the side is taken from where
    they are: the scan is in display orientation, where the patient's right is on the left.
    """
    if scan.lungs is None:
        return []
    labels = sorted({int(label) for part in scan.lungs for label in np.unique(part) if label > 0})
    sides: dict[int, str] = {}
    if labels == [1, 2] and scan.geometry and scan.geometry.oriented:
        columns = [(scan.lungs == label).sum((0, 1)) for label in labels]
        first, second = (np.average(np.arange(part.size), weights=part) for part in columns)
        if first != second:
            sides = {1: "right", 2: "left"} if first < second else {1: "left", 2: "right"}
    rows = []
    for label in labels:
        lung = int(np.sum(scan.lungs == label))
        lesion = int(np.sum((scan.lungs == label) & (masks > 0)))
        row = {"label": label, "side": sides.get(label), **scan.volume(lung)}
        rows.append(row | scan.volume(lesion, "lesion_") | {"share_of_lung": lesion / lung})
    return rows


def _count_lesions(masks: Masks) -> int:
    """Connected parts of the lesion in three dimensions, labelled slab by slab to save memory."""
    pairs, parts, above = [], 0, None
    for start in range(0, len(masks), _SLAB - 1):  # neighbouring slabs share a slice
        lesion = masks[start : start + _SLAB] > 0
        labels, count = ndimage.label(lesion, _TOUCHING)  # pyright: ignore[reportGeneralTypeIssues]
        labels = np.where(lesion, labels + parts, 0)
        if above is not None:
            pairs.append(np.unique(np.stack([above[lesion[0]], labels[0][lesion[0]]]), axis=1))
        above, parts = labels[-1], parts + count
    edges = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), int)
    graph = coo_array((np.ones(edges.shape[1]), tuple(edges)), (parts + 1, parts + 1))
    return int(connected_components(graph, directed=False)[0]) - 1  # background is a part, too


def write_tables(folder: Path) -> None:
    """Writes summary.csv, a row per scan, and slices.csv, a row per slice, of all summaries.

    Also writes index.html, if scans have report pages.
    """
    files = sorted(f for f in folder.rglob(f"*{SUMMARY}") if not f.name.startswith("."))
    read = [(f.parent, one) for f in files if (one := read_summary(f)) and "slices" in one]
    records = [record for _, record in read]
    pages = []
    for place, record in read:
        names = (name for name in record["outputs"] if name.endswith(REPORT))
        pages += [((place / name).relative_to(folder).as_posix(), record) for name in names]
    if pages:
        write_index(folder / "index.html", pages)
    classes = sorted({name for record in records for name in record.get("classes", ())})
    scans, slices = [], []
    for record in records:
        row = {name: record.get(name) for name in _TABLE}
        row["warnings"] = "; ".join(record.get("warnings", ()))
        for name in classes:
            part = record.get("classes", {}).get(name, {})
            row |= {f"{name}_voxels": part.get("voxels"), f"{name}_ml": part.get("ml")}
        for lung in record.get("lungs", ()):
            name = f"lung_{lung.get('side') or lung.get('label')}"
            row |= {f"{name}_{part}": lung.get(part) for part in ("ml", "voxels", "share_of_lung")}
        scans.append(row)
        for index, one in enumerate(record.get("per_slice", ())):
            slices.append({"name": record.get("name"), "slice": index} | one)
    write_csv(folder / "summary.csv", scans)
    write_csv(folder / "slices.csv", slices)
