"""Lung masks, boxes and hulls: drawn bodies of known extent, and real scans."""

import csv

import numpy as np
import pytest
from PIL import Image

from covid_jax.transforms.lungs import (
    LEFT,
    RIGHT,
    find_lungs,
    is_cropped,
    lung_mask,
    lungs_box,
    lungs_hull,
)

AIR, LUNG, TISSUE = -1000, -860, 40


def body(size: int = 96) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A slice in HU with two lungs, a trachea, a table; and the right lung and the left one."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    right = ((x + 0.18) / 0.11) ** 2 + (y / 0.2) ** 2 < 1
    left = ((x - 0.18) / 0.09) ** 2 + (y / 0.2) ** 2 < 1
    image = np.full((size, size), float(AIR))
    image[(x / 0.42) ** 2 + (y / 0.32) ** 2 < 1] = TISSUE
    image[right | left] = LUNG
    image[x**2 + (y + 0.05) ** 2 < 0.02**2] = AIR
    image[int(0.9 * size) : int(0.9 * size) + 3] = 200  # a table
    return image + np.random.default_rng(0).normal(0, 10, image.shape), right, left


def volume() -> tuple[np.ndarray, np.ndarray]:
    """Twelve slices: abdomen with gas, ten of lungs, neck; and true labels."""
    image, right, left = body()
    labels = right * RIGHT + left * LEFT
    abdomen = np.where(labels > 0, TISSUE, image)
    abdomen[36:50, 36:50] = AIR
    neck = np.where(labels > 0, TISSUE, image)
    stack = np.stack([abdomen, *[image] * 10, neck])
    return stack, np.stack([labels * 0, *[labels] * 10, labels * 0]).astype(np.uint8)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def grey(image: np.ndarray, low: float = -1350, high: float = 150) -> np.ndarray:
    return np.uint8(np.clip((image - low) / (high - low), 0, 1) * 255)


def test_lungs_of_a_volume_and_their_sides():
    stack, truth = volume()
    mask = lung_mask(stack, True)
    assert mask.dtype == np.uint8
    for label in (RIGHT, LEFT):
        assert dice(mask == label, truth == label) > 0.95
    assert not mask[0].any()  # gas is no lung
    assert not mask[-1].any()  # nor is the trachea


def test_vessels_and_lesions_inside_are_kept():
    stack, _ = volume()
    stack[5, 44:52, 28:34] = TISSUE  # a dense lesion within the right lung
    assert (lung_mask(stack, True)[5, 44:52, 28:34] == RIGHT).all()


@pytest.mark.parametrize("window", [(-1350, 150), (-1000, 1550), (-1150, 350)])
def test_lungs_of_a_picture(window):
    image, right, left = body()
    found = find_lungs(grey(image, *window)[None], False)
    assert not found.cropped[0]
    assert dice(found.mask[0] == RIGHT, right) > 0.9
    assert dice(found.mask[0] == LEFT, left) > 0.9


def test_a_slice_on_its_side_has_lungs_without_sides():
    image, right, left = body()
    mask = lung_mask(np.rot90(grey(image))[None], False)[0]
    assert set(np.unique(mask)) == {0, RIGHT}
    assert dice(mask > 0, np.rot90(right | left)) > 0.9


def test_a_cropped_picture_is_left_whole():
    image, right, left = body()
    rows, columns = lungs_box(right | left, margin=0)
    crop = np.rot90(grey(image)[rows, columns])
    found = find_lungs(crop[None], False)
    assert found.cropped[0]
    assert found.box(0) == (slice(0, crop.shape[0]), slice(0, crop.shape[1]))
    assert found.hull(0).all()
    assert dice(found.mask[0] > 0, np.rot90((right | left)[rows, columns])) > 0.9


def test_a_cropped_volume_is_left_whole():
    stack, truth = volume()
    rows, columns = lungs_box(truth.max(0), margin=0)
    found = find_lungs(stack[1:-1, rows, columns], True)
    assert found.cropped.all()
    assert dice(found.mask > 0, truth[1:-1, rows, columns] > 0) > 0.95
    assert not is_cropped(stack, True).any()


def test_no_lung_no_box():
    stack, _ = volume()
    found = find_lungs(stack, True)
    assert found.box(0) is None
    assert not found.hull(0).any()
    empty = find_lungs(np.full((1, 16, 16), 3.0), False)
    assert not empty.mask.any()
    assert not lung_mask(np.full((2, 16, 16), 40.0), True).any()


def test_box_by_hand():
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 5:15], mask[12:30, 30:45] = RIGHT, LEFT  # 20 rows, 40 columns
    assert lungs_box(mask, margin=0) == (slice(10, 30), slice(5, 45))
    assert lungs_box(mask, margin=0.1) == (slice(6, 34), slice(1, 49))
    assert lungs_box(mask, margin=0.5) == (slice(0, 40), slice(0, 60))
    assert lungs_box(mask * 0) is None


def test_hull_by_hand():
    mask = np.zeros((20, 20), np.uint8)
    mask[5, 5] = mask[5, 10] = mask[10, 5] = 1  # corners of a right triangle
    rows, columns = np.mgrid[:20, :20]
    triangle = (rows >= 5) & (columns >= 5) & (rows + columns <= 15)
    np.testing.assert_array_equal(lungs_hull(mask, margin=0), triangle)
    grown = lungs_hull(mask, margin=0.2)  # 1.2 pixels of 6, in the box that grows by 1
    near = (rows + columns - 15) / np.sqrt(2) <= 1.2
    box = (rows >= 4) & (rows <= 11) & (columns >= 4) & (columns <= 11)
    np.testing.assert_array_equal(grown, box & near)
    line = np.zeros((9, 9), np.uint8)
    line[4, 2:7] = 1
    np.testing.assert_array_equal(lungs_hull(line, margin=0), line > 0)


def test_hull_holds_a_dense_lesion_at_the_pleura():
    stack, truth = volume()
    lesion = truth[5] > 0
    lesion[:, 24:] = lesion[:43] = lesion[53:] = False  # at the side of the right lung
    stack[5][lesion] = TISSUE
    found = find_lungs(stack, True)
    assert (found.mask[5][lesion] > 0).mean() < 0.5
    assert found.hull(5)[lesion].all()


@pytest.mark.parametrize("name", ["P001", "cap001", "normal001", "lidc_normal_1", "lidc_normal_2"])
def test_real_volumes_have_two_lungs_of_a_plausible_size(real_data, name):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.load(real_data / f"hu_scans/{name}.nii.gz")
    stack = np.asarray(image.dataobj).transpose(2, 1, 0)
    found = find_lungs(stack, True)
    voxel = np.prod(image.header.get_zooms()) / 1e6  # litres
    for label in (RIGHT, LEFT):
        assert 0.8 < (found.mask == label).sum() * voxel < 8  # nominal voxels in lidc_normal
    assert not found.cropped.any()
    assert np.median(stack[found.mask > 0]) == pytest.approx(-840, abs=60)
    columns = np.arange(stack.shape[2])
    assert ((found.mask == RIGHT).sum((0, 1)) * columns).sum() / (found.mask == RIGHT).sum() < 128


def test_real_crops_are_left_and_keep_their_lungs(real_data):
    for folder in ("radiopaedia_window", "coronacases_window"):
        rows = csv.DictReader((real_data / folder / "slices.csv").read_text().splitlines())
        for row in [row for row in rows if row["kind"] == "lesion"][::60]:
            image, lungs = (
                np.array(Image.open(real_data / folder / part).convert("L"))
                for part in (f"images/{row['name']}.jpg", f"lungs/{row['name']}.png")
            )
            found = find_lungs(image[None], False)
            assert found.cropped[0]
            assert dice(found.mask[0] > 0, lungs > 127) > 0.85


def test_real_whole_pictures_keep_their_lesions(real_data):
    nibabel = pytest.importorskip("nibabel")
    image, lesion = (
        np.asarray(nibabel.load(real_data / f"radiopaedia/{part}/6.nii.gz").dataobj).transpose(
            2, 1, 0
        )
        for part in ("rp_im", "rp_msk")
    )
    found = find_lungs(image, False)
    assert not found.cropped.any()
    for k in range(len(image)):
        assert (found.hull(k) & (lesion[k] > 0)).sum() > 0.99 * lesion[k].sum()
        rows, columns = found.box(k)
        assert lesion[k, rows, columns].sum() == lesion[k].sum()
        assert (rows.stop - rows.start) * (columns.stop - columns.start) < 0.7 * image[k].size
