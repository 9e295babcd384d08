"""Any scan by its name: a NIfTI file, a DICOM series or a picture, as slices a network can take."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from jaxtyping import Num

from covid_jax.data.layouts.folders import NIFTI, PICTURES
from covid_jax.errors import DataError
from covid_jax.io.dicom import read_series
from covid_jax.io.geometry import Geometry
from covid_jax.io.image_files import read_picture
from covid_jax.io.nifti import read_stack


def read_scan(
    path: Path, series: Collection[str] = ()
) -> tuple[Num[np.ndarray, "n h w"], Geometry | None]:
    """Reads a scan whole, its values checked.

    Args:
      path: a file that ends as a NIfTI file or a picture does; all else is a DICOM series' folder
        or one of its files.
      series: SeriesInstanceUIDs, one of which is taken where a folder holds several.

    Returns:
      Raw intensities, slices as displayed, of at most 32 bits; and how they lie in space, None for
      a picture.

    Raises:
      DataError: if the file is unreadable, or has pixels that are NaN or infinite in float32.
    """
    geometry = None
    if path.name.lower().endswith(NIFTI):
        stack, geometry = read_stack(path)
    elif path.name.lower().endswith(PICTURES) and not path.is_dir():
        stack = read_picture(path)[None]
    else:
        stack, geometry = read_series(path, series)
    if stack.dtype.itemsize > 4:
        whole = stack.dtype.kind in "ui" and stack.min() >= -(2**31) and stack.max() < 2**31
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite to the network
            stack = stack.astype(np.int32 if whole else np.float32)
    if stack.dtype.kind == "f" and (bad := sum(np.count_nonzero(~np.isfinite(s)) for s in stack)):
        raise DataError(f"{path}: {bad} pixels are NaN or infinite; mend or remove the file")
    return stack, geometry
