"""Augmentation against SciPy, Pillow and closed forms.

What moves is read off two probes: an image whose channels are its row and column coordinates, and
a mask that numbers the pixels, so that it says which one its nearest neighbour took.
"""

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from PIL import Image

from covid_jax.transforms.augmentation import (
    MOVEMENTS,
    AugmentConfig,
    Draws,
    augment,
    draw,
    transform,
)

HEIGHT, WIDTH = 24, 33
CENTRE = np.array([(HEIGHT - 1) / 2, (WIDTH - 1) / 2])
STANDARD, STRONG = AugmentConfig.named("standard"), AugmentConfig.named("strong")
NOT_SQUARE = dataclasses.replace(STRONG, orientation="none")
EVERYTHING = AugmentConfig(
    flip=True, rotation=180.0, scale=0.9, shift=1.0, elastic=0.2,
    brightness=10.0, contrast=1.0, gamma_correction=10.0, noise=10.0, blur=10.0,
)  # fmt: skip

run = jax.jit(augment, static_argnums=3)
run_one = jax.jit(transform, static_argnums=3)


def only(*names: str) -> AugmentConfig:
    return AugmentConfig(**{name: getattr(STANDARD, name) for name in names})


def make_keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def make_draws(seed: int = 0, **chosen: Any) -> Draws:
    chosen = {name: np.asarray(value, np.float32) for name, value in chosen.items()}
    return draw(jax.random.key(seed))._replace(**chosen)


def make_slices(
    count: int = 1, height: int = HEIGHT, width: int = WIDTH
) -> tuple[np.ndarray, np.ndarray]:
    """Images of mean 3 and spread 2, so that neither 0 nor 1 is taken for granted; masks 0 to 3."""
    shape = (count, height, width, 1)
    images = 3 + 2 * np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return images, np.random.default_rng(1).integers(0, 4, shape, np.uint8)


def change(draws: Draws, strengths: AugmentConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A slice before, and image and mask after, in double precision."""
    images, masks = make_slices()
    image, mask = run_one(draws, images[0], masks[0], strengths)
    return images[0, ..., 0].astype(float), np.asarray(image[..., 0], float), np.asarray(mask)


def way_back(degrees: float, scale: float, flips: Any, shift: Any) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and offset of result to source, as SciPy takes them: rows point down."""
    angle = np.radians(degrees)
    turned_back = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.diag(flips) @ turned_back / scale
    return matrix, CENTRE - matrix @ (CENTRE + np.multiply(shift, (HEIGHT, WIDTH)))


def assert_read_at(rows: np.ndarray, columns: np.ndarray, draws: Draws, *names: str) -> None:
    """Image and mask are SciPy's at these places; but for ties in masks, where rounding decides."""
    images, masks = make_slices()
    image, mask = run_one(draws, images[0], masks[0], only(*names))
    read = functools.partial(
        scipy.ndimage.map_coordinates, coordinates=[rows, columns], mode="nearest"
    )
    np.testing.assert_allclose(image[..., 0], read(images[0, ..., 0], order=1), atol=1e-3)
    clear = (np.abs(rows % 1 - 0.5) > 1e-3) & (np.abs(columns % 1 - 0.5) > 1e-3)
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(mask[clear, 0], read(masks[0, ..., 0], order=0)[clear])


@pytest.mark.parametrize(
    ("names", "draws", "back"),
    [
        (["flip"], {"flip": [-0.1, 0.7]}, (0, 1, (-1, 1), (0, 0))),
        (["flip"], {"flip": [0.3, -0.9]}, (0, 1, (1, -1), (0, 0))),
        (["rotation"], {"rotation": 1.0}, (20, 1, (1, 1), (0, 0))),
        (["rotation"], {"rotation": -0.3}, (-6, 1, (1, 1), (0, 0))),
        (["scale"], {"scale": 1.0}, (0, 1.2, (1, 1), (0, 0))),
        (["scale"], {"scale": -0.7}, (0, 0.86, (1, 1), (0, 0))),
        (["shift"], {"shift": [0.9, -0.4]}, (0, 1, (1, 1), (0.045, -0.02))),
        (
            ["flip", "rotation", "scale", "shift"],
            {"flip": [-1.0, 0.2], "rotation": -0.8, "scale": 0.6, "shift": [-0.5, 1.0]},
            (-16, 1.12, (-1, 1), (-0.025, 0.05)),
        ),
    ],
)
def test_movements_are_scipys_affine_transform(names: Any, draws: Any, back: Any) -> None:
    matrix, offset = way_back(*back)
    images, _ = make_slices()
    image, _ = run_one(make_draws(**draws), images[0], images[0] > 3, only(*names))
    expected = scipy.ndimage.affine_transform(
        images[0, ..., 0], matrix, offset, order=1, mode="nearest"
    )
    np.testing.assert_allclose(image[..., 0], expected, atol=1e-4)
    places = np.einsum("ij,jhw->ihw", matrix, np.mgrid[:HEIGHT, :WIDTH]) + offset[:, None, None]
    assert_read_at(*places, make_draws(**draws), *names)


def test_directions() -> None:
    """Anticlockwise as NumPy turns, down and to the right, larger."""
    images, masks = make_slices(height=24, width=24)
    turned = run_one(make_draws(rotation=1), images[0], masks[0], AugmentConfig(rotation=90.0))
    np.testing.assert_array_equal(turned[1], np.rot90(masks[0]))
    moved = run_one(make_draws(shift=[1, 0.5]), images[0], masks[0], AugmentConfig(shift=0.25))
    np.testing.assert_array_equal(moved[1][6:, 3:], masks[0, :-6, :-3])
    disc = np.hypot(*(np.mgrid[:24, :24] - 11.5))[..., None] < 6
    larger = run_one(make_draws(scale=1), images[0], disc, AugmentConfig(scale=0.5))[1]
    np.testing.assert_allclose(np.sum(larger) / np.sum(disc), 1.5**2, rtol=0.05)


def bicubic(points: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Pillow's upsampling of control points: Keys' cubic, cell centres aligned."""
    picture = Image.fromarray(np.asarray(points, np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))


def test_elastic_is_pillows_bicubic_surface_through_the_control_points() -> None:
    draws = make_draws(3)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    rows = rows + 0.02 * HEIGHT * bicubic(draws.elastic[..., 0])
    columns = columns + 0.02 * WIDTH * bicubic(draws.elastic[..., 1])
    assert_read_at(rows, columns, draws, "elastic")


def test_the_named_sets_cannot_fold_a_slice() -> None:
    """Both displacements' slopes, at their worst control points, against what scale leaves."""
    side = 200
    weights = np.stack([bicubic(point[:, None], side, 1)[:, 0] for point in np.eye(5)], axis=1)
    overshoot = np.abs(weights).sum(axis=1).max()
    np.testing.assert_allclose(overshoot, 1.25, atol=1e-3)
    slope = np.abs(np.diff(weights, axis=0)).sum(axis=1).max() * overshoot * side
    # A matrix of four such slopes stretches by twice their size at most.
    for named in (STANDARD, STRONG):
        assert 2 * named.elastic * slope < 1 / (1 + named.scale)


@pytest.mark.parametrize("drawn", [-1.0, -0.5, 0.4, 1.0])
def test_blur_is_scipys_gaussian(drawn: float) -> None:
    """Its width in pixels of a 512 slice, so that each axis has its own here; cut at 3 widest."""
    before, after, _ = change(make_draws(blur=drawn), AugmentConfig(blur=10.0))
    sigmas = [10 * (1 + drawn) / 2 * side / 512 for side in (HEIGHT, WIDTH)]
    reach = [int(np.ceil(3 * 10 * side / 512)) for side in (HEIGHT, WIDTH)]
    expected = scipy.ndimage.gaussian_filter(before, sigmas, radius=reach, mode="nearest")
    np.testing.assert_allclose(after, expected, atol=1e-5)


@pytest.mark.parametrize("drawn", [-1.0, 0.25, 1.0])
def test_gamma_contrast_and_brightness_in_closed_form(drawn: float) -> None:
    before, after, _ = change(make_draws(gamma=drawn), only("gamma_correction"))
    low, high = before.min(), before.max()
    curved = low + (high - low) * ((before - low) / (high - low)) ** np.exp(0.2 * drawn)
    np.testing.assert_allclose(after, curved, atol=1e-5)
    np.testing.assert_allclose((after.min(), after.max()), (low, high), atol=1e-6)

    stretched = before.mean() + (1 + 0.2 * drawn) * (before - before.mean())
    _, after, _ = change(make_draws(contrast=drawn), only("contrast"))
    np.testing.assert_allclose(after, stretched, atol=1e-5)

    _, after, _ = change(make_draws(brightness=drawn), only("brightness"))
    np.testing.assert_allclose(after, before + 0.2 * drawn * before.std(), atol=1e-5)

    draws = make_draws(gamma=drawn, contrast=drawn, brightness=drawn)
    _, after, _ = change(draws, only("gamma_correction", "contrast", "brightness"))
    expected = before.mean() + (1 + 0.2 * drawn) * (curved - before.mean())
    np.testing.assert_allclose(after, expected + 0.2 * drawn * before.std(), atol=1e-5)


@pytest.mark.parametrize("drawn", [-1.0, 0.5, 1.0])
def test_noise_is_normal_white_and_as_strong_as_drawn(drawn: float) -> None:
    """On top of the other changes, which leave its strength alone."""
    images, masks = make_slices(height=128, width=128)
    draws, slices = make_draws(noise=drawn, contrast=1), (images[0], masks[0])
    noisy, _ = run_one(draws, *slices, only("contrast", "noise"))
    clean, _ = run_one(draws, *slices, only("contrast"))
    noise = np.asarray(noisy - clean)[..., 0].astype(float)
    if drawn == -1:
        np.testing.assert_allclose(noise, 0, atol=1e-6)
        return
    noise /= 0.1 * (1 + drawn) / 2 * images.std()
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 0.01
    for neighbour in (np.roll(noise, 1, axis=0), np.roll(noise, 1, axis=1)):
        assert abs(np.corrcoef(noise.ravel(), neighbour.ravel())[0, 1]) < 4 / 128  # 4 sigma


def test_draws_are_uniform_and_independent() -> None:
    """Flips therefore in half of the cases. 70 numbers, each tested: 1e-5 is a strict level."""
    draws = jax.vmap(draw)(make_keys(2000))
    numbers = [
        np.asarray(part).reshape(2000, -1)
        for name, part in draws._asdict().items()
        if name != "grain"
    ]
    table = np.concatenate(numbers, axis=1)
    assert table.shape == (2000, 11 + 5 * 5 * 2 + 3 + 6)
    for column in table.T:
        assert scipy.stats.kstest(column, "uniform", (-1, 2)).pvalue > 1e-5
    together = np.corrcoef(table, rowvar=False) - np.eye(70)
    assert np.abs(together).max() < 5 / np.sqrt(2000)
    assert np.all(np.abs(np.mean(np.asarray(draws.flip) < 0, axis=0) - 0.5) < 0.05)


def test_range_of_movements_of_many_slices() -> None:
    """Read off the coordinates alone: a least-squares fit, taken apart as flip, turn and scale."""
    count, (y, x) = 96, np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    probe = np.stack([np.stack([y, x], axis=-1)] * count)
    places, _ = run(make_keys(count), probe, probe, only("flip", "rotation", "scale", "shift"))
    design = np.stack([y - CENTRE[0], x - CENTRE[1], np.ones_like(x)], axis=-1)
    found = []
    for place in np.asarray(places):
        inside = np.all((place > 0.01) & (place < [HEIGHT - 1.01, WIDTH - 1.01]), axis=-1)
        solution, *_ = np.linalg.lstsq(design[inside], place[inside] - CENTRE, rcond=None)
        np.testing.assert_allclose(design[inside] @ solution, place[inside] - CENTRE, atol=1e-3)
        flips = np.sign(np.diag(solution[:2]))  # within 90 degrees the cosine is positive
        turn = solution[:2].T * flips[:, None]
        shift = -np.linalg.solve(solution[:2].T, solution[2]) / (HEIGHT, WIDTH)
        degrees = np.degrees(np.arctan2(turn[0, 1], turn[0, 0]))
        found.append((*flips, degrees, 1 / np.sqrt(np.linalg.det(turn)) - 1, *shift))
    flips, amounts = np.split(np.array(found), [2], axis=1)
    for kind in ((1, 1), (1, -1), (-1, 1), (-1, -1)):  # each a quarter: 24, 4 sigma = 17
        assert 7 <= np.sum(np.all(flips == kind, axis=1)) <= 41
    # The chance that 96 uniform draws leave the outer fifth of a range empty is 0.9^96 = 4e-5.
    amounts /= (20.0, 0.2, 0.05, 0.05)
    assert np.all((amounts.max(axis=0) > 0.8) & (amounts.max(axis=0) < 1.01))
    assert np.all((amounts.min(axis=0) < -0.8) & (amounts.min(axis=0) > -1.01))


def test_image_and_mask_move_as_one() -> None:
    """At all standard movements: the mask names the pixel nearest to the image's coordinates."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    images = np.stack([np.stack([y, x], axis=-1)] * 32).astype(np.float32)
    numbers = np.stack([(WIDTH * y + x)[..., None]] * 32).astype(np.int32)
    places, taken = run(make_keys(32), images, numbers, only(*MOVEMENTS))
    places, taken = np.asarray(places), np.asarray(taken)[..., 0]
    distance = np.abs(np.stack([taken // WIDTH, taken % WIDTH], axis=-1) - places)
    assert distance.max() < 0.5 + 1e-3
    assert np.mean(taken != numbers[..., 0]) > 0.9  # they did move


def test_a_lesions_centre_moves_with_its_image() -> None:
    y, x = np.mgrid[:64, :64]
    blob = ((y - 24) ** 2 + (x - 40) ** 2 < 8**2)[None, :, :, None].repeat(32, axis=0)
    images, masks = run(make_keys(32), blob.astype(np.float32), blob, only(*MOVEMENTS))
    centres = np.array(
        [
            [scipy.ndimage.center_of_mass(np.asarray(part[..., 0], float)) for part in moved]
            for moved in (images, masks)
        ]
    )
    apart = centres[0] - centres[1]  # pixels: a mask's outline has steps of one
    assert np.abs(apart).max() < 0.3
    assert np.abs(apart.mean(axis=0)).max() < 0.05
    assert centres[1].std(axis=0).min() > 5  # they did move


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_masks_keep_their_values_and_type(dtype: Any) -> None:
    masks = np.random.default_rng(0).choice([0, 1, 3, 255], (4, 16, 16, 2)).astype(dtype)
    images = np.ones((4, 16, 16, 1), np.float32)
    moved_images, moved_masks = run(make_keys(4), images, masks, only("flip", "rotation"))
    chex.assert_shape((moved_images, moved_masks), [images.shape, masks.shape])
    assert (moved_images.dtype, moved_masks.dtype) == (np.float32, dtype)
    assert set(np.unique(moved_masks)) == {0, 1, 3, 255}


def test_without_strengths_slices_come_back_and_nothing_is_computed() -> None:
    images, masks = make_slices(3)
    chex.assert_trees_all_equal(
        run(make_keys(3), images, masks, AugmentConfig()), (images, masks), strict=True
    )
    compiled = run.lower(make_keys(3), images, masks, AugmentConfig()).compile()
    assert compiled.cost_analysis().get("flops", 0) == 0


@pytest.mark.parametrize(
    ("off", "nothing"), [("elastic", {"elastic": np.zeros((5, 5, 2))}), ("noise", {"noise": -1})]
)
def test_switching_one_off_leaves_the_others_as_they_were(off: str, nothing: Any) -> None:
    images, masks = make_slices()
    without = dataclasses.replace(STANDARD, **{off: 0.0})
    found = run(jax.random.key(5)[None], images, masks, without)
    expected = run_one(make_draws(5, **nothing), images[0], masks[0], STANDARD)
    assert_same([part[0] for part in found], expected)


def assert_same(found: Any, expected: Any) -> None:
    """Up to rounding: a compiler orders sums as it likes. Ties may fall either way in a mask."""
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-3)
    assert np.mean(np.asarray(found[1]) != np.asarray(expected[1])) < 1e-3


@pytest.mark.parametrize("chosen", [[3], [4, 5, 0, 1, 2, 3], [2, 2, 5, 2, 0, 0]])
def test_a_slice_turns_out_the_same_in_every_batch_and_uncompiled(chosen: list[int]) -> None:
    keys, (images, masks) = make_keys(6), make_slices(6)
    together = run(keys, images, masks, STANDARD)
    places = np.array(chosen)
    apart = run(keys[places], images[places], masks[places], STANDARD)
    assert_same(apart, [part[places] for part in together])
    if len(chosen) == 1:
        assert_same(augment(keys, images, masks, STANDARD), together)


SHARDED = """
import sys
import jax
import numpy as np
from tests.transforms.test_augmentation import STANDARD, make_keys, make_slices, run

assert len(jax.devices()) == 8
axes = (jax.sharding.AxisType.Auto,)
split = jax.NamedSharding(jax.make_mesh((8,), ("b",), axis_types=axes), jax.P("b"))
inputs = jax.device_put((make_keys(8), *make_slices(8)), split)
images, masks = run(*inputs, STANDARD)
assert len(images.sharding.device_set) == len(masks.sharding.device_set) == 8
compiled = run.lower(*inputs, STANDARD).compile().as_text()
assert "all-gather" not in compiled and "all-to-all" not in compiled
np.savez(sys.argv[1], images=images, masks=masks)
"""


def test_a_slice_turns_out_the_same_on_eight_devices(tmp_path: Path) -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    subprocess.run(
        [sys.executable, "-c", SHARDED, str(tmp_path / "sharded.npz")],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=True,
    )
    with np.load(tmp_path / "sharded.npz") as found:
        expected = run(make_keys(8)[:6], *make_slices(6), STANDARD)
        assert_same((found["images"][:6], found["masks"][:6]), expected)


def test_other_keys_give_other_results_and_the_same_key_the_same() -> None:
    images, masks = (np.repeat(part, 6, axis=0) for part in make_slices())
    keys = make_keys(4)[np.array([0, 1, 2, 3, 1, 0])]
    moved = np.asarray(run(keys, images, masks, STANDARD)[0])
    np.testing.assert_allclose(moved[[4, 5]], moved[[1, 0]], atol=1e-6)
    for i in range(4):
        for j in range(i):
            assert np.abs(moved[i] - moved[j]).max() > 0.5


@pytest.mark.parametrize("value", [0.0, -1000.0, 1e-30])
@pytest.mark.parametrize(
    "strengths", [STANDARD, EVERYTHING, dataclasses.replace(STRONG, orientation="none")]
)
def test_a_constant_slice_stays_what_it_is(value: float, strengths: AugmentConfig) -> None:
    images = np.full((6, HEIGHT, WIDTH, 1), value, np.float32)
    moved, _ = run(make_keys(6), images, make_slices(6)[1], strengths)
    np.testing.assert_allclose(moved, images, rtol=1e-4)


def test_the_strongest_changes_stay_finite() -> None:
    chex.assert_tree_all_finite(run(make_keys(6), *make_slices(6), EVERYTHING))


def symmetries(image: np.ndarray) -> list[np.ndarray]:
    """NumPy's four rotations of a picture and of its mirror image."""
    return [np.rot90(side, k) for side in (image, image[:, ::-1]) for k in range(4)]


def test_orientation_is_one_of_the_eight_equally_often_and_exact() -> None:
    count = 160
    image, mask = (part[0] for part in make_slices(1, 12, 12))
    keys = make_keys(count)
    many = [np.repeat(part[None], count, axis=0) for part in (image, mask)]
    images, masks = map(np.asarray, run(keys, *many, AugmentConfig(orientation="any")))
    expected = list(zip(symmetries(image), symmetries(mask), strict=True))
    found = [
        [np.array_equal(i, a) and np.array_equal(m, b) for a, b in expected]
        for i, m in zip(images, masks, strict=True)
    ]
    assert np.all(np.sum(found, axis=1) == 1)
    # Each is there 20 times on average; 4 standard deviations of a binomial are 17.
    assert np.sum(found, axis=0).min() > 3
    assert np.sum(found, axis=0).max() < 37


def test_orientation_needs_square_slices() -> None:
    with pytest.raises(ValueError, match="square"):
        run(make_keys(1), *make_slices(), AugmentConfig(orientation="any"))


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_the_curve_is_numpys_interpolation_through_its_knots(strength: float) -> None:
    draws = make_draws(curve=[1, -1, 0.2, -0.4, 0.9, -0.1])
    before, after, mask = change(draws, AugmentConfig(intensity_curve=strength))
    steps = 1 + strength * np.array([1, -1, 0.2, -0.4, 0.9, -0.1])
    knots = np.concatenate([[0], np.cumsum(steps)]) / steps.sum()
    part = (before - before.min()) / np.ptp(before)
    expected = before.min() + np.ptp(before) * np.interp(part, np.linspace(0, 1, 7), knots)
    np.testing.assert_allclose(after, expected, atol=1e-4)
    np.testing.assert_array_equal(mask, make_slices()[1][0])


def test_what_was_added_later_left_the_draws_as_they_were() -> None:
    """So that a run of an earlier release can be trained again."""
    draws = draw(jax.random.key(7))
    number_key, grain = jax.random.split(jax.random.key(7))
    numbers = jax.random.uniform(number_key, (61,), minval=-1.0, maxval=1.0)
    earlier = [draws.flip, draws.rotation, draws.scale, draws.shift, draws.blur, draws.gamma]
    earlier += [draws.contrast, draws.brightness, draws.noise, draws.elastic]
    np.testing.assert_array_equal(np.concatenate([np.ravel(part) for part in earlier]), numbers)
    later = np.concatenate([draws.orientation, draws.curve])
    assert len(set(np.asarray(numbers)) & set(later)) == 0
    assert draws.grain == grain


DOUBLE = """
import jax
import numpy as np
from tests.transforms.test_augmentation import EVERYTHING, STRONG, make_keys, make_slices, run

for config in (STRONG, EVERYTHING):
    images, masks = run.eval_shape(make_keys(2), *make_slices(2, 16, 16), config)
    assert (images.dtype, masks.dtype) == (np.float32, np.uint8)
"""


def test_in_double_precision_and_under_strict_promotion_slices_stay_single() -> None:
    settings = {"JAX_ENABLE_X64": "1", "JAX_NUMPY_DTYPE_PROMOTION": "strict"}
    subprocess.run(
        [sys.executable, "-c", DOUBLE],
        cwd=Path(__file__).parents[2],
        env=os.environ | settings | {"JAX_PLATFORMS": "cpu"},
        check=True,
    )


def test_equal_strengths_are_compiled_once() -> None:
    traced = jax.jit(chex.assert_max_traces(augment, n=1), static_argnums=3)
    for seed in range(3):
        traced(make_keys(2, seed), *make_slices(2), only("contrast"))


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize(
    ("keys", "images", "masks", "message"),
    [
        (2, (2, 8, 8), (2, 8, 8, 1), "expected images"),
        (2, (2, 8, 8, 1), (2, 8, 9, 1), "expected images"),
        (3, (2, 8, 8, 1), (2, 8, 8, 1), "expected 2 keys, one a slice"),
    ],
)
def test_wrong_shapes_are_named(keys: int, images: Any, masks: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        augment(make_keys(keys), np.zeros(images), np.zeros(masks), STANDARD)
