"""Which folder is which dataset: recognised by looking, opened as one SliceDataset."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Num

from covid_jax.data.dataset import Slice, SliceDataset
from covid_jax.data.images import read_picture
from covid_jax.data.nifti import read_stack
from covid_jax.data.patients import read_patients
from covid_jax.errors import DataError

_SEMISEG_TRAIN = "TrainingSet/LungInfection-Train/Doctor-label"
_SEMISEG_TEST = "TestingSet/LungInfection-Test"
_MEDSEG_LABELS = (0, 1, 2, 3)
_LAYOUTS = f"""\
  MedSeg Dataset-1   tr_im.nii.gz and tr_mask.nii.gz
  MedSeg Dataset-2   rp_im/N.nii.gz and rp_msk/N.nii.gz (alone, or beside Dataset-1)
  COVID-SemiSeg      {_SEMISEG_TRAIN}/{{Imgs,GT}} and {_SEMISEG_TEST}/{{Imgs,GT}}"""


def open_dataset(
    path: str | Path, image_size: int = 512, *, lesion_slices_only: bool = True
) -> SliceDataset:
    """Opens a dataset folder whatever its layout.

    Args:
      path: the folder; its layout is recognised by the names in it.
      image_size: side of the square grid the network sees, in pixels.
      lesion_slices_only: leave out Dataset-2's slices without lesion, as the paper does.

    Raises:
      DataError: on a missing folder, an unknown layout (saying what was looked for), or an image
        and mask that cannot be used (naming the file).
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if (root / "TrainingSet").is_dir() or (root / "TestingSet").is_dir():
        return _open_semiseg(root, image_size)
    if (root / "tr_im.nii.gz").exists() or (root / "rp_im").is_dir():
        return _open_medseg(root, image_size, lesion_slices_only)
    found = sorted(item.name for item in root.iterdir())[:6]
    raise DataError(
        f"{root}: no dataset of a known layout here. Looked for:\n{_LAYOUTS}\n"
        f"Found: {', '.join(found) if found else 'an empty folder'}"
    )


def _open_semiseg(root: Path, image_size: int) -> SliceDataset:
    """COVID-SemiSeg (Fan et al. 2020): pictures with binary masks and a published split."""
    slices = []
    parts: tuple[tuple[Literal["train", "test"], str], ...] = (
        ("train", _SEMISEG_TRAIN),
        ("test", _SEMISEG_TEST),
    )
    for subset, folder in parts:
        for path in _numbered(root / folder / "Imgs", ".jpg"):
            mask_path = root / folder / "GT" / f"{path.stem}.png"
            _require_mask(path, mask_path)
            image, mask = read_picture(path), read_picture(mask_path)
            _check_pair(path, image, mask_path, mask, labels=(0, 255))
            mask = (mask > 128).astype(np.uint8)
            slices.append(
                Slice(f"{subset}/{path.stem}", "COVID-SemiSeg", None, subset, image, mask)
            )
    counts = [sum(item.published == subset for item in slices) for subset in ("train", "test")]
    layout = f"COVID-SemiSeg: {counts[0]} training and {counts[1]} test slices (published split)"
    return SliceDataset(layout, tuple(slices), image_size)


def _open_medseg(root: Path, image_size: int, lesion_slices_only: bool) -> SliceDataset:
    """MedSeg Dataset-1 (one stack of single slices) and Dataset-2 (Radiopaedia volumes)."""
    volumes = []
    if (root / "rp_im").is_dir():
        names = (path.name for path in _numbered(root / "rp_im", ".nii.gz"))
        volumes = [name.removesuffix(".nii.gz") for name in names]
    patients = read_patients(root / "patients.csv", {"tr_im", *volumes})
    first, second, notes = [], [], []
    if (root / "tr_im.nii.gz").exists():
        first = list(_stack_slices(root, "tr_im", "tr_mask", "Dataset-1", patients))
    if volumes and not patients:
        notes.append("no patients.csv: each Dataset-2 volume counts as one patient")
    for volume in volumes:
        if patients.get((volume, None)) is None:  # never slice by slice: a volume is one patient
            patients[volume, None] = f"volume {volume}"
        second += _stack_slices(root, f"rp_im/{volume}", f"rp_msk/{volume}", "Dataset-2", patients)
    if lesion_slices_only:
        kept = [item for item in second if item.mask.any()]
        if len(kept) < len(second):
            notes.append(
                f"{len(second) - len(kept)} of {len(second)} Dataset-2 slices have no lesion and "
                "were left out, as in the paper"
            )
        second = kept
    if (marker := root / "phantom.json").exists():
        notes.insert(0, f"synthetic phantom (seed {_phantom_seed(marker)}): no patient was scanned")
    parts = [
        f"{name} ({len(part)} slices)"
        for name, part in (("Dataset-1", first), ("Dataset-2", second))
        if part
    ]
    layout = f"MedSeg layout: {' + '.join(parts)}"
    return SliceDataset(layout, tuple(first + second), image_size, tuple(notes))


def _stack_slices(
    root: Path, image_name: str, mask_name: str, source: str, patients: dict
) -> Iterator[Slice]:
    image_path, mask_path = (root / f"{name}.nii.gz" for name in (image_name, mask_name))
    _require_mask(image_path, mask_path)
    images, geometry = read_stack(image_path)
    masks, _ = read_stack(mask_path, like=geometry)
    _check_pair(image_path, images, mask_path, masks, labels=_MEDSEG_LABELS)
    volume = image_name.removeprefix("rp_im/")
    for index, (image, mask) in enumerate(zip(images, masks.astype(np.uint8), strict=True)):
        patient = patients.get((volume, index), patients.get((volume, None)))
        yield Slice(f"{image_name}:{index:03d}", source, patient, None, image, mask)


def _numbered(folder: Path, suffix: str) -> list[Path]:
    """The folder's files of this suffix, 2 before 10."""
    paths = [path for path in folder.glob(f"*{suffix}") if not path.name.startswith(".")]
    if not paths:
        raise DataError(f"{folder}: no *{suffix} files here")
    return sorted(paths, key=lambda path: (len(path.name), path.name))


def _require_mask(image_path: Path, mask_path: Path) -> None:
    if not mask_path.exists():
        raise DataError(f"{image_path}: has no mask; expected it at {mask_path}")


def _check_pair(
    image_path: Path,
    image: Num[np.ndarray, "*shape"],
    mask_path: Path,
    mask: Num[np.ndarray, "*shape"],
    labels: tuple[int, ...],
) -> None:
    if image.shape != mask.shape:
        raise DataError(
            f"{mask_path}: its shape {mask.shape} differs from its image's, {image.shape} of "
            f"{image_path}"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite to the network
        finite = np.isfinite(image.astype(np.float32, copy=False))
    if not finite.all():
        bad = np.count_nonzero(~finite)
        raise DataError(f"{image_path}: {bad} pixels are NaN or infinite; mend or remove the file")
    unknown = np.setdiff1d(np.unique(mask), labels)
    if unknown.size:
        shown = ", ".join(f"{value:g}" for value in unknown[:5])
        raise DataError(f"{mask_path}: unknown labels {shown}; expected only {labels}")


def _phantom_seed(marker: Path) -> int:
    try:
        return int(json.loads(marker.read_text())["seed"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{marker}: damaged; remove the folder, it is drawn again") from error
