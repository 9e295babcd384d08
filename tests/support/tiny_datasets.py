"""One tiny healthy dataset in each layout that is recognised, of every file format."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.synthetic import write_dicom_series, write_nifti

Pairs = tuple[tuple[str, str], ...]  # image and mask, within the folder

_TRAIN, _TEST = "TrainingSet/LungInfection-Train/Doctor-label", "TestingSet/LungInfection-Test"
PAIRS: dict[str, Pairs] = {
    "MedSeg": (
        ("tr_im.nii.gz", "tr_mask.nii.gz"),
        ("rp_im/1.nii.gz", "rp_msk/1.nii.gz"),
        ("rp_im/2.nii", "rp_msk/2.nii"),
    ),
    "COVID-SemiSeg": (
        (f"{_TRAIN}/Imgs/1.jpg", f"{_TRAIN}/GT/1.png"),
        (f"{_TRAIN}/Imgs/2.png", f"{_TRAIN}/GT/2.png"),
        (f"{_TEST}/Imgs/3.jpg", f"{_TEST}/GT/3.png"),
    ),
    "pairs": (
        ("images/series", "masks/series.nii.gz"),
        ("images/flat.png", "masks/flat_mask.png"),
        ("images/deep.tif", "masks/deep.bmp"),
        ("images/volume.nii", "masks/volume.nii.gz"),
    ),
    "nnU-Net": (
        ("imagesTr/case_1_0000.nii.gz", "labelsTr/case_1.nii.gz"),
        ("imagesTr/case_2_0000.nii.gz", "labelsTr/case_2.nii.gz"),
        ("imagesTs/case_3_0000.nii.gz", "labelsTs/case_3.nii.gz"),
    ),
    "MosMedData": (
        ("studies/CT-1/study_0001.nii.gz", "masks/study_0001_mask.nii.gz"),
        ("studies/CT-2/study_0002.nii", "masks/study_0002_mask.nii"),
    ),
    "COVID-19-CT-Seg": (
        ("COVID-19-CT-Seg_20cases/coronacases_001.nii.gz", "Infection_Mask/coronacases_001.nii.gz"),
        (
            "COVID-19-CT-Seg_20cases/radiopaedia_10_85902_1.nii.gz",
            "Infection_Mask/radiopaedia_10_85902_1.nii.gz",
        ),
    ),
}
TEXTS: dict[str, dict[str, str]] = {
    "MedSeg": {"patients.csv": "volume,slice,patient\ntr_im,1,Doe\n1,,Doe\n2,,Roe\n"},
    "COVID-SemiSeg": {"patients.csv": "volume,slice,patient\ntrain/1,,Doe\ntrain/2,,Roe\n"},
    "pairs": {"patients.csv": "volume,slice,patient\nseries,,Doe\nflat,,Roe\n"},
    "nnU-Net": {
        "dataset.json": '{"labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}'
    },
}
_SERIES_AFFINE = np.diag([-0.7, -0.8, 2.0, 1.0])  # of the DICOM series, as nibabel counts


def write_dataset(name: str, root: Path) -> Path:
    """Every scan has a size of its own, and some lesion in every slice."""
    for number, (image, mask) in enumerate(PAIRS[name]):
        rng = np.random.default_rng(number)
        is_picture = Path(image).suffix in (".png", ".jpg", ".tif")
        slices = 1 if is_picture else 4
        shape = slices, 14 + number, 17 - 2 * number
        pixels = rng.integers(0, 256, shape) if is_picture else rng.integers(-1000, 400, shape)
        lesion = np.indices(shape).sum(axis=0) % 7 == 0
        _write_image(root / image, pixels)
        _write_mask(root / mask, lesion, series=not Path(image).suffix)
    for text, content in TEXTS.get(name, {}).items():
        (root / text).write_text(content)
    return root


def places(root: Path) -> Iterator[tuple[str, str, str]]:
    """Layout, place in the dataset and what it is, of all places of ``root / layout``."""
    for layout, pairs in PAIRS.items():
        for image, mask in pairs:
            for slice_file in sorted((root / layout / image).glob("*.dcm")):
                yield layout, f"{image}/{slice_file.name}", "dicom slice"
            if Path(image).suffix:
                yield layout, image, _format(image)
            yield layout, mask, f"{_format(mask)} mask"
        for text in TEXTS.get(layout, {}):
            yield layout, text, text
        for path in sorted((root / layout).rglob("*")):
            if path.is_dir():
                yield layout, str(path.relative_to(root / layout)), "folder"


def _format(path: str) -> str:
    return "nifti" if path.endswith((".nii", ".nii.gz")) else "picture"


def _write_image(path: Path, pixels: np.ndarray) -> None:
    if _format(path.name) == "nifti":
        write_nifti(path, pixels.astype(np.int16))
    elif path.suffix:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[0].astype(np.uint8)).save(path)
    else:
        write_dicom_series(path, pixels.astype(np.int16), (0.8, 0.7))


def _write_mask(path: Path, lesion: np.ndarray, series: bool) -> None:
    if _format(path.name) == "nifti":
        affine = {"affine": _SERIES_AFFINE} if series else {}
        write_nifti(path, lesion.astype(np.uint8), **affine)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.uint8(255) * lesion[0]).save(path)
