"""Resizing against jax.image.resize and exact arithmetic; z-scores against the closed form."""

from fractions import Fraction
from typing import Any

import jax
import numpy as np
import pytest

from covid_jax.data.preprocess import resize, resize_mask, standardize, to_network

SIZES = [
    pytest.param((40, 30), (64, 64), id="up"),
    pytest.param((96, 80), (32, 32), id="down"),
    pytest.param((61, 127), (48, 48), id="odd to square"),
    pytest.param((20, 50), (50, 20), id="up and down"),
    pytest.param((33, 47), (33, 47), id="same"),
    pytest.param((16, 16), (256, 128), id="far up"),
    pytest.param((1, 7), (16, 16), id="one row"),
]


def noise(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("own", "wanted"), SIZES)
def test_resize_is_jax_image_resize(own: tuple[int, int], wanted: tuple[int, int]) -> None:
    image = noise(own)
    expected = np.asarray(jax.image.resize(image, wanted, "linear", antialias=True))
    resized = resize(image, *wanted)
    assert (resized.shape, resized.dtype) == (wanted, np.float32)
    np.testing.assert_allclose(resized, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_resize_by_two_averages_with_a_tent() -> None:
    """Halving: weights 1, 3, 3, 1 over 8; at the edge the taps outside are left out."""
    ramp = np.array([[0.0, 8.0, 16.0, 40.0]], np.float32)
    expected = [[(3 * 0 + 3 * 8 + 16) / 7, (8 + 3 * 16 + 3 * 40) / 7]]
    np.testing.assert_allclose(resize(ramp, 1, 2), expected, rtol=1e-6)


def test_resize_reads_every_number_type() -> None:
    image = np.random.default_rng(0).integers(0, 255, (24, 20))
    expected = resize(image.astype(np.float32), 16, 16)
    for dtype in (np.uint8, np.int16, np.uint16, np.int32, np.float64, ">i2", bool):
        typed = image.astype(dtype)
        again = expected if dtype is not bool else resize(typed.astype(np.float32), 16, 16)
        np.testing.assert_array_equal(resize(typed, 16, 16), again)


@pytest.mark.parametrize("value", [0.0, 1.0, -1000.0, 1024.3, 3e4])
@pytest.mark.parametrize(("own", "wanted"), SIZES)
def test_a_constant_stays_constant(
    own: tuple[int, int], wanted: tuple[int, int], value: float
) -> None:
    resized = resize(np.full(own, value, np.float32), *wanted)
    np.testing.assert_allclose(resized, np.full(wanted, value), rtol=1e-6)


def test_resize_never_leaves_the_range() -> None:
    """Linear weights are positive: probabilities stay probabilities, up to rounding."""
    image = (noise((32, 32)) > 0).astype(np.float32)
    resized = resize(image, 153, 211)
    assert resized.min() >= 0.0
    assert resized.max() <= 1.0 + 1e-6


MASK_SIZES = [(8, 8), (7, 16), (40, 16), (153, 64), (64, 48), (64, 96), (256, 352), (100, 512)]


def nearest(own: int, wanted: int) -> list[int]:
    """Which pixel holds each new pixel's centre, in exact fractions."""
    return [int(Fraction(2 * i + 1, 2) * own / wanted) for i in range(wanted)]


@pytest.mark.parametrize(("own", "wanted"), MASK_SIZES)
def test_resize_mask_takes_the_pixel_under_each_centre(own: int, wanted: int) -> None:
    mask = noise((own, own + 5)) > 0
    resized = resize_mask(mask, wanted)
    assert (resized.shape, resized.dtype) == ((wanted, wanted), np.dtype(bool))
    expected = mask[np.ix_(nearest(own, wanted), nearest(own + 5, wanted))]
    np.testing.assert_array_equal(resized, expected)


@pytest.mark.parametrize(("own", "wanted"), MASK_SIZES)
def test_resize_mask_is_jax_image_resize(own: int, wanted: int) -> None:
    mask = noise((own, own)) > 0
    expected = jax.image.resize(mask.astype(np.uint8), (wanted, wanted), "nearest")
    np.testing.assert_array_equal(resize_mask(mask, wanted), np.asarray(expected).astype(bool))


def test_standardize_is_the_closed_form() -> None:
    """0, 2, 4, 6: mean 3, variance 5."""
    image = np.array([[0.0, 2.0], [4.0, 6.0]], np.float32)
    standard = standardize(image)
    assert standard.dtype == np.float32
    np.testing.assert_allclose(standard, np.array([[-3, -1], [1, 3]]) / np.sqrt(5), rtol=1e-6)


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 1024.0), (1.0, -1024.0), (7.5, 0.0)])
def test_offset_and_gain_do_not_matter(gain: float, offset: float) -> None:
    image = noise((31, 17)) * 300
    np.testing.assert_allclose(standardize(image * gain + offset), standardize(image), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.1, -1000.0, 1024.3, 65535.0])
@pytest.mark.parametrize("size", [None, 16, 64])
def test_a_constant_slice_gives_zeros(value: float, size: int | None) -> None:
    """Also where resizing left it constant but for rounding."""
    image = np.full((37, 53), value, np.float32)
    standard = standardize(image) if size is None else to_network([image], size)[0, ..., 0]
    np.testing.assert_array_equal(standard, np.zeros_like(standard))


@pytest.mark.parametrize("value", [0.1, -1000.0, 1024.3])
def test_a_slice_constant_but_for_its_last_bit_gives_zeros(value: float) -> None:
    image = np.full((20, 30), value, np.float32)
    image[::2, 1::3] = np.nextafter(image[0, 0], np.float32(np.inf))
    assert len(np.unique(image)) == 2
    np.testing.assert_array_equal(standardize(image), np.zeros_like(image))


def test_a_faint_lesion_in_a_flat_slice_is_no_constant() -> None:
    """One HU in 1 % of the pixels at -1000: its z-score is (1 - p) / sqrt(p (1 - p)), p = 0.01."""
    image = np.full((100, 100), -1000.0, np.float32)
    image[40:50, 60:70] = -999.0
    standard = standardize(image)
    np.testing.assert_allclose(standard[40:50, 60:70], 0.99 / np.sqrt(0.01 * 0.99), rtol=1e-3)
    np.testing.assert_allclose(standard[:40], -0.01 / np.sqrt(0.01 * 0.99), rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_the_network_sees_jaxs_resize_z_scored(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 250, shape).astype(dtype) for shape in ((40, 50), (20, 24))]
    seen = to_network(iter(images), 32)
    assert (seen.shape, seen.dtype) == ((2, 32, 32, 1), np.float32)
    for one, image in zip(seen[..., 0], images, strict=True):
        resized = np.asarray(
            jax.image.resize(image.astype(np.float32), (32, 32), "linear", antialias=True)
        )
        expected = (resized - resized.mean()) / resized.std()
        np.testing.assert_allclose(one, expected, rtol=0, atol=1e-3)
