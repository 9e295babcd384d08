"""Resizing against jax.image.resize and exact arithmetic; codes and z-scores against NumPy."""

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import numpy as np
import pytest

from covid_jax.runs.config import to_dict
from covid_jax.transforms.preprocessing import (
    Normalization,
    QuantizedSlices,
    choose_normalization,
    normalize,
    pack,
    resize,
    resize_mask,
)

SIZES = [
    pytest.param((40, 30), (64, 64), id="up"),
    pytest.param((96, 80), (32, 32), id="down"),
    pytest.param((61, 127), (48, 48), id="odd to square"),
    pytest.param((20, 50), (50, 20), id="up and down"),
    pytest.param((33, 47), (33, 47), id="same"),
    pytest.param((16, 16), (256, 128), id="far up"),
    pytest.param((1, 7), (16, 16), id="one row"),
]
PER_SLICE = Normalization()


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def decoded(slices: QuantizedSlices) -> np.ndarray:
    """Intensities by the codes' definition, value = low + step * code, in float64."""
    low, step = (part.astype(np.float64)[:, None, None] for part in (slices.low, slices.step))
    return low + step * slices.codes


def by_hand(codes: Any, low: float, step: float) -> QuantizedSlices:
    """One slice."""
    numbers = (np.array([number], np.float32) for number in (low, step))
    return QuantizedSlices(np.array([codes], np.uint16), *numbers)


def z_score(slices: QuantizedSlices) -> jax.Array:
    return normalize(slices, PER_SLICE)


jitted_z_score = jax.jit(z_score)


def z_scored(images: Sequence[np.ndarray], size: int) -> np.ndarray:
    return np.asarray(jitted_z_score(pack(images, size)))[..., 0]


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


@pytest.mark.parametrize("dtype", [bool, np.uint8])
@pytest.mark.parametrize(("own", "wanted"), MASK_SIZES)
def test_resize_mask_takes_the_pixel_under_each_centre(own: int, wanted: int, dtype: Any) -> None:
    mask = (3 * noise((own, own + 5))).clip(0, 3).astype(dtype)
    resized = resize_mask(mask, wanted, wanted + 1)
    assert (resized.shape, resized.dtype) == ((wanted, wanted + 1), np.dtype(dtype))
    expected = mask[np.ix_(nearest(own, wanted), nearest(own + 5, wanted + 1))]
    np.testing.assert_array_equal(resized, expected)


@pytest.mark.parametrize(("own", "wanted"), MASK_SIZES)
def test_resize_mask_is_jax_image_resize(own: int, wanted: int) -> None:
    mask = noise((own, own)) > 0
    expected = jax.image.resize(mask.astype(np.uint8), (wanted, wanted), "nearest")
    resized = resize_mask(mask, wanted, wanted)
    np.testing.assert_array_equal(resized, np.asarray(expected).astype(bool))


IMAGES = {
    "HU": np.random.default_rng(0).integers(-1024, 3072, (48, 48)).astype(np.int16),
    "lung alone": (30 * noise((48, 48)) - 800).astype(np.int16),
    "8-bit": np.random.default_rng(0).integers(0, 256, (48, 48)).astype(np.uint8),
    "large offset": noise((48, 48)) + np.float32(1e4),
    "large negative offset": 7 * noise((48, 48)) - np.float32(3e5),
    "tiny": 1e-20 * noise((48, 48)),
    "huge": 1e17 * noise((48, 48)),
    "one outlier": np.where(np.arange(48 * 48).reshape(48, 48) == 99, 3e4, noise((48, 48))),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("size", [48, 32, 80])
def test_codes_lose_at_most_half_a_step(name: str, size: int) -> None:
    """And 65535 steps make up the slice's range, whose ends are kept."""
    resized = np.float64(resize(IMAGES[name], size, size))
    slices = pack([IMAGES[name]], size)
    assert [part.dtype for part in slices] == [np.uint16, np.float32, np.float32]
    assert [part.shape for part in slices] == [(1, size, size), (1,), (1,)]
    span = resized.max() - resized.min()
    np.testing.assert_allclose(slices.step[0], span / 65535, rtol=1e-6)
    rounding = 65535 * np.spacing(slices.step[0])  # of the step itself to float32
    assert np.abs(decoded(slices)[0] - resized).max() <= 0.5 * slices.step[0] + rounding
    assert (slices.codes.min(), slices.codes.max()) == (0, 65535)
    assert slices.low[0] == resized.min()


def test_slices_of_differing_sizes_are_packed_side_by_side() -> None:
    images = [IMAGES["HU"], IMAGES["8-bit"][:9, :33], IMAGES["tiny"][:, :5]]
    together = pack(images, 16)
    for i, image in enumerate(images):
        for part, alone in zip(together, pack([image], 16), strict=True):
            np.testing.assert_array_equal(part[i], alone[0])


def test_a_constant_slice_has_one_code() -> None:
    slices = pack([np.full((5, 7), -1024, np.int16)], 5)
    assert (slices.codes.max(), slices.step[0], slices.low[0]) == (0, 0.0, -1024.0)
    np.testing.assert_array_equal(decoded(slices), np.full((1, 5, 5), -1024.0))


def test_a_z_score_is_the_closed_form() -> None:
    """10, 12, 14, 16: mean 13, variance 5."""
    standard = normalize(by_hand([[0, 1], [2, 3]], 10, 2), PER_SLICE)
    assert (standard.shape, standard.dtype) == ((1, 2, 2, 1), np.float32)
    expected = np.array([[-3, -1], [1, 3]]) / np.sqrt(5)
    np.testing.assert_allclose(standard[0, ..., 0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("jitted", [False, True])
def test_a_z_score_is_numpys(name: str, jitted: bool) -> None:
    """Of what the codes stand for; and of the slice itself, but for half a step."""
    slices = pack([IMAGES[name], IMAGES["HU"]], 32)
    standard = np.asarray((jitted_z_score if jitted else z_score)(slices))[..., 0]
    values = decoded(slices)
    mean, std = (part((1, 2), keepdims=True) for part in (values.mean, values.std))
    rtol = 1e-5 if name == "one outlier" else 0  # whose z-score is 30
    np.testing.assert_allclose(standard, (values - mean) / std, rtol=rtol, atol=1e-5)
    resized = np.float64(resize(IMAGES[name], 32, 32))
    expected = (resized - resized.mean()) / resized.std()
    half_a_step = float(slices.step[0] / resized.std())
    np.testing.assert_allclose(standard[0], expected, rtol=0, atol=half_a_step + 1e-5)


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 1024.0), (1.0, -1024.0), (7.5, 0.0)])
def test_offset_and_gain_do_not_matter(gain: float, offset: float) -> None:
    image = noise((32, 32)) * 300
    once, again = z_scored([image, image * gain + offset], 32)
    np.testing.assert_allclose(again, once, atol=2e-4)  # two roundings to codes


@pytest.mark.parametrize("value", [0.0, 1e-30, 0.1, -1000.0, 1024.3, 65535.0])
@pytest.mark.parametrize("size", [16, 37, 64])
def test_a_constant_slice_gives_zeros(value: float, size: int) -> None:
    """Also where resizing left it constant but for rounding; its neighbour is no worse for it."""
    flat, other = z_scored([np.full((37, 53), value, np.float32), IMAGES["HU"]], size)
    np.testing.assert_array_equal(flat, np.zeros_like(flat))
    np.testing.assert_array_equal(other, z_scored([IMAGES["HU"]], size)[0])


@pytest.mark.parametrize("value", [0.1, -1000.0, 1024.3])
def test_a_slice_constant_but_for_its_last_bit_gives_zeros(value: float) -> None:
    image = np.full((20, 20), value, np.float32)
    image[::2, 1::3] = np.nextafter(image[0, 0], np.float32(np.inf))
    slices = pack([image], 20)
    assert len(np.unique(slices.codes)) == 2
    np.testing.assert_array_equal(normalize(slices, PER_SLICE), np.zeros((1, 20, 20, 1)))


def test_a_faint_lesion_in_a_flat_slice_is_no_constant() -> None:
    """One HU in 1 % of the pixels at -1000: its z-score is (1 - p) / sqrt(p (1 - p)), p = 0.01."""
    image = np.full((100, 100), -1000.0, np.float32)
    image[40:50, 60:70] = -999.0
    standard = z_scored([image], 100)[0]
    np.testing.assert_allclose(standard[40:50, 60:70], 0.99 / np.sqrt(0.01 * 0.99), rtol=1e-3)
    np.testing.assert_allclose(standard[:40], -0.01 / np.sqrt(0.01 * 0.99), rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_the_network_sees_jaxs_resize_z_scored(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 250, shape).astype(dtype) for shape in ((40, 50), (20, 24))]
    for one, image in zip(z_scored(images, 32), images, strict=True):
        resized = np.asarray(
            jax.image.resize(image.astype(np.float32), (32, 32), "linear", antialias=True)
        )
        expected = (resized - resized.mean()) / resized.std()
        np.testing.assert_allclose(one, expected, rtol=0, atol=1e-3)


def test_the_lung_window_is_clipped_at_its_ends() -> None:
    """Level -600, width 1500: -1350 HU gives -1, 150 HU gives 1."""
    lung = choose_normalization(by_hand([[0]], 0, 1), [0], intensity="window")
    assert lung == Normalization(-600.0, 750.0, clip=True)
    values = [-2000, -1351, -1350, -1349, -975, -600, -225, 149, 150, 151, 3000]
    slices = by_hand([[value + 2000 for value in values]], -2000, 1)
    expected = [-1, -1, -1, -749 / 750, -0.5, 0, 0.5, 749 / 750, 1, 1, 1]
    np.testing.assert_allclose(normalize(slices, lung)[0, 0, :, 0], expected, atol=1e-6)


def test_a_window_of_ones_own() -> None:
    image = by_hand([[0]], 0, 1)
    chosen = choose_normalization(image, [0], intensity="window", window=(40.0, 400.0))
    values = normalize(by_hand([[0, 200, 300, 400, 1000]], -160, 1), chosen)
    np.testing.assert_allclose(values[0, 0, :, 0], [-1, 0, 0.5, 1, 1], atol=1e-6)


def test_a_z_score_per_slice_is_the_default() -> None:
    assert choose_normalization(by_hand([[0]], 0, 1), [0]) == PER_SLICE


def test_a_datasets_z_score_is_numpys_of_all_training_pixels() -> None:
    images = [IMAGES[name] for name in ("HU", "lung alone", "8-bit", "large offset")]
    slices, train = pack(images, 48), [0, 2]
    chosen = choose_normalization(slices, train, intensity="dataset")
    pixels = np.concatenate([images[0].ravel(), images[2].ravel()]).astype(np.float64)
    assert chosen.mean == pytest.approx(pixels.mean(), abs=0.05)
    assert chosen.std == pytest.approx(pixels.std(), abs=0.05)
    assert not chosen.clip
    seen = np.asarray(normalize(slices, chosen))
    assert abs(seen[train].mean()) < 1e-5
    assert seen[train].std() == pytest.approx(1.0, abs=1e-5)
    assert seen[3].min() > 5  # not clipped, and not of its own mean


def test_a_datasets_z_score_looks_at_the_training_part_only() -> None:
    train = [0, 3]
    slices = pack([noise((16, 16), seed) for seed in range(4)], 16)
    chosen = choose_normalization(slices, train, intensity="dataset")
    for other in (1, 2):
        for part in slices:
            part[other] = 7
    assert choose_normalization(slices, train, intensity="dataset") == chosen
    slices.codes[3] //= 2
    assert choose_normalization(slices, train, intensity="dataset") != chosen


@pytest.mark.parametrize("chosen", [PER_SLICE, Normalization(-600.0, 750.0, clip=True)])
def test_a_normalization_comes_back_from_json(chosen: Normalization) -> None:
    assert Normalization(**json.loads(json.dumps(to_dict(chosen)))) == chosen


def test_codes_decode_to_what_they_stand_for() -> None:
    slices = by_hand([[0, 1, 65535]], -1024.0, 0.5)
    np.testing.assert_array_equal(slices.decode()[0, 0], [-1024.0, -1023.5, 31743.5])
    packed = pack([noise((8, 9), seed) for seed in range(3)], 16)
    np.testing.assert_array_equal(packed.decode(np.float64), decoded(packed))
    np.testing.assert_array_equal(packed.take([2, 0]).decode(np.float64), decoded(packed)[[2, 0]])
