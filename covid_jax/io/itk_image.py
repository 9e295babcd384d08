"""NRRD and MetaImage (MHA, MHD) volumes; the only module that imports SimpleITK."""

from pathlib import Path

import numpy as np

from covid_jax.errors import DataError
from covid_jax.files import reading, require_file
from covid_jax.io.geometry import Geometry, Stack, as_displayed
from covid_jax.io.itk_header import check_voxels, read_itk_header

_TO_NIFTI = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK counts to the left and to the back


def read_itk(path: Path, like: Geometry | None = None) -> tuple[Stack, Geometry]:
    """Reads a volume; argument and result are those of ``nifti.read_stack``.

    Raises:
      DataError: if SimpleITK is not installed, or the file is missing, damaged, coloured or not
        3-D, has its voxels in another folder, or is a mask that has other axes than ``like`` and
        is placed elsewhere.
    """
    try:
        import SimpleITK as sitk  # noqa: N813
    except ImportError as error:
        need = 'NRRD and MetaImage files need SimpleITK: pip install "covid_jax[itk]"'
        raise DataError(f"{path}: {need}") from error
    require_file(path)
    with reading(path):
        header = read_itk_header(path)
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].rpartition("): ")[2]
        raise DataError(f"{path}: not a readable NRRD or MetaImage file ({reason})") from error
    axes, voxels = image.GetDimension(), image.GetPixelIDTypeAsString()
    if axes != 3 or voxels.startswith(("vector", "complex")):
        found = f"{axes}-D, each voxel a {voxels}"
        raise DataError(f"{path}: expected a 3-D image of grey values, found {found}")
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = sitk.GetArrayFromImage(image)
    with reading(path):
        check_voxels(path, header, voxels)
    array = voxels.transpose(2, 1, 0)
    geometry = Geometry(_TO_NIFTI @ affine, array.shape, oriented=True)
    return as_displayed(array, geometry, str(path), like)
