"""How much true lesion the lungs' box and hull keep, and how far one grey scale agrees.

    python benchmarks/experiments/lung_boxes.py DATA --out lung_boxes.json

DATA holds `radiopaedia/`, `radiopaedia_window/`, `coronacases_window/` and `hu_scans/`.
"""

import argparse
import csv
import itertools
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
WINDOWS = {"lung": (-1350, 150), "wide": (-1000, 1550)}  # HU at grey 0 and 255


COLUMNS = (
    "slices",
    "wrong boxes",
    "in box",
    "in hull",
    "mask Dice",
    "lung",
    "soft tissue",
    "fallbacks",
)
HEADER = f"{'source':32}" + "".join(f"{column:>13}" for column in COLUMNS)


class Case(NamedTuple):
    """One slice: its image, true lungs (None: unknown) and lesion."""

    name: str
    image: np.ndarray
    lungs: np.ndarray | None
    lesion: np.ndarray | None


def whole_slices(folder: Path) -> Iterator[Case]:
    """Radiopaedia's slices, 8-bit, in display orientation."""
    for path in sorted(folder.glob("rp_im/*.nii.gz"), key=lambda path: int(path.name[:-7])):
        parts = [read(folder / part / path.name) for part in ("rp_im", "rp_lung_msk", "rp_msk")]
        for k, (image, lung, lesion) in enumerate(zip(*parts, strict=True)):
            yield Case(f"{path.name[:-7]}_{k}", image, lung > 0, lesion > 0)


def read(path: Path) -> np.ndarray:
    """A NIfTI file (x, y, z) as slices in display orientation."""
    return np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)


def crops(folder: Path) -> Iterator[Case]:
    """Crops on their side, 8-bit."""
    for row in csv.DictReader((folder / "slices.csv").read_text().splitlines()):
        if row["kind"] == "lesion":
            image, lung, lesion = (
                picture(next((folder / part).glob(f"{row['name']}.*")))
                for part in ("images", "lungs", "masks")
            )
            yield Case(row["name"], image, lung > 127, lesion > 127)


def covid_semiseg(folder: Path) -> Iterator[Case]:
    """Crops on their side, 8-bit, without lung masks; some lungs are half consolidated."""
    for path in sorted(folder.rglob("LungInfection-*/**/Imgs/*.jpg")):
        mask = picture(path.parents[1] / "GT" / path.with_suffix(".png").name)
        yield Case(path.stem, picture(path), None, mask > 127)


def picture(path: Path) -> np.ndarray:
    """An image file in grey."""
    return np.array(Image.open(path).convert("L"))


def framed(cases: Iterator[Case], spine: int) -> Iterator[Case]:
    """Crops upright (turned by ``spine`` quarters) in a body of soft tissue with air around it."""
    for case in cases:
        body = int(np.median(case.image[case.image > np.median(case.image)]))
        yield upright(case, spine, body, 0)


def upright(case: Case, turns: int, body: int, air: int) -> Case:
    """A crop turned by quarters, in a body of a tenth and air of a fifth of its size."""
    tenth = max(case.image.shape) // 10

    def frame(part: np.ndarray | None, inner: int, outer: int) -> np.ndarray | None:
        if part is None:
            return None
        part = np.pad(np.rot90(part, turns), tenth, constant_values=inner)
        return np.pad(part, 2 * tenth, constant_values=outer)

    return Case(
        case.name, frame(case.image, body, air), frame(case.lungs, 0, 0), frame(case.lesion, 0, 0)
    )


def in_hounsfield(folder: Path) -> Iterator[list[Case]]:
    """The coronacases in HU, upright, in bodies; a volume for each patient."""
    rows = csv.DictReader((folder / "slices.csv").read_text().splitlines())
    grey = {row["name"]: float(row["soft_tissue_grey"]) for row in rows}
    for _, run in itertools.groupby(crops(folder), lambda case: case.name.split("_")[0]):
        cases = [
            upright(
                case._replace(image=-1000 + 1050 * (case.image / grey[case.name])), 1, BODY, AIR
            )
            for case in run
        ]
        shape = np.max([case.image.shape for case in cases], 0)
        yield [
            Case(case.name, *(np.pad(part, around(part.shape, shape), "edge") for part in case[1:]))
            for case in cases
        ]


def around(inner: tuple[int, ...], outer: np.ndarray) -> list[tuple[int, int]]:
    """What is to be padded for a part in the middle of a larger slice."""
    return [((b - a) // 2, b - a - (b - a) // 2) for a, b in zip(inner, outer, strict=True)]


def measure(cases: list[Case], hounsfield: bool) -> list[dict[str, Any]]:
    """What each slice of a scan keeps, and how it looks on the common scale."""
    stack = np.stack([case.image for case in cases])
    start = time.perf_counter()
    found = lungs.find_lungs(stack, hounsfield)
    middle = time.perf_counter()
    scales = grey_scale.find_grey_scales(stack, hounsfield, found.mask)
    seconds = middle - start, time.perf_counter() - middle
    return [
        {
            **measure_slice(case, found, k, scale),
            "ms": [round(1000 * spent / len(cases), 1) for spent in seconds],
        }
        for k, (case, scale) in enumerate(zip(cases, scales, strict=True))
    ]


def measure_slice(
    case: Case, found: lungs.Lungs, k: int, scale: grey_scale.GreyScale
) -> dict[str, Any]:
    """One slice against its true lungs and lesion."""
    mask, box, hull = found.mask[k], found.box(k), found.hull(k)
    scaled = scale.apply(case.image)
    row: dict[str, Any] = {
        "name": case.name,
        "cropped": bool(found.cropped[k]),
        "no_lung_found": not mask.any(),
        "fallback": scale.fallback,
        "hull_share": float(hull.mean()),
    }
    inside = filled(box, mask.shape)
    if case.lesion is not None:
        row |= {
            "lesion": int(case.lesion.sum()),
            "lesion_in_box": int((case.lesion & inside).sum()),
            "lesion_in_hull": int((case.lesion & hull).sum()),
        }
    if case.lungs is not None and case.lungs.any():
        lesion = np.zeros_like(case.lungs) if case.lesion is None else case.lesion
        truth = (
            inside if row["cropped"] else filled(lungs.lungs_box(case.lungs | lesion), mask.shape)
        )
        soft_tissue = inside & ~case.lungs & ~lesion & (scaled > 0.6)
        row |= {
            "box_iou": float((inside & truth).sum() / (inside | truth).sum()),
            "mask_dice": float(
                2 * ((mask > 0) & case.lungs).sum() / ((mask > 0).sum() + case.lungs.sum())
            ),
            "lung": float(np.median(scaled[case.lungs & ~lesion])),
            "soft_tissue": float(np.median(scaled[soft_tissue])),
        }
    return row


def filled(box: lungs.Box | None, shape: tuple[int, ...]) -> np.ndarray:
    """A box as a mask; without one the whole slice."""
    mask = np.zeros(shape, bool)
    mask[box or (slice(None), slice(None))] = True
    return mask


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares over a source's slices; a box is wrong that loses lesion or fits with IoU < 0.7."""

    def spread(key: str) -> list[float]:
        values = [row[key] for row in rows if key in row]
        return [round(float(value), 3) for value in (np.mean(values), np.std(values))]

    result: dict[str, Any] = {
        "slices": len(rows),
        "cropped": sum(row["cropped"] for row in rows),
        "no_lung_found": sum(row["no_lung_found"] for row in rows),
        "fallbacks": sum(row["fallback"] is not None for row in rows),
        "hull_share": spread("hull_share")[0],
        "ms": np.median([row["ms"] for row in rows], 0).tolist(),
        "wrong_boxes": [
            row["name"]
            for row in rows
            if row.get("box_iou", 1) < 0.7
            or row.get("lesion_in_box", 0) < 0.99 * row.get("lesion", 0)
        ],
    }
    if total := sum(row.get("lesion", 0) for row in rows):
        for part in ("box", "hull"):
            result[f"lesion_in_{part}"] = round(
                sum(row[f"lesion_in_{part}"] for row in rows) / total, 4
            )
        result["hull_loses_1_percent"] = sum(
            row["lesion_in_hull"] < 0.99 * row["lesion"] for row in rows
        )
    if any("lung" in row for row in rows):
        result |= {key: spread(key) for key in ("mask_dice", "lung", "soft_tissue")}
    return result


def line(source: str, found: dict[str, Any]) -> str:
    """A source's row of the printed table; lung and soft tissue are mapped medians, mean/sd."""
    cells = [
        str(found["slices"]),
        str(len(found["wrong_boxes"])),
        *(str(found.get(f"lesion_in_{part}", "-")) for part in ("box", "hull")),
        *("/".join(map(str, found.get(key, "-"))) for key in ("mask_dice", "lung", "soft_tissue")),
        str(found["fallbacks"]),
    ]
    return f"{source:32}" + "".join(f"{cell:>13}" for cell in cells)


def hu_scans(folder: Path) -> Iterator[tuple[str, list[Case], bool]]:
    """Whole scans in HU and as 8-bit pictures; the HU volume's lung mask counts as true."""
    for path in sorted(folder.glob("*.nii.gz")):
        volume, name = read(path), path.name[:-7]
        masks = lungs.lung_mask(volume, True) > 0

        def cases(stack: np.ndarray, name: str = name, masks: np.ndarray = masks) -> list[Case]:
            pairs = enumerate(zip(stack, masks, strict=True))
            return [Case(f"{name}_{k}", image, mask, None) for k, (image, mask) in pairs]

        yield f"{name} in HU", cases(volume), True
        for window, (low, high) in WINDOWS.items():
            grey = np.uint8(np.clip((volume - low) / (high - low), 0, 1) * 255)
            yield f"{name}, {window} window", cases(grey), False


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    data: Path = arguments.data
    radiopaedia, coronacases = data / "radiopaedia_window", data / "coronacases_window"
    singles = {
        "radiopaedia": whole_slices(data / "radiopaedia"),
        "radiopaedia_window": crops(radiopaedia),
        "coronacases_window": crops(coronacases),
        "covid_semiseg": covid_semiseg(data / "covid_semiseg"),
        "radiopaedia_window, in a body": framed(crops(radiopaedia), -1),
        "coronacases_window, in a body": framed(crops(coronacases), 1),
        "covid_semiseg, in a body": framed(covid_semiseg(data / "covid_semiseg"), -1),
    }
    results: dict[str, Any] = {}
    print(HEADER)

    def keep(source: str, rows: list[dict[str, Any]]) -> None:
        results[source] = {"summary": summary(rows), "slices": rows}
        print(line(source, results[source]["summary"]), flush=True)

    for source, cases in singles.items():
        keep(source, [row for case in cases for row in measure([case], False)])
    patients = in_hounsfield(coronacases)
    keep("coronacases in HU, in a body", [row for run in patients for row in measure(run, True)])
    for source, cases, hounsfield in hu_scans(data / "hu_scans"):
        keep(source, measure(cases, hounsfield))
    arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
