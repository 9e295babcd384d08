"""For readers of scans: lesion share by patient, steadiness from slice to slice, the worst slices.

    python -m benchmarks.experiments.readers runs/NAME/eval/test --data DATA... \
        --out readers.json --pictures docs/images/results

Reads what ``eval`` wrote: ``slices.csv`` and ``masks.npz``. Draws a Bland-Altman plot of each known
patient's share of lesion (percent of the pictures' area, over the slices evaluated) and, for every
patient, the slice with the lowest Dice.
"""

import argparse
import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from covid_jax.data import open_dataset
from covid_jax.evaluation.slice_table import load_masks
from covid_jax.reporting.drawing import painted, to_grey
from covid_jax.reporting.example_figures import AGREEMENT, add_legend, agreement
from covid_jax.reporting.figures import new_figure, picture_grid
from covid_jax.runs.provenance import provenance

COMMAND = ("python", "-m", "benchmarks.experiments.readers")
LIMITS = 1.96  # standard deviations of the differences: Bland and Altman's limits of agreement


class Patient(NamedTuple):
    """The slices of one patient in order: areas of picture, truth and prediction; Dice."""

    name: str
    ids: list[str]
    area: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    dice: np.ndarray

    @property
    def shares(self) -> tuple[float, float]:
        """Percent of the pictures' area: true and predicted lesion."""
        whole = self.area.sum() / 100
        return float(self.truth.sum() / whole), float(self.prediction.sum() / whole)

    def steps(self, part: np.ndarray) -> float:
        """Mean absolute change of the share from slice to slice, in percent of a picture."""
        return float(np.abs(np.diff(100 * part / self.area)).mean())


def patients_of(path: Path) -> list[Patient]:
    """The known patients of a slices.csv."""
    rows = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row["patient"]].append(row)
    rows.pop("unknown", None)
    found = []
    for name, slices in sorted(rows.items()):
        slices.sort(key=lambda row: row["slice"])
        numbers = {
            key: np.array([float(row[key]) for row in slices]) for key in slices[0] if key in _USED
        }
        area = numbers["height"] * numbers["width"]
        ids = [row["slice"] for row in slices]
        truth, prediction = numbers["lesion_pixels"], numbers["predicted_pixels"]
        found.append(Patient(name, ids, area, truth, prediction, numbers["dice"]))
    return found


_USED = ("height", "width", "lesion_pixels", "predicted_pixels", "dice")


def summary(patients: list[Patient]) -> dict[str, Any]:
    """What the page quotes."""
    shares = np.array([patient.shares for patient in patients])
    differences = shares[:, 1] - shares[:, 0]
    spread = LIMITS * differences.std(ddof=1)
    return {
        "patients": [
            {
                "patient": patient.name,
                "slices": len(patient.ids),
                "true_share": patient.shares[0],
                "predicted_share": patient.shares[1],
                "true_step": patient.steps(patient.truth),
                "predicted_step": patient.steps(patient.prediction),
                "correlation": float(
                    np.corrcoef(patient.truth / patient.area, patient.prediction / patient.area)[
                        0, 1
                    ]
                ),
            }
            for patient in patients
        ],
        "bias": float(differences.mean()),
        "limits": [float(differences.mean() - spread), float(differences.mean() + spread)],
    }


def bland_altman(found: dict[str, Any]) -> Figure:
    """Difference against mean of true and predicted share, a point for each patient."""
    figure = new_figure(5, 3.2)
    axis = figure.subplots()
    for row in found["patients"]:
        true, predicted = row["true_share"], row["predicted_share"]
        axis.plot((true + predicted) / 2, predicted - true, "o", color="#1f5fa8")
        axis.annotate(
            row["patient"],
            ((true + predicted) / 2, predicted - true),
            fontsize=7,
            xytext=(4, 4),
            textcoords="offset points",
        )
    for value, style in ((found["bias"], "-"), *((limit, "--") for limit in found["limits"])):
        axis.axhline(value, linestyle=style, color="#666666", linewidth=1)
        axis.annotate(
            f"{value:+.1f}", (1.01, value), xycoords=("axes fraction", "data"), fontsize=7
        )
    axis.set_xlabel("mean of true and predicted share, % of the picture")
    axis.set_ylabel("predicted minus true, %")
    return figure


def gallery(
    patients: list[Patient], masks: dict[str, np.ndarray], slices: dict[str, Any]
) -> Figure:
    """The slice with lesion of the lowest Dice of every patient."""
    rows, labels = [], []
    for patient in patients:
        dice = np.where(patient.truth > 0, patient.dice, np.inf)
        name = patient.ids[int(dice.argmin())]
        item = slices[name]
        grey, truth = to_grey(item.image), (item.mask > 0).astype(np.uint8)
        rows.append([grey, painted(grey, agreement(truth, masks[name]))])
        labels.append(f"{patient.name}\nDice {dice.min():.2f}")
    figure, axes = picture_grid(("slice", "overlay"), rows, 0.7)
    for axis, label in zip(axes[:, 0], labels, strict=True):
        axis.set_ylabel(label, fontsize=7)
    add_legend(figure, AGREEMENT)
    return figure


def main() -> None:
    """Reads, draws, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("evaluation", type=Path)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="start of the pictures' names")
    options = parser.parse_args()
    with (options.evaluation / "slices.csv").open(newline="") as file:
        names = [row["slice"] for row in csv.DictReader(file)]
    masks = dict(zip(names, load_masks(options.evaluation / "masks.npz"), strict=True))
    patients = patients_of(options.evaluation / "slices.csv")
    slices = {
        item.id: item for item in open_dataset(options.data, 64, lesion_slices_only=False).slices
    }
    found = summary(patients)
    options.out.write_text(
        json.dumps(found | provenance([*COMMAND, *sys.argv[1:]]), indent=1) + "\n"
    )
    bland_altman(found).savefig(f"{options.pictures}_bland_altman.png")
    gallery(patients, masks, slices).savefig(
        f"{options.pictures}_worst.jpg", pil_kwargs={"quality": 85}
    )


if __name__ == "__main__":
    main()
