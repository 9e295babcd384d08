"""The numbers of a mask: a scan's JSON file, and tables of all scans in a folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Num, UInt8
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
_TOUCHING = np.ones((3, 3, 3), bool)  # voxels that share a corner are of one lesion


class SliceSummary(NamedTuple):
    """Counts and sums of one slice; those of a scan are their sums.

    Attributes:
      pixels: of each region of ``class_names``.
      lungs: by label of the lung mask, its pixels and those of them that are lesion.
      sums: over all pixels: ``probability``, ``entropy`` (bits), ``agreement`` of the flips and
        ``disagreement`` of an ensemble's members, where there are any.
      lesion_sums: over the lesion: the same, and ``intensity`` and its square ``intensity2``.
    """

    pixels: tuple[int, ...]
    lungs: dict[int, tuple[int, int]]
    sums: dict[str, float]
    lesion_sums: dict[str, float]


def summarize_slice(
    image: Num[np.ndarray, "h w"],
    ids: UInt8[np.ndarray, "h w"],
    maps: Mapping[str, Float32[np.ndarray, "h w"]],
    lungs: Num[np.ndarray, "h w"] | None,
    classes: int,
) -> SliceSummary:
    """Counts and sums of one slice on its own grid.

    Args:
      image: raw intensities.
      ids: class ids.
      maps: what is known of each pixel, by name: ``probability``, ``entropy``, ...
      lungs: labels of the lung mask.
      classes: how many there are.
    """
    lesion = ids > 0
    counts = np.bincount(ids.ravel(), minlength=classes + 1)[1:].tolist()
    values = image[lesion].astype(np.float64)
    lungs = np.zeros_like(ids) if lungs is None else lungs
    parts = {int(label): lungs == label for label in np.unique(lungs) if label > 0}
    return SliceSummary(
        (sum(counts), *(counts if classes > 1 else ())),
        {label: (int(part.sum()), int((part & lesion).sum())) for label, part in parts.items()},
        {name: float(values.sum(dtype=np.float64)) for name, values in maps.items()},
        {name: float(values[lesion].sum(dtype=np.float64)) for name, values in maps.items()}
        | {"intensity": float(values.sum()), "intensity2": float(np.square(values).sum())},
    )


def voxel_ml(scan: LoadedScan) -> float | None:
    """A voxel's volume; None where the file does not say, or of a lone slice."""
    if scan.geometry is None or not scan.geometry.oriented or len(scan.stack) == 1:
        return None
    return float(abs(np.linalg.det(scan.geometry.affine[:3, :3]))) / 1000


def pixel_area(scan: LoadedScan) -> float | None:
    """A pixel's area in mm2; None where the file does not say."""
    if scan.geometry is None or not scan.geometry.oriented:
        return None
    _, rows, columns = scan.geometry.spacing
    return rows * columns


def summarize(
    scan: LoadedScan,
    masks: UInt8[np.ndarray, "n h w"],
    slices: Sequence[SliceSummary],
    classes: tuple[str, ...],
) -> dict[str, Any]:
    """The numbers of a scan, as JSON can hold them; None is what is unknown or undefined.

    Args:
      scan: the scan.
      masks: class ids.
      slices: the summary of each slice.
      classes: names of class ids 1, 2, ...
    """
    size = scan.stack[0].size
    voxels = np.sum([one.pixels for one in slices], axis=0).tolist()
    ml = voxel_ml(scan)
    names = class_names(classes)
    lungs = _lungs(scan, slices, ml)
    in_lung = sum(part["lesion_voxels"] for part in lungs)
    lung = sum(part["voxels"] for part in lungs)
    scale = scale_of(*scan.range)
    known = scale == "HU" and voxels[0] > 0
    mean, square = (
        sum(one.lesion_sums[name] for one in slices) / voxels[0] if known else 0.0
        for name in ("intensity", "intensity2")
    )
    return {
        "name": scan.source.name,
        "slices": len(slices),
        "rows_columns": list(scan.stack.shape[1:]),
        "spacing_mm": list(scan.geometry.spacing) if pixel_area(scan) and scan.geometry else None,
        "range": list(scan.range),
        "scale": scale,
        "slices_with_lesion": sum(one.pixels[0] > 0 for one in slices),
        "lesion_voxels": voxels[0],
        "lesion_ml": None if ml is None else voxels[0] * ml,
        "lesions": _count_lesions(masks),
        "lesion_hu_mean": mean if known else None,
        "lesion_hu_sd": max(0.0, square - mean**2) ** 0.5 if known else None,
        "classes": {
            name: {"voxels": count, "ml": None if ml is None else count * ml}
            for name, count in zip(names[1:], voxels[1:], strict=True)
        },
        "lungs": lungs,
        "lung_voxels": None if scan.lungs is None else lung,
        "lesion_outside_lung_voxels": None if scan.lungs is None else voxels[0] - in_lung,
        "share_of_lung": _ratio(in_lung, lung),
        **_means(slices, "probability", size, voxels[0]),
        **_means(slices, "entropy", size, voxels[0]),
        "agreement": _means(slices, "agreement", size, voxels[0])["agreement"],
        **_means(slices, "disagreement", size, voxels[0]),
        "per_slice": [_row(one, size, names, scan.lungs is not None) for one in slices],
    }


def _means(
    slices: Sequence[SliceSummary], name: str, size: int, lesion: int
) -> dict[str, float | None]:
    """Mean of a map over all pixels and over the lesion; None without the map, or a lesion."""
    if name not in slices[0].sums:
        return {name: None, f"{name}_in_lesion": None}
    inside = sum(one.lesion_sums[name] for one in slices)
    whole = sum(one.sums[name] for one in slices) / (size * len(slices))
    return {name: whole, f"{name}_in_lesion": _ratio(inside, lesion)}


def _lungs(
    scan: LoadedScan, slices: Sequence[SliceSummary], ml: float | None
) -> list[dict[str, Any]]:
    """Each label of the lung mask: its side, volume and the lesion in it.

    Lung masks disagree on which of 1 and 2 is the right lung, so that the side is taken from where
    they are: the scan is in display orientation, where the patient's right is on the left.
    """
    labels = sorted({label for one in slices for label in one.lungs})
    sides: dict[int, str] = {}
    if labels == [1, 2] and scan.lungs is not None and scan.geometry and scan.geometry.oriented:
        columns = np.arange(scan.lungs.shape[2])
        left_out = [(scan.lungs == label).sum((0, 1)) for label in labels]
        first, second = (counts @ columns / counts.sum() for counts in left_out)
        if first != second:
            sides = {1: "right", 2: "left"} if first < second else {1: "left", 2: "right"}
    rows = []
    for label in labels:
        counts = [one.lungs.get(label, (0, 0)) for one in slices]
        lung, lesion = (sum(part) for part in zip(*counts, strict=True))
        rows.append(
            {
                "label": label,
                "side": sides.get(label),
                "voxels": lung,
                "ml": None if ml is None else lung * ml,
                "lesion_voxels": lesion,
                "lesion_ml": None if ml is None else lesion * ml,
                "share_of_lung": lesion / lung,
            }
        )
    return rows


def _count_lesions(masks: UInt8[np.ndarray, "n h w"]) -> int:
    """Connected parts of the lesion in three dimensions, labelled slab by slab to save memory."""
    pairs, parts, above = [], 0, None
    for start in range(0, len(masks), _SLAB - 1):  # neighbouring slabs share a slice
        lesion = masks[start : start + _SLAB] > 0
        labels, count = ndimage.label(lesion, _TOUCHING)  # pyright: ignore[reportGeneralTypeIssues]
        labels = np.where(lesion, labels + parts, 0)
        if above is not None:
            shared = np.stack([above[lesion[0]], labels[0][lesion[0]]])
            pairs.append(np.unique(shared, axis=1))
        above, parts = labels[-1], parts + count
    edges = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), int)
    graph = coo_array((np.ones(edges.shape[1]), tuple(edges)), (parts + 1, parts + 1))
    return int(connected_components(graph, directed=False)[0]) - 1  # background is a part, too


def _row(one: SliceSummary, size: int, names: Sequence[str], lungs: bool) -> dict[str, Any]:
    return {
        **{f"{name}_pixels": count for name, count in zip(names, one.pixels, strict=True)},
        "lung_pixels": sum(lung for lung, _ in one.lungs.values()) if lungs else None,
        **{name: None for name in ("probability", "entropy", "agreement", "disagreement")},
        **{name: total / size for name, total in one.sums.items()},
    }


def _ratio(total: float, count: float) -> float | None:
    return total / count if count else None


def write_tables(folder: Path) -> None:
    """Writes summary.csv, a row per scan, and slices.csv, a row per slice, of all summaries.

    And index.html, where scans have pages.
    """
    files = sorted(f for f in folder.rglob(f"*{SUMMARY}") if not f.name.startswith("."))
    read = [(file.parent, record) for file in files if (record := read_summary(file))]
    records = [record for _, record in read]
    pages = [
        ((place / name).relative_to(folder).as_posix(), record)
        for place, record in read
        for name in record["outputs"]
        if name.endswith(REPORT)
    ]
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
