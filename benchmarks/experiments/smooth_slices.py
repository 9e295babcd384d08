"""What averages over neighbouring slices change: Dice of patients, false alarms, scans in HU.

    python -m benchmarks.experiments.smooth_slices RUN DATA [--tested FOLDER] --out FILE

DATA holds the collections with a `slices.csv` (`radiopaedia_window/`, `coronacases_window/`) and
`hu_scans/`. The distances of the pictures' slices are unknown, so their deviations are in slices;
a neighbour's map is resized to the slice. Scans are predicted by `predict --smooth-slices`, in mm.
The validation and test part of the run's split are measured, or the whole of another collection.
"""

import argparse
import csv
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console

from covid_jax.data import open_dataset
from covid_jax.evaluation import evaluate
from covid_jax.inference import Run, load_run
from covid_jax.prediction.options import PredictOptions
from covid_jax.prediction.predict_scans import predict_scans
from covid_jax.runs.config import EvalConfig
from covid_jax.runs.provenance import provenance

COMMAND = ("python", "-m", "benchmarks.experiments.smooth_slices")
SLICES = (0.0, 0.5, 0.7, 0.85, 1.0, 1.5, 2.0)  # deviations, of pictures
MM = (0.0, 3.0, 4.0, 5.0, 6.0, 8.0)  # of scans
REACH = 2  # deviations to the farthest neighbour, as in predict
KEPT = (
    "share_of_lung",
    "lesion_voxels",
    "lung_voxels",
    "slices",
    "slices_with_lesion",
    "lesions",
    "spacing_mm",
)


class Slice(NamedTuple):
    """Truth and round(255 p) of one slice of a patient, on its own grid."""

    truth: np.ndarray
    probability: np.ndarray


Series = dict[tuple[str, str], dict[int, Slice]]  # by patient and volume, then by position


def positions(data: Path) -> dict[str, tuple[tuple[str, str], int]]:
    """Patient, volume and position of each picture of the collections that have a slices.csv."""
    found = {}
    for path in sorted(data.glob("*/slices.csv")):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                volume = row["name"].rpartition("_")[0]
                found[row["name"]] = (row["patient"], volume), int(row["position"])
    return found


def predicted_series(
    run: Run, data: Path, subset: Literal["val", "test", "all"], tested: Path | None = None
) -> Series:
    """The slices of a subset, or of another collection, that have a place in a series."""
    chosen, place = run.config.data, positions(data)
    dataset = open_dataset(
        tested or chosen.data,
        chosen.image_size,
        lesion_slices_only=chosen.lesion_slices_only,
        crop=chosen.crop == "lungs",
        grey_scale=chosen.intensity == "lung",
    )
    with tempfile.TemporaryDirectory() as out:
        scored = evaluate(run, dataset, EvalConfig(subset=subset), out=Path(out)).slices
    series: Series = defaultdict(dict)
    for one in scored:
        if (known := place.get(one.item.id.rpartition("/")[2])) is not None:
            series[known[0]][known[1]] = Slice(one.truth > 0, one.probability)
    return series


def averaged(slices: dict[int, Slice], position: int, deviation: float) -> np.ndarray:
    """The map of a slice, averaged over those neighbours that are there."""
    shape = slices[position].probability.shape
    reach = int(REACH * deviation)
    total, weights = np.zeros(shape), 0.0
    for step in range(-reach, reach + 1):
        if (near := slices.get(position + step)) is None:
            continue
        picture = Image.fromarray(near.probability).resize(shape[::-1], Image.Resampling.BILINEAR)
        weight = float(np.exp(-0.5 * (step / deviation) ** 2)) if step else 1.0
        total, weights = total + weight * np.asarray(picture, float), weights + weight
    return total / weights


def score(series: Series, deviation: float) -> dict[str, Any]:
    """Mean Dice of each patient's slices with lesion, and what is marked on the others."""
    dices, marked = defaultdict(list), []
    for (patient, _), slices in series.items():
        for position, (truth, _) in slices.items():
            mask = averaged(slices, position, deviation) > 255 / 2
            if truth.any():
                both = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
                dices[patient].append(float(both))
            else:
                marked.append(float(mask.mean()))
    means = {patient: float(np.mean(values)) for patient, values in sorted(dices.items())}
    return {
        "deviation_slices": deviation,
        "patients": means,
        "patients_mean": float(np.mean(list(means.values()))),
        "lesion_free": {
            "slices": len(marked),
            "any_marked": float(np.mean([area > 0 for area in marked])),
            "marked_area": float(np.mean(marked)),
        },
    }


def scans(run: Run, folder: Path, deviation: float) -> dict[str, Any]:
    """What `predict` says of the scans in HU."""
    with tempfile.TemporaryDirectory() as out:
        options = PredictOptions(smooth_slices=deviation)
        console = Console(quiet=True)
        found = predict_scans(run, [folder], Path(out), options, console).predicted
    rows = {one["name"]: {name: one[name] for name in KEPT} for one in found}
    return {"deviation_mm": deviation, "scans": rows}


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tested", type=Path, help="a collection that the run was not trained on")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    run = load_run(options.run)
    record: dict[str, Any] = {"run": run.folder.name, "epoch": run.epoch}
    for subset in ("all",) if options.tested else ("val", "test"):
        series = predicted_series(run, options.data, subset, options.tested)
        record[subset] = [score(series, deviation) for deviation in SLICES]
        for row in record[subset]:
            print(subset, row["deviation_slices"], row["patients_mean"], row["lesion_free"])
    record["hu"] = [scans(run, options.data / "hu_scans", deviation) for deviation in MM]
    for row in record["hu"]:
        shares = {name: round(one["share_of_lung"], 5) for name, one in row["scans"].items()}
        print("mm", row["deviation_mm"], shares)
    record |= provenance([*COMMAND, *sys.argv[1:]])
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
