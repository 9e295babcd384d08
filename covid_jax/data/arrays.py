"""Checks of slices and masks that a user gives as arrays; messages name the array."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Num, Shaped, UInt8

from covid_jax.errors import DataError, shorten


def real_array(values: Any, name: str) -> Shaped[np.ndarray, "..."]:
    """An array of integers, floats or booleans (0 and 1).

    Raises:
      DataError: if it is not an array of numbers, or some of them are masked.
    """
    if hidden := np.ma.count_masked(values) if np.ma.isMaskedArray(values) else 0:
        raise DataError(f"{name}: {hidden} pixels are masked; give them a value (filled)")
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # rows of several lengths; torch's own
        raise DataError(f"{name}: no array ({error})") from error
    if array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.floating):  # bfloat16, float8
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected real numbers, found {array.dtype}")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def slice_array(values: Any, name: str) -> Num[np.ndarray, "h w"]:
    """The intensities of a slice: whole numbers, or float32; a read-only view.

    Raises:
      DataError: if the array is empty, not numeric, not 2-D, or has values that are NaN or infinite
        in float32.
    """
    array = real_array(values, name)
    if array.ndim != 2 or not array.size:
        raise DataError(f"{name}: expected a slice (H, W), found shape {array.shape}")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise DataError(f"{name}: has NaN or infinite pixels, or some beyond float32")
    return np.broadcast_to(array, array.shape)


def mask_array(
    values: Any, shape: tuple[int, ...], classes: int, name: str
) -> UInt8[np.ndarray, "h w"]:
    """The class ids of a slice of this shape; a read-only view.

    Raises:
      DataError: if the array is not numeric, some pixels are masked, the shape differs, or a value
        is neither 0 nor the number of a class.
    """
    labels = real_array(values, name)
    if labels.shape != shape:
        raise DataError(f"{name}: its shape {labels.shape} differs from its image's, {shape}")
    if (unknown := np.setdiff1d(labels, np.arange(1 + classes))).size:
        found = shorten(map(str, unknown))
        raise DataError(f"{name}: unknown labels {found}; expected booleans, or 0 to {classes}")
    return np.broadcast_to(labels.astype(np.uint8), shape)


def spacing_pair(spacing: Any, name: str) -> tuple[float, float] | None:
    """The spacing of rows and columns in mm; None if unknown.

    Raises:
      DataError: if it is not two numbers above 0.
    """
    if spacing is None:
        return None
    if np.shape(spacing) != (2,) or not all(0 < size < np.inf for size in spacing):
        raise DataError(f"{name}: {spacing}; expected mm of rows and columns, both above 0")
    return float(spacing[0]), float(spacing[1])
