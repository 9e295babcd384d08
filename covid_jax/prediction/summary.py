"""What a mask says in numbers: a scan's JSON file, and tables of all scans in a folder."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from covid_jax.data.statistics import scale_of
from covid_jax.files import replacing
from covid_jax.prediction.masks import entropy
from covid_jax.prediction.pipeline import LoadedScan
from covid_jax.transforms.labels import class_names, lesion_probability

ENDING = "_summary.json"
_TABLE = (
    *("name", "scan", "slices", "slices_with_lesion", "lesion_voxels", "lesion_ml"),
    *("share_of_lung", "probability", "probability_in_lesion", "entropy", "entropy_in_lesion"),
    *("agreement", "scale", "warnings", "notice"),
)


class SliceSummary(NamedTuple):
    """Of one slice; sums, so that a scan's are theirs.

    Attributes:
      pixels: of each region of ``class_names``.
      in_lung: pixels of the lesion within the lung; None without a lung mask.
      lung: pixels of the lung.
      probability, entropy: summed over the slice, entropy in bits.
      lesion_probability, lesion_entropy: summed over the lesion.
      agreement: of the flips, summed over the slice; None without them.
    """

    pixels: tuple[int, ...]
    in_lung: int | None
    lung: int | None
    probability: float
    entropy: float
    lesion_probability: float
    lesion_entropy: float
    agreement: float | None


def summarize_slice(
    scores: Float32[np.ndarray, "h w c"],
    ids: UInt8[np.ndarray, "h w"],
    lung: Bool[np.ndarray, "h w"] | None,
    agreement: Float32[np.ndarray, "h w"] | None,
    classes: int,
) -> SliceSummary:
    """Counts and sums of one slice on its own grid."""
    lesion = ids > 0
    probability, bits = lesion_probability(scores).astype(np.float64), entropy(scores)
    each = [np.count_nonzero(ids == k) for k in range(1, classes + 1)] if classes > 1 else []
    return SliceSummary(
        (int(lesion.sum()), *map(int, each)),
        None if lung is None else int((lesion & lung).sum()),
        None if lung is None else int(lung.sum()),
        float(probability.sum()),
        float(bits.sum()),
        float(probability[lesion].sum()),
        float(bits[lesion].sum()),
        None if agreement is None else float(agreement.sum(dtype=np.float64)),
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
    scan: LoadedScan, slices: Sequence[SliceSummary], classes: tuple[str, ...]
) -> dict[str, Any]:
    """A scan's numbers, as JSON can hold them; None is what is not known or not defined."""
    size = scan.stack[0].size
    voxels = np.sum([one.pixels for one in slices], axis=0).tolist()
    ml = voxel_ml(scan)
    names = class_names(classes)
    agreed = [one.agreement for one in slices if one.agreement is not None]
    lungs = [one.lung for one in slices if one.lung is not None]
    inside = [one.in_lung for one in slices if one.in_lung is not None]
    return {
        "name": scan.source.name,
        "slices": len(slices),
        "rows_columns": list(scan.stack.shape[1:]),
        "spacing_mm": list(scan.geometry.spacing) if pixel_area(scan) and scan.geometry else None,
        "range": list(scan.range),
        "scale": scale_of(*scan.range),
        "slices_with_lesion": sum(one.pixels[0] > 0 for one in slices),
        "lesion_voxels": voxels[0],
        "lesion_ml": None if ml is None else voxels[0] * ml,
        "classes": {
            name: {"voxels": count, "ml": None if ml is None else count * ml}
            for name, count in zip(names[1:], voxels[1:], strict=True)
        },
        "lung_voxels": sum(lungs) if lungs else None,
        "lesion_outside_lung_voxels": voxels[0] - sum(inside) if lungs else None,
        "share_of_lung": sum(inside) / sum(lungs) if sum(lungs) else None,
        "probability": sum(one.probability for one in slices) / (size * len(slices)),
        "probability_in_lesion": _ratio(sum(o.lesion_probability for o in slices), voxels[0]),
        "entropy": sum(one.entropy for one in slices) / (size * len(slices)),
        "entropy_in_lesion": _ratio(sum(one.lesion_entropy for one in slices), voxels[0]),
        "agreement": _ratio(sum(agreed), size * len(agreed)),
        "per_slice": [_row(one, size, names) for one in slices],
    }


def _row(one: SliceSummary, size: int, names: Sequence[str]) -> dict[str, Any]:
    return {
        **{f"{name}_pixels": count for name, count in zip(names, one.pixels, strict=True)},
        "lung_pixels": one.lung,
        "probability": one.probability / size,
        "entropy": one.entropy / size,
        "agreement": None if one.agreement is None else one.agreement / size,
    }


def _ratio(total: float, count: float) -> float | None:
    return total / count if count else None


def read_summary(path: Path) -> dict[str, Any] | None:
    """A scan's JSON file; None where there is none, or it is damaged."""
    try:
        record = json.loads(path.read_text())
        return record if isinstance(record, dict) and isinstance(record["outputs"], list) else None
    except (OSError, ValueError, KeyError, RecursionError):
        return None


def write_tables(folder: Path) -> None:
    """Writes summary.csv, a line a scan, and slices.csv, a line a slice, of all JSON files here."""
    files = sorted(f for f in folder.rglob(f"*{ENDING}") if not f.name.startswith("."))
    records = [record for file in files if (record := read_summary(file))]
    classes = sorted({name for record in records for name in record.get("classes", ())})
    scans, slices = [], []
    for record in records:
        row = {name: record.get(name) for name in _TABLE}
        row["warnings"] = "; ".join(record.get("warnings", ()))
        for name in classes:
            part = record.get("classes", {}).get(name, {})
            row |= {f"{name}_voxels": part.get("voxels"), f"{name}_ml": part.get("ml")}
        scans.append(row)
        for index, one in enumerate(record.get("per_slice", ())):
            slices.append({"name": record.get("name"), "slice": index} | one)
    _write_rows(folder / "summary.csv", scans)
    _write_rows(folder / "slices.csv", slices)


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    odd = "surrogateescape"  # names of files may be no UTF-8: their bytes are written as they are
    with (
        replacing(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors=odd) as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
