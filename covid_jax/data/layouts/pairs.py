"""Any folder of images and masks that belong together by their names."""

import re
from pathlib import Path

from covid_jax.data.layouts import folders
from covid_jax.data.layouts.folders import entries, find_files, subfolder, unique
from covid_jax.data.scan import Listing, ScanFiles
from covid_jax.errors import DataError, plural
from covid_jax.io.formats import DICOM, JPEG, PICTURES, VOLUMES, stem_of
from covid_jax.transforms.labels import LESION

NAME = "image/mask pairs"
LOOKED_FOR = (
    "images/NAME and masks/NAME or masks/NAME_mask, or NAME and NAME_mask in one folder; "
    "healthy/NAME: no mask, no lesion "
    "(NIfTI, NRRD, MHA, PNG, TIFF; images also JPEG, or DICOM: a file or a folder each)"
)
_IMAGES = ("images", "image", "imgs", "img", "scans", "slices", "ct", "cts")
_MASKS = (
    *("masks", "mask", "labels", "label", "gt", "ground_truth", "annotations", "annotation"),
    *("segmentations", "segmentation", "segs", "seg"),
)
_HEALTHY = ("healthy",)
_MASK_FILES = (*VOLUMES, *PICTURES)
_IMAGE_FILES = (*_MASK_FILES, *DICOM)
_TAGGED = re.compile(r"(.+)[_-](?:masks?|labels?|segs?|segmentation|gt)", re.IGNORECASE)


def recognises(root: Path) -> bool:
    """Whether there are folders of images and masks, or files called masks."""
    if subfolder(root, _HEALTHY) or (subfolder(root, _IMAGES) and subfolder(root, _MASKS)):
        return True
    return any(_TAGGED.fullmatch(stem_of(path, _MASK_FILES) or "") for path in entries(root))


def list_scans(root: Path, classes: tuple[str, ...]) -> Listing:
    """NIfTI, ITK and DICOM scans are volumes; a mask's 1, and in pictures 255, is lesion."""
    folder, mask_folder = subfolder(root, _IMAGES), subfolder(root, _MASKS)
    if folder and mask_folder:
        layout = f"{NAME} in {folder.name}/ and {mask_folder.name}/"
        images, masks = _images(folder), folders.require_files(mask_folder, _MASK_FILES)
    else:
        layout, mask_folder = f"{NAME} side by side", root
        files = find_files(root, _IMAGE_FILES)
        masks = {stem: path for stem, path in files.items() if _TAGGED.fullmatch(stem)}
        images = {stem: path for stem, path in files.items() if stem not in masks}
    for path in masks.values():
        if stem_of(path, JPEG) is not None:
            raise DataError(f"{path}: JPEG blurs a mask's values; save masks as PNG or NIfTI")
    # Of a mask's name, an ending such as _mask is left out.
    named = ((stem if stem in images else _TAGGED.sub(r"\1", stem), p) for stem, p in masks.items())
    healthy = subfolder(root, _HEALTHY)
    unmasked = _images(healthy) if healthy else {}
    source = folders.full_path(root).name
    listed: list[tuple[str, Path, Path | None]]
    listed = [*folders.pair(images, unique(named), mask_folder)]
    listed += [(f"healthy/{name}", image, None) for name, image in unmasked.items()]
    scans = tuple(
        ScanFiles(name, source, image, mask, _labels(mask), volume=_is_volume(image))
        for name, image, mask in listed
    )
    note = f"{plural(len(unmasked), 'scan')} in {healthy}: declared free of lesions, no masks"
    return Listing(f"{layout} ({len(scans)} scans)", scans, (note,) * bool(unmasked))


def _images(folder: Path) -> dict[str, Path]:
    """Files, and folders as DICOM series, by name."""
    inner = [path for path in entries(folder) if path.is_dir()]
    series = ((folders.normal(stem_of(path, _IMAGE_FILES) or path.name), path) for path in inner)
    if not (images := unique((*find_files(folder, _IMAGE_FILES).items(), *series))):
        raise DataError(f"{folder}: no images here; known are {', '.join(_IMAGE_FILES)} and DICOM")
    return images


def _is_volume(path: Path) -> bool:
    return path.is_dir() or stem_of(path, VOLUMES) is not None


def _labels(mask: Path | None) -> dict[int, str]:
    return {1: LESION} if mask is None or _is_volume(mask) else {1: LESION, 255: LESION}
