"""NRRD and MetaImage (MHA, MHD) volumes; the only module that imports SimpleITK."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Num

from covid_jax.errors import DataError
from covid_jax.files import require_file

_TO_NIFTI = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK counts to the left and to the back


def read_itk(path: Path) -> tuple[Num[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """A volume's array, and its affine as NIfTI counts: right, front, up, in mm.

    Raises:
      DataError: if SimpleITK is not installed, or the file is missing, damaged, coloured or not
        3-D.
    """
    try:
        import SimpleITK as sitk  # noqa: N813
    except ImportError as error:
        need = 'NRRD and MetaImage files need SimpleITK: pip install "covid_jax[itk]"'
        raise DataError(f"{path}: {need}") from error
    require_file(path)
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].rpartition("): ")[2]
        raise DataError(f"{path}: not a readable NRRD or MetaImage file ({reason})") from error
    axes, values = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if (axes, values) != (3, 1):
        found = f"{axes}-D with {values} values a voxel"
        raise DataError(f"{path}: expected a 3-D image of grey values, found {found}")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), _TO_NIFTI @ affine
