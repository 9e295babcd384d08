"""The augmentation's transform, read off images that hold coordinates, against SciPy.

Channels of the probe: row and column coordinates, 0, 1, and noise. The constant channels give
brightness and contrast; without them the coordinate channels say where each pixel was read from.
The mask numbers the pixels, so it says which one its nearest neighbour took.
"""

from typing import Any, NamedTuple

import chex
import jax
import numpy as np
import pytest
import scipy.ndimage

from covid_jax.data.augment import augment

HEIGHT, WIDTH, COUNT = 24, 33, 96
ROTATION, SCALE, BRIGHTNESS, CONTRAST = 20.0, 0.2, 0.2, 0.2  # the limits its docstrings state

run = jax.jit(augment)


class Probe(NamedTuple):
    images: np.ndarray
    masks: np.ndarray
    noise: np.ndarray  # the noise channel before
    brightness: np.ndarray
    contrast: np.ndarray
    rows: np.ndarray  # where each pixel was read from, clipped to the slice
    columns: np.ndarray


def make_keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


@pytest.fixture(scope="module")
def probe() -> Probe:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    noise = np.random.default_rng(0).normal(size=rows.shape).astype(np.float32)
    channels = [rows, columns, np.zeros_like(rows), np.ones_like(rows), noise]
    image = np.stack(channels, axis=-1)
    number = np.arange(rows.size, dtype=np.int32).reshape(HEIGHT, WIDTH, 1)
    images, masks = run(make_keys(COUNT), np.stack([image] * COUNT), np.stack([number] * COUNT))
    images, masks = np.asarray(images, np.float64), np.asarray(masks)
    brightness, contrast = images[..., 2], images[..., 3] - images[..., 2]
    rows, columns = ((images[..., c] - brightness) / contrast for c in (0, 1))
    return Probe(images, masks, noise, brightness, contrast, rows, columns)


def fit(probe: Probe, i: int) -> tuple[np.ndarray, np.ndarray]:
    """The 2 x 2 matrix about the centre, and where the centre came from, by least squares.

    Only over pixels read from the inside: at the edge coordinates are clipped.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    y, x = y - (HEIGHT - 1) / 2, x - (WIDTH - 1) / 2
    rows, columns = probe.rows[i], probe.columns[i]
    inside = (rows > 0.01) & (rows < HEIGHT - 1.01) & (columns > 0.01) & (columns < WIDTH - 1.01)
    assert inside.sum() > HEIGHT * WIDTH / 4
    design = np.stack([y[inside], x[inside], np.ones(inside.sum())], axis=-1)
    target = np.stack([rows[inside], columns[inside]], axis=-1)
    solution, *_ = np.linalg.lstsq(design, target, rcond=None)
    np.testing.assert_allclose(design @ solution, target, atol=1e-3)
    return solution[:2].T, solution[2]


def decompose(matrix: np.ndarray) -> tuple[tuple[float, float], float, float]:
    """Flips of rows and columns, degrees and scale; within 90 degrees the cosine is positive."""
    flips = np.sign(np.diag(matrix))
    turn = flips[:, None] * matrix
    scale = 1 / np.sqrt(np.linalg.det(turn))
    np.testing.assert_allclose(turn @ turn.T * scale**2, np.eye(2), atol=1e-3)  # a similarity
    degrees = np.degrees(np.arctan2(turn[1, 0], turn[0, 0]))
    return (float(flips[0]), float(flips[1])), float(degrees), float(scale)


def test_the_transform_is_a_flip_a_rotation_and_a_scale_within_limits(probe: Probe) -> None:
    found = []
    for i in range(COUNT):
        matrix, centre = fit(probe, i)
        np.testing.assert_allclose(centre, [(HEIGHT - 1) / 2, (WIDTH - 1) / 2], atol=1e-3)
        found.append(decompose(matrix))
    flips, degrees, scales = zip(*found, strict=True)
    # Uniform draws: the chance that 96 leave the outer fifth of a range empty is 0.9^96 = 4e-5.
    assert -ROTATION - 0.01 < min(degrees) < -0.8 * ROTATION
    assert 0.8 * ROTATION < max(degrees) < ROTATION + 0.01
    assert 1 - SCALE - 1e-3 < min(scales) < 1 - 0.8 * SCALE
    assert 1 + 0.8 * SCALE < max(scales) < 1 + SCALE + 1e-3
    for flip in ((1, 1), (1, -1), (-1, 1), (-1, -1)):  # each a quarter
        assert 10 <= flips.count(flip) <= 40


def test_outside_the_slice_the_edge_is_repeated(probe: Probe) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    beyond = 0
    for i in range(COUNT):
        matrix, centre = fit(probe, i)
        offsets = np.stack([y - (HEIGHT - 1) / 2, x - (WIDTH - 1) / 2])
        rows, columns = np.einsum("ij,jhw->ihw", matrix, offsets) + centre[:, None, None]
        np.testing.assert_allclose(probe.rows[i], np.clip(rows, 0, HEIGHT - 1), atol=2e-3)
        np.testing.assert_allclose(probe.columns[i], np.clip(columns, 0, WIDTH - 1), atol=2e-3)
        beyond += np.sum((rows < -1) | (rows > HEIGHT) | (columns < -1) | (columns > WIDTH))
    assert beyond > 1000


def test_brightness_and_contrast_are_one_number_a_slice_within_limits(probe: Probe) -> None:
    for values, centre, limit in (
        (probe.brightness, 0.0, BRIGHTNESS),
        (probe.contrast, 1.0, CONTRAST),
    ):
        np.testing.assert_allclose(values, values[:, :1, :1] * np.ones((HEIGHT, WIDTH)), atol=1e-6)
        drawn = values[:, 0, 0] - centre
        assert -limit - 1e-6 < drawn.min() < -0.8 * limit
        assert 0.8 * limit < drawn.max() < limit + 1e-6
    together = np.corrcoef(probe.brightness[:, 0, 0], probe.contrast[:, 0, 0])[0, 1]
    assert abs(together) < 0.4  # drawn apart: four standard errors


def test_the_image_is_scipys_linear_interpolation(probe: Probe) -> None:
    for i in range(COUNT):
        read = scipy.ndimage.map_coordinates(
            probe.noise, [probe.rows[i], probe.columns[i]], order=1, mode="nearest"
        )
        expected = read * probe.contrast[i] + probe.brightness[i]
        np.testing.assert_allclose(probe.images[i, ..., 4], expected, atol=1e-3)


def test_the_mask_is_scipys_nearest_neighbour_at_the_images_coordinates(probe: Probe) -> None:
    """But for pixels read from halfway between two, where rounding decides."""
    number = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    compared = 0
    for rows, columns, mask in zip(probe.rows, probe.columns, probe.masks[..., 0], strict=True):
        clear = (np.abs(rows % 1 - 0.5) > 1e-3) & (np.abs(columns % 1 - 0.5) > 1e-3)
        expected = scipy.ndimage.map_coordinates(number, [rows, columns], order=0, mode="nearest")
        np.testing.assert_array_equal(mask[clear], expected[clear])
        compared += clear.sum()
    assert compared > 0.98 * COUNT * HEIGHT * WIDTH


def make_blobs(count: int) -> np.ndarray:
    """A disc and a bar, off the centre, as 0 and 1."""
    y, x = np.mgrid[:48, :40]
    blob = ((y - 15) ** 2 + (x - 13) ** 2 < 9**2) | ((x > 28) & (x < 36) & (y > 20))
    return np.broadcast_to(blob[None, :, :, None], (count, 48, 40, 1))


def test_a_lesion_moves_with_its_image() -> None:
    """An image that is its own mask, halved between 0 and 1, agrees but on the outline."""
    blobs = make_blobs(8)
    images, masks = run(make_keys(8), blobs.astype(np.float32), blobs.astype(np.uint8))
    images, masks = np.asarray(images), np.asarray(masks)
    halves = (images.min(axis=(1, 2, 3)) + images.max(axis=(1, 2, 3))) / 2
    thresholded = images > halves[:, None, None, None]
    assert np.mean(thresholded == masks) > 0.99
    assert np.mean(masks == blobs) < 0.95  # they did move


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_masks_keep_their_values_and_type(dtype: Any) -> None:
    masks = np.random.default_rng(0).choice([0, 1, 3, 200], (4, 16, 16, 2)).astype(dtype)
    images = np.random.default_rng(1).normal(size=(4, 16, 16, 1)).astype(np.float32)
    moved_images, moved_masks = run(make_keys(4), images, masks)
    chex.assert_shape(moved_images, images.shape)
    chex.assert_shape(moved_masks, masks.shape)
    assert moved_images.dtype == np.float32
    assert moved_masks.dtype == dtype
    assert set(np.unique(moved_masks)) == {0, 1, 3, 200}
    chex.assert_tree_all_finite((moved_images, moved_masks))


def make_slices(count: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).normal(size=(count, 16, 16, 1)).astype(np.float32)
    return images, (images > 0).astype(np.uint8)


@pytest.mark.parametrize("chosen", [[3], [4, 5, 0, 1, 2, 3], [2, 2, 5, 2, 0, 0]])
def test_a_slice_turns_out_the_same_in_every_batch(chosen: list[int]) -> None:
    images, masks = make_slices(6)
    keys = make_keys(6)
    together = run(keys, images, masks)
    apart = run(keys[np.array(chosen)], images[chosen], masks[chosen])
    chex.assert_trees_all_close(apart[0], together[0][np.array(chosen)], rtol=0, atol=1e-4)
    # One mask pixel in a thousand may be read from halfway, where the last bit decides.
    assert np.mean(np.asarray(apart[1]) != np.asarray(together[1])[chosen]) < 1e-3


def test_other_keys_give_other_results_and_the_same_key_the_same() -> None:
    image, mask = make_slices(1)
    keys = make_keys(4)[np.array([0, 1, 2, 3, 1, 0])]
    moved, _ = run(keys, np.repeat(image, 6, axis=0), np.repeat(mask, 6, axis=0))
    moved = np.asarray(moved)
    np.testing.assert_allclose(moved[[4, 5]], moved[[1, 0]], atol=1e-6)
    for i in range(4):
        for j in range(i):
            assert np.abs(moved[i] - moved[j]).max() > 0.1
