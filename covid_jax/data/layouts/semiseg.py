"""COVID-SemiSeg (Fan et al. 2020): pictures with binary or multi-class masks, a published split."""

from pathlib import Path
from typing import Literal

from covid_jax.data.layouts.folders import Pairs, pair, require_files
from covid_jax.data.scan import Listing, ScanFiles
from covid_jax.io.formats import LOSSLESS, PICTURES
from covid_jax.transforms.labels import LESION

NAME = "COVID-SemiSeg"
_PARTS: tuple[tuple[Literal["train", "test"], str, str], ...] = (
    (
        "train",
        "TrainingSet/LungInfection-Train/Doctor-label",
        "TrainingSet/MultiClassInfection-Train",
    ),
    ("test", "TestingSet/LungInfection-Test", "TestingSet/MultiClassInfection-Test"),
)
LOOKED_FOR = " and ".join(f"{binary}/{{Imgs,GT}}" for _, binary, _ in _PARTS)


def recognises(root: Path) -> bool:
    """Whether either half of it is there; both are needed."""
    return any((root / half).is_dir() for half in ("TrainingSet", "TestingSet"))


def list_scans(root: Path, classes: tuple[str, ...]) -> Listing:
    """Binary masks; those of ground-glass and consolidation where classes are asked for."""
    many = bool(set(classes) - {LESION})
    labels = {1: "ground_glass", 2: "consolidation"} if many else {255: LESION}
    scans = [
        ScanFiles(f"{part}/{name}", NAME, image, mask, labels, published=part)
        for part, binary, multiple in _PARTS
        for name, image, mask in _pictures(root / binary, root / (multiple if many else binary))
    ]
    train = sum(scan.published == "train" for scan in scans)
    layout = f"{NAME} ({train} training and {len(scans) - train} test slices, published split"
    return Listing(f"{layout}; multi-class masks)" if many else f"{layout})", tuple(scans))


def _pictures(folder: Path, labelled: Path) -> Pairs:
    images = require_files(folder / "Imgs", PICTURES)
    masks = require_files(labelled / "GT", LOSSLESS)
    return pair(images, masks, labelled / "GT")
