"""COVID-SemiSeg (Fan et al. 2020): pictures with binary or multi-class masks, a published split."""

from pathlib import Path
from typing import Literal

from covid_jax.data.layouts.folders import Pairs, pair, require_files
from covid_jax.data.scan import Listing, ScanFiles
from covid_jax.io.formats import LOSSLESS, PICTURES
from covid_jax.transforms.labels import LESION

NAME = "COVID-SemiSeg"
_PARTS: dict[Literal["train", "test"], tuple[str, str, str]] = {
    "train": ("TrainingSet", "LungInfection-Train/Doctor-label", "MultiClassInfection-Train"),
    "test": ("TestingSet", "LungInfection-Test", "MultiClassInfection-Test"),
}
LOOKED_FOR = " and ".join(f"{half}/{binary}/{{Imgs,GT}}" for half, binary, _ in _PARTS.values())


def recognises(root: Path) -> bool:
    """Whether the training or the test folder exists; ``list_scans`` requires both."""
    return any((root / half).is_dir() for half, *_ in _PARTS.values())


def list_scans(root: Path, classes: tuple[str, ...]) -> Listing:
    """Binary masks; those of ground-glass and consolidation where classes are asked for."""
    many = bool(set(classes) - {LESION})
    labels = {1: "ground_glass", 2: "consolidation"} if many else {255: LESION}
    scans = [
        ScanFiles(f"{part}/{name}", NAME, image, mask, labels, published=part)
        for part, (half, binary, multiple) in _PARTS.items()
        for name, image, mask in _pictures(root / half, binary, multiple if many else binary)
    ]
    train = sum(scan.published == "train" for scan in scans)
    layout = f"{NAME} ({train} training and {len(scans) - train} test slices, published split"
    return Listing(f"{layout}; multi-class masks)" if many else f"{layout})", tuple(scans))


def _pictures(half: Path, pictures: str, labelled: str) -> Pairs:
    masks = half / labelled / "GT"
    images = require_files(half / pictures / "Imgs", PICTURES)
    return pair(images, require_files(masks, LOSSLESS), masks)
