"""MedSeg: Dataset-1 (one stack of single slices) and Dataset-2 (Radiopaedia volumes)."""

from pathlib import Path

from covid_jax.data.layouts.folders import Pairs, entries, find_files, pair, require_files
from covid_jax.data.scan import Listing, ScanFiles
from covid_jax.errors import DataError
from covid_jax.files import read_json
from covid_jax.io.formats import NIFTI, stem_of

NAME = "MedSeg"
LOOKED_FOR = "tr_im.nii.gz, tr_mask.nii.gz (Dataset-1); rp_im/N.nii.gz, rp_msk/N.nii.gz (Dataset-2)"
LABELS = {1: "ground_glass", 2: "consolidation", 3: "effusion"}


def recognises(root: Path) -> bool:
    """Whether either of the two datasets is there."""
    return "tr_im" in (stem_of(path, NIFTI) for path in entries(root)) or (root / "rp_im").is_dir()


def list_scans(root: Path, classes: tuple[str, ...]) -> Listing:
    """Dataset-1 (slices of some 60 unnamed patients), then the volumes of Dataset-2."""
    marker = root / "phantom.json"
    notes, layout, source = [], NAME, ""
    if marker.exists() or marker.is_symlink():
        if not isinstance(seed := read_json(marker).get("seed"), int):
            raise DataError(f"{marker}: damaged; delete the folder, it is generated again")
        notes.append(f"synthetic phantom (seed {seed}): no patient was scanned")
        layout, source = f"synthetic phantom in the {NAME} layout:", "phantom "
    stack, volumes = f"{source}Dataset-1", f"{source}Dataset-2"
    first = [ScanFiles(name, stack, image, mask, LABELS) for name, image, mask in _stack(root)]
    second = [
        ScanFiles(f"rp_im/{name}", volumes, image, mask, LABELS, f"volume {name}", volume=True)
        for name, image, mask in _volumes(root)
    ]
    if second and not (root / "patients.csv").exists():
        notes.append("no patients.csv: each Dataset-2 volume counts as one patient")
    parts = ["Dataset-1"] * bool(first) + [f"Dataset-2 ({len(second)} volumes)"] * bool(second)
    return Listing(f"{layout} {' + '.join(parts)}", (*first, *second), tuple(notes))


def _stack(root: Path) -> Pairs:
    files = find_files(root, NIFTI)
    named = ("tr_im", "tr_mask")
    images, masks = ({"tr_im": files[name]} if name in files else {} for name in named)
    return pair(images, masks, root)


def _volumes(root: Path) -> Pairs:
    images, masks = root / "rp_im", root / "rp_msk"
    if images.is_dir() or masks.is_dir():
        yield from pair(require_files(images, NIFTI), find_files(masks, NIFTI), masks)
