"""COVID-19-CT-Seg (Ma et al. 2021), Zenodo 3757476: ten Coronacases and ten Radiopaedia volumes."""

import re
from pathlib import Path

from covid_jax.data.layouts.folders import pair, require_files, subfolder, unique
from covid_jax.data.scan import Listing, ScanFiles
from covid_jax.errors import DataError
from covid_jax.io.formats import NIFTI

NAME = "COVID-19-CT-Seg"
LOOKED_FOR = "COVID-19-CT-Seg_20cases/*.nii.gz and Infection_Mask/*.nii.gz (Zenodo 3757476)"
_IMAGES = ("covid-19-ct-seg_20cases", "ct_scans")  # the latter as mirrored on Kaggle
_MASKS = ("infection_mask",)
# The names in the archive, and the files' earlier names, which some programs unpack them to:
# case009, coronacases_org_001, radiopaedia_org_covid-19-pneumonia-10_85902_1-dcm.
_CORONACASES = re.compile(r"(?:coronacases_)?(?:org_)?(?:case)?(\d+)")
_RADIOPAEDIA = re.compile(r"radiopaedia_(?:org_covid-19-pneumonia-)?(\d+)_(\d+)_(\d+)(?:-dcm)?")


def recognises(root: Path) -> bool:
    """Whether its images and infection masks are there; lung masks are of no use here."""
    return bool(subfolder(root, _IMAGES) and subfolder(root, _MASKS))


def list_scans(root: Path, classes: tuple[str, ...]) -> Listing:
    """All volumes; several studies of a Radiopaedia case are one patient."""
    images = _volumes(subfolder(root, _IMAGES) or root)
    folder = subfolder(root, _MASKS) or root
    scans = []
    for name, image, mask in pair(images, _volumes(folder), folder):
        source, case = name.split("_")[:2]  # of radiopaedia_CASE_STUDY_SERIES
        patient = f"{source}_{case}"
        scans += [ScanFiles(name, source.capitalize(), image, mask, patient=patient, volume=True)]
    return Listing(f"{NAME}, Zenodo 3757476 ({len(scans)} volumes)", tuple(scans))


def _volumes(folder: Path) -> dict[str, Path]:
    """Files by the archive's names; they may be in an inner folder of the same name."""
    folder = subfolder(folder, [folder.name.lower()]) or folder
    return unique((_case(stem, path), path) for stem, path in require_files(folder, NIFTI).items())


def _case(stem: str, path: Path) -> str:
    if match := _CORONACASES.fullmatch(stem):
        return f"coronacases_{match[1]}"
    if match := _RADIOPAEDIA.fullmatch(stem):
        return f"radiopaedia_{'_'.join(match.groups())}"
    raise DataError(f"{path}: expected a name such as coronacases_001 or radiopaedia_10_85902_1")
