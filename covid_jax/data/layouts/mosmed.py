"""MosMedData (Morozov et al. 2020): 1110 studies, of which 50 have a mask."""

from pathlib import Path

from covid_jax.data.layouts.folders import entries, find_files, pair, require_files, unique
from covid_jax.data.scan import Listing, ScanFiles
from covid_jax.errors import DataError
from covid_jax.io.formats import NIFTI

NAME = "MosMedData"
LOOKED_FOR = "studies/CT-1/study_N.nii.gz and masks/study_N_mask.nii.gz"


def recognises(root: Path) -> bool:
    """Whether studies and masks are there."""
    return (root / "studies").is_dir() and (root / "masks").is_dir()


def list_scans(root: Path, classes: tuple[str, ...]) -> Listing:
    """The studies that have a mask; each is of another patient."""
    grades = [folder for folder in entries(root / "studies") if folder.is_dir()]
    studies = unique(item for grade in grades for item in find_files(grade, NIFTI).items())
    files = require_files(root / "masks", NIFTI)
    masks = unique((stem.removesuffix("_mask"), path) for stem, path in files.items())
    if not studies:
        raise DataError(f"{root / 'studies'}: no studies in folders such as CT-1 here")
    labelled = {name: path for name, path in studies.items() if name in masks}
    scans = tuple(
        ScanFiles(f"{image.parent.name}/{name}", NAME, image, mask, patient=name, volume=True)
        for name, image, mask in pair(labelled, masks, root / "masks")
    )
    left_out = len(studies) - len(scans)
    note = f"{left_out} of {len(studies)} studies have no mask and were left out"
    return Listing(f"{NAME} ({len(scans)} volumes)", scans, (note,) * bool(left_out))
