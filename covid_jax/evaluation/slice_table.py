"""The two files of an evaluation with an entry for each slice: slices.csv and masks.npz."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from covid_jax.errors import RunError
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.files import TEXT, replacing, write_csv
from covid_jax.metrics.confusion import METRICS, Counts
from covid_jax.metrics.surface_distance import SURFACE_METRICS

Cell = str | int | float


def row_of(scored: SliceScores) -> dict[str, Cell]:
    """The row of a slice in slices.csv: names, counts, scores; NaN where undefined.

    A column is missing where the slice has no such value.
    """
    item, (_, *classes) = scored.item, scored.regions
    scores = scored.lesion
    tp, fp, fn, tn = (int(part) for part in scores.counts)
    cells: dict[str, Cell] = {
        "slice": item.id,
        "source": item.source,
        "patient": item.patient or "unknown",
        "height": scored.truth.shape[0],
        "width": scored.truth.shape[1],
        "lesion_pixels": tp + fn,
        "predicted_pixels": tp + fp,
        **dict(zip(Counts._fields, (tp, fp, fn, tn), strict=True)),
        **{name: float(metric(scores.counts)) for name, metric in METRICS.items()},
    }
    if scores.network is not None:
        cells["dice_at_network_size"] = float(METRICS["dice"](scores.network))
    for unit, surface in scores.surface.items():
        cells |= {f"{name}_{unit}": getattr(surface, name) for name in SURFACE_METRICS}
    dices = {f"dice_{name}": METRICS["dice"](scored.regions[name].counts) for name in classes}
    return cells | {
        "lesions": len(scores.lesions.areas),
        "lesions_found": int(scores.lesions.detected.sum()),
        "false_lesions": len(scores.lesions.false_areas),
        "mae": scored.calibration.mae,
        "brier": scored.calibration.brier,
        "covid_semiseg_dice": float(scored.semiseg.dice.mean()),
        **{name: float(dice) for name, dice in dices.items()},
    }


def write_rows(path: Path, scores: Sequence[SliceScores]) -> None:
    """Writes slices.csv: a row for each slice, numbers in full precision."""
    write_csv(path, [row_of(scored) for scored in scores])


def read_rows(path: Path) -> list[dict[str, str]]:
    """slices.csv as written.

    Raises:
      RunError: if it cannot be read.
    """
    try:
        with path.open(newline="", **TEXT) as file:
            rows = list(csv.DictReader(file, restkey="beyond"))
        for number_of_row, cells in enumerate(rows, start=1):
            if None in cells.values() or "beyond" in cells:
                raise ValueError(f"row {number_of_row} and the heading differ in length")
            cells |= {name: text.removeprefix("'") for name, text in cells.items()}
            for name in METRICS:
                float(cells[name] or "nan")
        if not rows or not {"slice", "patient"} <= rows[0].keys():
            raise ValueError("no slices in it")
    except (OSError, csv.Error, ValueError, KeyError) as error:
        raise RunError(f"{path}: no usable table ({error}); score the run again") from error
    return rows


def save_masks(path: Path, scores: Sequence[SliceScores]) -> None:
    """Writes the predicted class ids of every slice on its own grid, named by position."""
    masks = {str(i): scored.prediction for i, scored in enumerate(scores)}
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **masks)  # pyright: ignore[reportArgumentType]


def load_masks(path: Path) -> list[UInt8[np.ndarray, "_ _"]]:
    """Reads the masks that ``save_masks`` wrote, in the order of the slices.

    Raises:
      RunError: if it cannot be read.
    """
    try:
        with path.open("rb") as opened, np.load(opened) as file:  # NumPy leaves damaged ones open
            return [file[str(i)] for i in range(len(file.files))]
    except Exception as error:  # NumPy and zipfile raise a dozen kinds for damaged files
        raise RunError(f"{path}: no usable masks ({error}); score the run again") from error
