"""How much true lesion the lungs' box and hull keep, and how far one grey scale agrees.

    python benchmarks/experiments/lung_boxes.py DATA --out lung_boxes.json

DATA holds `radiopaedia/`, `radiopaedia_window/`, `coronacases_window/` and `hu_scans/`.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from PIL import Image

from covid_jax.transforms import grey_scale, lungs

AIR, BODY = -1000, 40  # HU


class Case(NamedTuple):
    """One slice: its image, true lungs and lesion, and whether it is in HU."""

    name: str
    image: np.ndarray
    lungs: np.ndarray
    lesion: np.ndarray
    hounsfield: bool = False


def volumes(folder: Path) -> Iterator[Case]:
    """Whole slices, 8-bit, in display orientation."""
    for path in sorted(folder.glob("rp_im/*.nii.gz"), key=lambda path: int(path.name[:-7])):
        image, lung, lesion = (
            np.asarray(nibabel.load(folder / part / path.name).dataobj).transpose(2, 1, 0)
            for part in ("rp_im", "rp_lung_msk", "rp_msk")
        )
        for k in range(len(image)):
            yield Case(f"{path.name[:-7]}:{k}", image[k], lung[k] > 0, lesion[k] > 0)


def pictures(folder: Path) -> Iterator[Case]:
    """Crops on their side, 8-bit."""
    for row in csv.DictReader((folder / "slices.csv").open()):
        if row["kind"] == "lesion":
            image, lung, lesion = (
                np.array(Image.open(next((folder / part).glob(f"{row['name']}.*"))).convert("L"))
                for part in ("images", "lungs", "masks")
            )
            yield Case(row["name"], image, lung > 127, lesion > 127)


def in_hounsfield(folder: Path, framed: bool) -> Iterator[Case]:
    """The crops in HU; framed: as a body with air around it, upright, on a table."""
    rows = {row["name"]: row for row in csv.DictReader((folder / "slices.csv").open())}
    for case in pictures(folder):
        soft_tissue = float(rows[case.name]["soft_tissue_grey"])
        image = np.where(case.image > 0, -1000 + 1050 * (case.image / soft_tissue), AIR)
        parts = [np.rot90(part, -1) for part in (image, case.lungs, case.lesion)]  # spine below
        if framed:
            parts = [
                np.pad(np.pad(part, 30, constant_values=inner), 60, constant_values=outer)
                for part, inner, outer in zip(parts, (BODY, 0, 0), (AIR, 0, 0), strict=True)
            ]
            parts[0][-20:-15] = 200  # the table's shell
        yield Case(case.name, *parts, hounsfield=True)


def patients(cases: Iterator[Case]) -> Iterator[list[Case]]:
    """Cases in runs of one volume or patient."""
    run: list[Case] = []
    for case in cases:
        if run and run[0].name.split("_")[0].split(":")[0] != case.name.split("_")[0].split(":")[0]:
            yield run
            run = []
        run.append(case)
    yield run


def around(inner: tuple[int, ...], outer: np.ndarray) -> list[tuple[int, int]]:
    """What is to be padded for a crop in the middle of a larger slice."""
    return [((b - a) // 2, b - a - (b - a) // 2) for a, b in zip(inner, outer, strict=True)]


def measure(run: list[Case]) -> list[dict[str, Any]]:
    """What one patient's slices keep, and how they look on the common scale."""
    masks, seconds = [], time.perf_counter()
    hounsfield = run[0].hounsfield
    if hounsfield:  # one volume, of one size
        shape = np.max([case.image.shape for case in run], 0)
        stack = np.stack([np.pad(c.image, around(c.image.shape, shape), "edge") for c in run])
        found = lungs.lung_mask(stack, True)
        masks = [
            part[
                tuple(slice(a, a + n) for (a, _), n in zip(around(size, shape), size, strict=True))
            ]
            for part, size in zip(found, [case.image.shape for case in run], strict=True)
        ]
    else:
        masks = [lungs.lung_mask(case.image[None], False)[0] for case in run]
    seconds = (time.perf_counter() - seconds) / len(run)
    return [measure_slice(case, mask, seconds) for case, mask in zip(run, masks, strict=True)]


def measure_slice(case: Case, mask: np.ndarray, seconds: float) -> dict[str, Any]:
    """One slice against its true lungs and lesion."""
    cropped = bool(lungs.is_cropped(case.image[None], case.hounsfield)[0])
    box = None if cropped else lungs.lungs_box(mask)
    whole = (slice(0, case.image.shape[0]), slice(0, case.image.shape[1]))
    truth = whole if cropped else lungs.lungs_box(case.lungs | case.lesion)
    inside = np.zeros(mask.shape, bool)
    inside[box or whole] = True
    true_box = np.zeros(mask.shape, bool)
    true_box[truth or whole] = True
    start = time.perf_counter()
    hull = lungs.lungs_hull(mask)
    hull_seconds = time.perf_counter() - start
    start = time.perf_counter()
    if case.hounsfield:
        scale = grey_scale.HOUNSFIELD
    else:
        scale = grey_scale.find_grey_scale(case.image, mask)
    scaled = scale.apply(case.image)
    grey_seconds = time.perf_counter() - start
    healthy = case.lungs & ~case.lesion
    body = ~(case.lungs | case.lesion) & inside & (scaled > 0.6)
    lesion = int(case.lesion.sum())
    return {
        "name": case.name,
        "cropped": cropped,
        "no_lung_found": not mask.any(),
        "lesion": lesion,
        "lesion_in_box": int((case.lesion & inside).sum()),
        "lesion_in_hull": int((case.lesion & hull).sum()),
        "hull_share": float(hull.mean()),
        "lungs_share": float(case.lungs.mean()),
        "box_iou": float((inside & true_box).sum() / (inside | true_box).sum()),
        "mask_dice": float(
            2 * ((mask > 0) & case.lungs).sum() / max(1, (mask > 0).sum() + case.lungs.sum())
        ),
        "lung_median": float(np.median(scaled[healthy])) if healthy.any() else None,
        "lesion_median": float(np.median(scaled[case.lesion])) if lesion else None,
        "soft_tissue_median": float(np.median(scaled[body])) if body.any() else None,
        "fallback": scale.fallback,
        "seconds": {"mask": seconds, "hull": hull_seconds, "grey_scale": grey_seconds},
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares over a source's slices."""
    total = sum(row["lesion"] for row in rows)

    def spread(key: str) -> tuple[float, float]:
        values = [row[key] for row in rows if row[key] is not None]
        return float(np.mean(values)), float(np.std(values))

    wrong = [
        row["name"]
        for row in rows
        if row["box_iou"] < 0.7 or row["lesion_in_box"] < 0.99 * row["lesion"]
    ]
    return {
        "slices": len(rows),
        "cropped": sum(row["cropped"] for row in rows),
        "no_lung_found": sum(row["no_lung_found"] for row in rows),
        "lesion_in_box": sum(row["lesion_in_box"] for row in rows) / total,
        "lesion_in_hull": sum(row["lesion_in_hull"] for row in rows) / total,
        "hull_below_0.99": sum(row["lesion_in_hull"] < 0.99 * row["lesion"] for row in rows),
        "hull_over_lungs": sum(row["hull_share"] for row in rows)
        / sum(row["lungs_share"] for row in rows),
        "mask_dice": spread("mask_dice"),
        "wrong_boxes": wrong,
        "lung": spread("lung_median"),
        "lesion": spread("lesion_median"),
        "soft_tissue": spread("soft_tissue_median"),
        "fallbacks": sum(row["fallback"] is not None for row in rows),
        "ms": {
            key: round(1000 * float(np.median([row["seconds"][key] for row in rows])), 1)
            for key in rows[0]["seconds"]
        },
    }


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    window = arguments.data / "coronacases_window"
    sources = {
        "radiopaedia": volumes(arguments.data / "radiopaedia"),
        "radiopaedia_window": pictures(arguments.data / "radiopaedia_window"),
        "coronacases_window": pictures(window),
        "coronacases in HU": in_hounsfield(window, framed=False),
        "coronacases in HU, framed": in_hounsfield(window, framed=True),
    }
    results = {}
    for source, cases in sources.items():
        rows = [row for run in patients(cases) for row in measure(run)]
        results[source] = {"summary": summary(rows), "slices": rows}
        print(source, json.dumps(results[source]["summary"]))
    arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
