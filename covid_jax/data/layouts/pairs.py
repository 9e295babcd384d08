"""Any folder of images and masks that belong together by their names."""

import re
from collections.abc import Mapping
from pathlib import Path

from covid_jax.data.layouts.folders import (
    Pairs,
    entries,
    find_files,
    full_path,
    normal,
    pair,
    require_files,
    subfolder,
    unique,
)
from covid_jax.data.scan import Listing, ScanFiles
from covid_jax.errors import DataError, plural
from covid_jax.io.formats import DICOM, JPEG, NIFTI, PICTURES, stem_of
from covid_jax.transforms.labels import LESION

NAME = "image/mask pairs"
LOOKED_FOR = (
    "images/NAME and masks/NAME or masks/NAME_mask, or NAME and NAME_mask in one folder; "
    "healthy/NAME: no mask, no lesion "
    "(NIfTI, PNG, TIFF; images also JPEG, or DICOM: a file or a folder each)"
)
_IMAGES = ("images", "image", "imgs", "img", "scans", "slices", "ct", "cts")
_MASKS = (
    *("masks", "mask", "labels", "label", "gt", "ground_truth", "annotations", "annotation"),
    *("segmentations", "segmentation", "segs", "seg"),
)
_HEALTHY = ("healthy",)
_MASK_FILES = (*NIFTI, *PICTURES)
_IMAGE_FILES = (*_MASK_FILES, *DICOM)
_TAGGED = re.compile(r"(.+)[_-](?:masks?|labels?|segs?|segmentation|gt)", re.IGNORECASE)


def recognises(root: Path) -> bool:
    """Whether there are folders of images and masks, or files called masks."""
    if subfolder(root, _HEALTHY) or (subfolder(root, _IMAGES) and subfolder(root, _MASKS)):
        return True
    return any(_TAGGED.fullmatch(stem_of(path, _MASK_FILES) or "") for path in entries(root))


def list_scans(root: Path, classes: tuple[str, ...]) -> Listing:
    """NIfTI files and DICOM folders are volumes; a mask's 1, and in pictures 255, is lesion."""
    images, masks = subfolder(root, _IMAGES), subfolder(root, _MASKS)
    if images and masks:
        place = f"in {images.name}/ and {masks.name}/"
        pairs = list(_from_two_folders(images, masks))
    else:
        place = "side by side"
        pairs = list(_side_by_side(root))
    healthy = subfolder(root, _HEALTHY)
    without_mask = _images(healthy) if healthy else {}
    source = full_path(root).name
    scans = tuple(
        ScanFiles(
            name, source, image, mask, _labels(mask), volume=_is_nifti(image) or image.is_dir()
        )
        for name, image, mask in (
            *pairs,
            *((f"healthy/{name}", image, None) for name, image in without_mask.items()),
        )
    )
    note = f"{plural(len(without_mask), 'scan')} in {healthy}: declared free of lesions, no masks"
    return Listing(f"{NAME} {place} ({len(scans)} scans)", scans, (note,) * bool(without_mask))


def _from_two_folders(images: Path, masks: Path) -> Pairs:
    found = _images(images)
    by_name = _by_image(require_files(masks, _MASK_FILES), found)
    return pair(found, by_name, lambda name: masks / f"{name}{_mask_suffix(found[name])}")


def _images(folder: Path) -> dict[str, Path]:
    series = (
        (normal(stem_of(path, _IMAGE_FILES) or path.name), path)
        for path in entries(folder)
        if path.is_dir()
    )
    images = unique((*find_files(folder, _IMAGE_FILES).items(), *series))
    if not images:
        raise DataError(f"{folder}: no images here; known are {', '.join(_IMAGE_FILES)} and DICOM")
    return images


def _side_by_side(root: Path) -> Pairs:
    files = find_files(root, _IMAGE_FILES)
    images = {stem: path for stem, path in files.items() if not _TAGGED.fullmatch(stem)}
    masks = {stem: path for stem, path in files.items() if stem not in images}
    by_name = _by_image(masks, images)
    return pair(images, by_name, lambda name: root / f"{name}_mask{_mask_suffix(images[name])}")


def _by_image(masks: Mapping[str, Path], images: Mapping[str, Path]) -> dict[str, Path]:
    """Masks by the names of their images, what tells them apart from these left out."""
    for path in masks.values():
        if stem_of(path, JPEG) is not None:
            raise DataError(f"{path}: JPEG blurs a mask's values; save masks as PNG or NIfTI")
    return unique((stem if stem in images else _untagged(stem), p) for stem, p in masks.items())


def _untagged(stem: str) -> str:
    match = _TAGGED.fullmatch(stem)
    return match[1] if match else stem


def _mask_suffix(image: Path) -> str:
    return ".png" if stem_of(image, PICTURES) is not None else ".nii.gz"


def _is_nifti(path: Path) -> bool:
    return stem_of(path, NIFTI) is not None


def _labels(mask: Path | None) -> dict[int, str]:
    return {1: LESION} if mask is None or _is_nifti(mask) else {1: LESION, 255: LESION}
