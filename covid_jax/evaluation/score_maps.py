"""Scores a folder of any method's probability maps by COVID-SemiSeg's protocol."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Num
from PIL import Image

from covid_jax.data.layouts.folders import require_files
from covid_jax.errors import DataError, shorten
from covid_jax.io.formats import LOSSLESS
from covid_jax.io.read_scan import read_scan
from covid_jax.metrics._validation import AnyMask, Mask
from covid_jax.metrics.covid_semiseg import SemiSegScores, semiseg_scores

_LESION_ABOVE = 128  # grey values of a truth


def read_truths(folder: Path) -> dict[str, AnyMask]:
    """Reads a folder of binary mask images, by name; grey values above 128 are lesion.

    Raises:
      DataError: if there are none, one cannot be read, or one holds class ids instead of greys.
    """
    return {name: _truth(path) for name, path in require_files(folder, LOSSLESS).items()}


def score_folder(
    folder: Path, truths: Mapping[str, AnyMask]
) -> tuple[dict[str, SemiSegScores], list[str]]:
    """COVID-SemiSeg's scores of a folder of probability maps (PNG, TIFF or BMP; white is 1).

    A map of another size than its truth is resized bicubically, as their evaluator does.

    Args:
      folder: one image for each slice, with the name of the truth: 1.png, ...
      truths: masks by name.

    Returns:
      The scores of each slice by name, in the order of the truths; and the names of the slices
      whose map was resized.

    Raises:
      DataError: if a truth has no map, a map no truth, or a map cannot be used.
    """
    files = require_files(folder, LOSSLESS)
    if missing := [name for name in truths if name not in files]:
        raise DataError(
            f"{folder}: no prediction for {len(missing)} of {len(truths)} slices "
            f"({shorten(missing)}); leaving slices out would change the mean"
        )
    if unknown := [files[name].name for name in files if name not in truths]:
        raise DataError(
            f"{folder}: {len(unknown)} of {len(files)} pictures belong to no slice "
            f"({shorten(unknown)}); move them out"
        )
    scores, resized = {}, []
    for name, truth in truths.items():
        soft_map = _soft_map(files[name])
        if soft_map.shape != truth.shape:
            soft_map = _resized(soft_map, truth.shape, files[name])
            resized.append(name)
        scores[name] = semiseg_scores(soft_map, truth)
    return scores, resized


def _truth(path: Path) -> Mask:
    values = read_scan(path)[0][0]
    if 0 < values.max() <= _LESION_ABOVE:
        raise DataError(
            f"{path}: its highest value is {values.max()}; expected black (0) and white (255)"
        )
    return values > _LESION_ABOVE


def _soft_map(path: Path) -> Num[np.ndarray, "h w"]:
    values = read_scan(path)[0][0]
    if values.dtype in (np.uint8, np.uint16):
        return values
    if np.issubdtype(values.dtype, np.floating) and values.min() >= 0 and values.max() <= 1:
        return values
    raise DataError(
        f"{path}: {values.dtype} from {values.min()} to {values.max()}; expected 8 or 16 bits a "
        "pixel, or floating point in [0, 1]"
    )


def _resized(
    values: Num[np.ndarray, "a b"], shape: tuple[int, ...], path: Path
) -> Num[np.ndarray, "h w"]:
    height, width = shape
    if values.shape == (width, height):
        raise DataError(
            f"{path}: {values.shape[0]} rows and {values.shape[1]} columns where the truth has "
            f"{height} and {width}; it lies on its side: transpose it"
        )
    picture = Image.fromarray(values.astype(np.float32))
    wider = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    if np.issubdtype(values.dtype, np.floating):
        return wider.clip(0.0, 1.0)
    return wider.round().clip(0, np.iinfo(values.dtype).max).astype(values.dtype)
