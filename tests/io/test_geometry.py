"""Geometries against nibabel's orientations and distances worked out by hand."""

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from covid_jax.io.geometry import Geometry, has_directions, offset_mm

# Of a scan stored L-P-S: columns 0.5 mm apart, rows 0.75 mm, slices 4 mm; 101 x 81 x 11 voxels.
SIZES = (0.5, 0.75, 4.0)
SHAPE = (101, 81, 11)
LPS = np.diag([-0.5, -0.75, 4.0, 1.0])


def turned(rng: np.random.Generator, most_degrees: float) -> np.ndarray:
    """An affine whose axes are permuted and flipped, then tilted together about some direction."""
    direction = rng.normal(size=3)
    angle = np.deg2rad(rng.uniform(0, most_degrees))
    tilt = Rotation.from_rotvec(angle * direction / np.linalg.norm(direction)).as_matrix()
    axes = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], size=3)
    affine = np.eye(4)
    affine[:3, :3] = tilt @ axes @ np.diag(rng.uniform(0.5, 5.0, size=3))
    affine[:3, 3] = rng.normal(0, 100, size=3)
    return affine


def moved(affine: np.ndarray, *mm: float) -> np.ndarray:
    """To the right, to the front and up."""
    result = affine.copy()
    result[:3, 3] += mm
    return result


def test_nearest_axes_are_nibabels_up_to_45_degrees() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(500):
        affine = turned(rng, 45.0)
        directions = Geometry(affine, SHAPE, oriented=True).directions()
        assert directions == "-".join(nib.aff2axcodes(affine))
        seen.add(directions)
    assert len(seen) == 48


def test_nearest_axes_do_not_depend_on_voxel_sizes() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        affine = turned(rng, 180.0)
        directions = Geometry(affine, SHAPE, oriented=True).directions()
        affine[:3, :3] *= rng.uniform(0.2, 5.0, size=3)
        assert Geometry(affine, SHAPE, oriented=True).directions() == directions


def test_a_tilted_gantry_keeps_its_axes() -> None:
    """Slices that slide 4 mm * tan(25 degrees) to the back each, as a sheared affine says."""
    affine = LPS.copy()
    affine[1, 2] = -4.0 * np.tan(np.deg2rad(25.0))
    assert Geometry(affine, SHAPE, oriented=True).directions() == "L-P-S"


def test_stack_and_back_is_the_array() -> None:
    rng = np.random.default_rng(1)
    array = rng.permutation(60).reshape(5, 4, 3).astype(np.int32)
    for _ in range(200):
        affine = turned(rng, 45.0)
        geometry = Geometry(affine, array.shape, oriented=True)
        canonical = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
        stack = np.asarray(canonical.dataobj)[::-1, ::-1].transpose(2, 1, 0)
        np.testing.assert_array_equal(geometry.to_stack(array), stack)
        np.testing.assert_array_equal(geometry.from_stack(stack), array)


def test_without_orientation_the_stack_is_the_transpose() -> None:
    array = np.arange(60).reshape(5, 4, 3)
    geometry = Geometry(np.diag([2.0, 3.0, 4.0, 1.0]), array.shape, oriented=False)
    np.testing.assert_array_equal(geometry.to_stack(array), array.T)
    np.testing.assert_array_equal(geometry.from_stack(array.T), array)
    assert geometry.spacing == (4.0, 3.0, 2.0)
    assert geometry.directions() == "L-P-S"


def test_spacing_is_the_stacks_whatever_the_axes() -> None:
    """Array axes: up 4 mm, to the right 0.5 mm, to the back 0.75 mm."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 4.0, 0.5, -0.75, 1.0
    assert Geometry(affine, (11, 101, 81), oriented=True).spacing == (4.0, 0.75, 0.5)


def test_corners_are_the_displayed_stacks() -> None:
    """A coronal scan: array axes right, down, back; the lowest slice's front row comes first."""
    affine = np.array([[1.0, 0, 0, 10], [0, 0, -2, 20], [0, -3, 0, 30], [0, 0, 0, 1]])
    corners = Geometry(affine, (5, 4, 3), oriented=True).corners()
    right, left, front, back, low, high = 14.0, 10.0, 20.0, 16.0, 21.0, 30.0
    expected = [(x, y, z) for z in (low, high) for y in (front, back) for x in (right, left)]
    np.testing.assert_allclose(corners, expected)


def test_a_lost_origin_is_its_distance() -> None:
    image = Geometry(moved(LPS, 30.0, -40.0, 120.0), SHAPE, oriented=True)
    assert offset_mm(Geometry(LPS, SHAPE, oriented=True), image) == pytest.approx(130.0)


def test_a_lost_voxel_size_is_the_far_corners_distance() -> None:
    """1 mm instead of 0.5, 0.75 and 4 mm over 100, 80 and 10 voxels: 50, 20 and 30 mm."""
    image = Geometry(LPS, SHAPE, oriented=True)
    mask = Geometry(np.diag([-1.0, -1.0, 1.0, 1.0]), SHAPE, oriented=True)
    expected = np.sqrt(50.0**2 + 20.0**2 + 30.0**2)
    assert offset_mm(mask, image) == pytest.approx(expected)


@pytest.mark.parametrize(("axis", "size"), list(enumerate(SIZES)))
def test_half_a_voxel_of_rounding_is_none(axis: int, size: float) -> None:
    image = Geometry(LPS, SHAPE, oriented=True)
    for share in (0.49, 0.51):
        shift = [0.0, 0.0, 0.0]
        shift[axis] = share * size
        offset = offset_mm(Geometry(moved(LPS, *shift), SHAPE, oriented=True), image)
        assert offset == pytest.approx(0.0 if share < 0.5 else share * size)


def test_one_grid_stored_in_two_ways_lies_together() -> None:
    image = Geometry(LPS, SHAPE, oriented=True)
    stored = nib.as_closest_canonical(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), LPS))
    mask = Geometry(stored.affine, stored.shape, oriented=True)
    assert mask.directions() == "R-A-S"
    assert offset_mm(mask, image) == 0.0


@pytest.mark.parametrize(
    ("column", "verdict"),
    [
        ((0.0, 0.0, 4.0), True),
        ((0.0, 3.0, 4.0), True),
        ((0.0, 0.0, 0.0), False),
        ((-0.5, 0.0, 0.0), False),  # the first axis again
        ((-0.5, -0.75, 0.0), False),  # in the plane of the other two
        ((0.0, 0.0, np.nan), False),
        ((0.0, 0.0, np.inf), False),
        ((0.0, 0.0, 1e30), False),
        ((0.0, 0.0, 1e-30), False),
    ],
)
def test_three_axes_must_span_space(column: tuple[float, ...], verdict: bool) -> None:
    affine = LPS.copy()
    affine[:3, 2] = column
    assert has_directions(affine) is verdict


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_place_must_be_one(value: float) -> None:
    assert not has_directions(moved(LPS, value, 0.0, 0.0))
