"""Where the grey scale finds healthy lung, patient by patient, against the lungs' true masks.

    python -m benchmarks.experiments.grey_anchor DATA --out grey_anchor.json

DATA holds `radiopaedia_window/` and `coronacases_window/`, 8-bit pictures with masks of lungs and
lesion. Healthy lung is the lower quartile of the lung outside the lesion, by definition -860 HU;
every figure is a distance from it in HU, by the slice's own scale from there to soft tissue.
"""

import argparse
import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from covid_jax.runs.provenance import provenance
from covid_jax.transforms import grey_scale as scale

COMMAND = ("python", "-m", "benchmarks.experiments.grey_anchor")
SOURCES = ("radiopaedia_window", "coronacases_window")
PERCENTILES = (2, 5, 10, 25)  # of the dark pixels: what could stand for the lung
MARGIN = 3  # pixels left out at the lungs' border and around lesions
LEAST = 300  # pixels of healthy lung that a slice needs


def read(path: Path) -> np.ndarray:
    """A grey picture."""
    return np.asarray(Image.open(path).convert("L"))


def distances(image: np.ndarray, lungs: np.ndarray, lesion: np.ndarray) -> list[float] | None:
    """In HU from healthy lung: the grey scale's lung, then each percentile of the dark pixels."""
    smooth, inside = scale.smoothed(image), ~scale.padding(image)
    healthy = ndimage.binary_erosion(lungs, iterations=MARGIN)
    healthy &= ~ndimage.binary_dilation(lesion, iterations=MARGIN)
    if healthy.sum() < LEAST:
        return None
    dark = smooth[inside & (smooth < scale.otsu(smooth[inside]))]
    truth, found = np.percentile(smooth[healthy], 25), scale.find_grey_scale(image)
    hounsfield = (scale.SOFT_TISSUE_HU - scale.LUNG_HU) / (found.soft_tissue - truth)
    candidates = (found.lung, *np.percentile(dark, PERCENTILES))
    return [float((value - truth) * hounsfield) for value in candidates]


def main() -> None:
    """Measures every slice with lesion, writes medians and spreads by patient."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found, shares = defaultdict(list), defaultdict(list)
    for source in SOURCES:
        folder = options.data / source
        with (folder / "slices.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["kind"] == "lesion"]
        for row in rows:
            image = read(folder / f"images/{row['name']}.jpg")
            lesion, lungs = (
                read(folder / f"{k}/{row['name']}.png") > 0 for k in ("masks", "lungs")
            )
            if (away := distances(image, lungs, lesion)) is not None:
                found[row["patient"]].append(away)
                shares[row["patient"]].append(lesion.sum() / lungs.sum())
    names = ("grey scale", *(f"percentile {p}" for p in PERCENTILES))
    patients = {
        patient: {
            "slices": len(rows),
            "lesion_share_of_lung": round(float(np.mean(shares[patient])), 3),
            "median_hu": dict(zip(names, np.median(rows, axis=0).round(1).tolist(), strict=True)),
            "sd_hu": dict(zip(names, np.std(rows, axis=0).round(1).tolist(), strict=True)),
        }
        for patient, rows in sorted(found.items())
    }
    record = {"patients": patients, **provenance([*COMMAND, *sys.argv[1:]])}
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    for patient, row in patients.items():
        print(f"{patient:16}", row["slices"], row["median_hu"])


if __name__ == "__main__":
    main()
