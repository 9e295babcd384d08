"""The geometry of a file's (x, y, z) array, and how it turns into slices as displayed."""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Num, Shaped

from covid_jax.errors import DataError

# Slices go up, rows to the back, columns to the left, as seen by an affine that counts right,
# front and up.
_STACK_AXES = np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]])
_STACK_NAMES = ("SI", "PA", "LR")

Stack = Num[np.ndarray, "n h w"]
"""Slices as displayed: from the feet up, row 0 anterior, column 0 the patient's right."""
AnyStack = Shaped[np.ndarray, "n h w"]  # booleans too


@dataclass(frozen=True, eq=False)  # == would compare arrays
class Geometry:
    """The geometry of a file's (x, y, z) array.

    Attributes:
      affine: (4, 4), voxel indices to mm, x to the patient's right, y to the front, z up.
      shape: of the file's array, (x, y, z).
      oriented: whether the file gives an orientation (a NIfTI's sform or qform code is positive).
        Without one, a stored slice's transpose is the picture.
      header: the NIfTI header it was read from; ``write_like`` copies its geometry fields. Empty
        for other formats.
    """

    affine: Float[np.ndarray, "4 4"]
    shape: tuple[int, ...]
    oriented: bool
    header: bytes = b""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Of the stack (between slices, rows, columns), in mm as the file claims."""
        dz, dy, dx = voxel_sizes(self.affine)[[*self._turn()[0]]].tolist()
        return dz, dy, dx

    def to_stack(self, array: Shaped[np.ndarray, "x y z"]) -> AnyStack:
        """Turns and transposes the file's array into slices as displayed."""
        axes, backwards = self._turn()
        return np.flip(array.transpose(axes), backwards)

    def from_stack(self, stack: AnyStack) -> Shaped[np.ndarray, "x y z"]:
        """The inverse of ``to_stack``: slices as displayed, in the file's own axis order."""
        axes, backwards = self._turn()
        return np.flip(stack, backwards).transpose(np.argsort(axes))

    def corners(self) -> Float[np.ndarray, "8 3"]:
        """Positions of the stack's corner voxels in mm, the first slice's first row first."""
        corners = np.array(list(itertools.product(*((0, length - 1) for length in self.shape))))
        displayed = self.to_stack(np.arange(8).reshape(2, 2, 2)).ravel()
        return corners[displayed] @ self.affine[:3, :3].T + self.affine[:3, 3]

    def directions(self) -> str:
        """Directions of the file's axes, such as ``L-P-S``."""
        axes, backwards = self._turn()
        letters = [name[i in backwards] for i, name in enumerate(_STACK_NAMES)]
        return "-".join(letters[i] for i in np.argsort(axes))

    @property
    def turned(self) -> bool:
        """Whether a displayed slice differs from the transpose of a stored slice."""
        return self._turn() != ((2, 1, 0), ())

    def without_shear(self) -> Float[np.ndarray, "4 4"]:
        """The affine with orthogonal axes; slice planes and the first slice's position are kept.

        ITK reads a DICOM series of slightly shifted slices in the same way.
        """
        sizes = voxel_sizes(self.affine)
        axes = self.affine[:3, :3] / sizes
        normal = np.cross(axes[:, 0], axes[:, 1])
        normal *= np.sign(normal @ axes[:, 2]) / np.linalg.norm(normal)
        left, _, right = np.linalg.svd(np.column_stack([axes[:, :2], normal]))
        straight = self.affine.copy()
        straight[:3, :3] = left @ right * (sizes * [1, 1, normal @ axes[:, 2]])
        return straight

    def _turn(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The array axis nearest to each of the stack's axes, and the stack's axes that flip."""
        if not self.oriented:
            return (2, 1, 0), ()
        cosines = _STACK_AXES @ (self.affine[:3, :3] / voxel_sizes(self.affine))
        along = range(3)
        axes = max(itertools.permutations(along), key=lambda axes: abs(cosines[along, axes]).sum())
        return axes, tuple(i for i in along if cosines[i, axes[i]] < 0)


def as_displayed(
    array: Num[np.ndarray, "x y z"], geometry: Geometry, name: str, like: Geometry | None = None
) -> tuple[Stack, Geometry]:
    """A file's array as a stack, contiguous, and the geometry it was turned by.

    Args:
      array: as stored.
      geometry: of the file.
      name: of the file, for messages.
      like: for a mask, its image's geometry. The mask's own counts only if both have an
        orientation, as many masks are saved without theirs (see ``offset_mm``).

    Raises:
      DataError: if a mask has other axes than its image, and its affine places it elsewhere.
    """
    if like is not None and not (geometry.oriented and like.oriented):
        geometry = like
    own, image = geometry.directions(), (like or geometry).directions()
    if like is not None and own != image and (offset := offset_mm(geometry, like)):
        found = f"its affine places it elsewhere than its image, {offset:.1f} mm apart"
        raise DataError(f"{name}: {found} (axes {own} against {image}); save both with one affine")
    return np.ascontiguousarray(geometry.to_stack(array)), geometry


def offset_mm(mask: Geometry, image: Geometry) -> float:
    """Distance of a mask from its image by their headers, if the slices correspond.

    Many public masks have lost their origin or voxel size but still fit their image. A program
    cannot distinguish them from the mask of another scan, so the user has to decide.

    Args:
      mask: the mask's geometry, as returned by ``read_stack(mask, like=image)``.
      image: its image's geometry, of a stack of the same shape.

    Returns:
      The largest distance between corner voxels of the two stacks, in mm; 0.0 where all are within
      half a voxel, as after rounding.
    """
    apart = mask.corners() - image.corners()
    in_voxels = np.linalg.solve(image.affine[:3, :3], apart.T)
    return float(np.linalg.norm(apart, axis=1).max()) if np.abs(in_voxels).max() > 0.5 else 0.0


def voxel_sizes(affine: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "3"]:
    """Voxel sizes along the array's axes, in mm."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def has_directions(affine: Float[np.ndarray, "4 4"]) -> bool:
    """Whether the three axes are finite, of a plausible size and linearly independent."""
    if not np.abs(affine).max() < 1e9:
        return False
    sizes = voxel_sizes(affine)  # of axes at right angles the determinant below is 1
    return bool(sizes.min() > 1e-9 and abs(np.linalg.det(affine[:3, :3] / sizes)) > 1e-3)
