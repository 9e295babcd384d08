"""What is kept of every slice: slices.csv, and the masks themselves."""

import csv
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from covid_jax.errors import RunError
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.files import replacing
from covid_jax.metrics.confusion import METRICS, Counts
from covid_jax.metrics.surface_distance import DISTANCES

Cell = str | int | float
TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # names of files may be no UTF-8
_DAMAGE = (  # what NumPy and zipfile say of files that are none
    *(OSError, ValueError, KeyError, EOFError, TypeError, SyntaxError, NotImplementedError),
    *(RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error),
)


def row(one: SliceScores) -> dict[str, Cell]:
    """A slice's line: who it is, its counts, its scores; NaN where undefined."""
    lesion, *others = one.regions
    scores = one.regions[lesion]
    tp, fp, fn, tn = (int(part) for part in scores.counts)
    cells: dict[str, Cell] = {
        "slice": one.item.id,
        "source": one.item.source,
        "patient": one.item.patient or "unknown",
        "height": one.truth.shape[0],
        "width": one.truth.shape[1],
        "lesion_pixels": tp + fn,
        "predicted_pixels": tp + fp,
        **dict(zip(Counts._fields, (tp, fp, fn, tn), strict=True)),
        **{name: float(metric(scores.counts)) for name, metric in METRICS.items()},
        "dice_at_network_size": float(METRICS["dice"](scores.network)),
    }
    for unit, surface in scores.surface.items():
        cells |= {f"{name}_{unit}": getattr(surface, name) for name in (*DISTANCES, "nsd")}
    cells |= {
        "lesions": len(scores.lesions.areas),
        "lesions_found": int(scores.lesions.detected.sum()),
        "false_lesions": len(scores.lesions.false_areas),
        "mae": one.calibration.mae,
        "brier": one.calibration.brier,
        "covid_semiseg_dice": float(one.semiseg.dice.mean()),
    }
    return cells | {
        f"dice_{name}": float(METRICS["dice"](one.regions[name].counts)) for name in others
    }


def write_rows(path: Path, scores: Sequence[SliceScores]) -> None:
    """Writes slices.csv: a line a slice, a column empty where a slice has no such value."""
    rows = [row(one) for one in scores]
    columns = list(dict.fromkeys(name for cells in rows for name in cells))
    with replacing(path) as partial, partial.open("w", newline="", **TEXT) as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for cells in rows:
            writer.writerow(
                {k: f"{v:.6f}" if isinstance(v, float) else v for k, v in cells.items()}
            )


def read_rows(path: Path) -> list[dict[str, str]]:
    """slices.csv as written.

    Raises:
      RunError: if it cannot be read.
    """
    try:
        with path.open(newline="", **TEXT) as file:
            rows = list(csv.DictReader(file, restkey="beyond"))
        for place, cells in enumerate(rows, start=1):
            if None in cells.values() or "beyond" in cells:
                raise ValueError(f"slice {place} has not a cell for each column")
            for name in METRICS:
                number(cells[name])
        if not rows or not {"slice", "patient"} <= rows[0].keys():
            raise ValueError("no slices in it")
    except (OSError, csv.Error, ValueError, KeyError) as error:
        raise RunError(f"{path}: no usable table ({error}); score the run again") from error
    return rows


def number(text: str) -> float:
    """A cell's value; NaN for an empty one."""
    return float(text) if text else math.nan


def save_masks(path: Path, scores: Sequence[SliceScores]) -> None:
    """Keeps the predicted class ids of every slice on its own grid, by position."""
    masks = {str(i): one.prediction for i, one in enumerate(scores)}
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **masks)  # pyright: ignore[reportArgumentType]


def load_masks(path: Path) -> list[UInt8[np.ndarray, "h w"]]:
    """What ``save_masks`` kept.

    Raises:
      RunError: if it cannot be read.
    """
    try:
        with path.open("rb") as opened, np.load(opened) as file:  # NumPy leaves damaged ones open
            return [file[str(i)] for i in range(len(file.files))]
    except _DAMAGE as error:
        raise RunError(f"{path}: no usable masks ({error}); score the run again") from error
