"""Planted copies, bodies that only look alike, the definition in plain loops, and real slices."""

import csv
import itertools
from functools import partial
from pathlib import Path

import jax
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d

from covid_jax.splits import near_duplicates
from covid_jax.splits.near_duplicates import similar_pairs

Box = tuple[float, float, float, float]  # top, bottom, left, right, of the side


@partial(jax.jit, static_argnames="size")
def resample(image: jax.Array, scale: jax.Array, shift: jax.Array, size: int) -> jax.Array:
    return jax.image.scale_and_translate(image, (size, size), (0, 1), scale, shift, "linear")


def zoom(image: np.ndarray, size: int, box: Box = (0, 1, 0, 1)) -> np.ndarray:
    """The box of a picture, resized with antialiasing to size x size: jax's resize."""
    top, bottom, left, right = box
    scale = np.array([size / (bottom - top), size / (right - left)], np.float32) / image.shape[0]
    shift = -np.array([top, left], np.float32) * image.shape[0] * scale
    return np.asarray(resample(image.astype(np.float32), scale, shift, size))


def chest(seed: int, size: int = 128) -> np.ndarray:
    """One outline of body and lungs, in HU, the same for all; its texture is the seed's own.

    The texture is smooth noise, some 5 of 128 pixels wide.
    """
    noise = np.random.default_rng(seed).standard_normal((size, size))
    texture = gaussian_filter(noise, size / 64)
    texture /= texture.std()
    y, x = np.mgrid[-1 : 1 : 1j * size, -1 : 1 : 1j * size]
    body = np.where((x / 0.9) ** 2 + (y / 0.8) ** 2 < 1, 200 * texture, -1000)
    lungs = ((np.abs(x) - 0.42) / 0.34) ** 2 + (y / 0.66) ** 2 < 1
    return np.where(lungs, 300 * texture - 700, body)


CHANGES = {
    "copy": (lambda image: image, 0.999),
    "other units": (lambda image: 0.01 * image + 7, 0.999),
    "little contrast": (lambda image: 0.01 * image + 1000, 0.999),
    "16-bit codes": (lambda image: (10 * (image + 3000)).astype(np.uint16), 0.999),
    "cut off at 30 HU": (lambda image: np.minimum(image, 30), 0.9),
    "noise": (lambda image: image + np.random.default_rng(9).normal(0, 50, image.shape), 0.9),
    "shifted down": (lambda image: np.roll(image, 6, 0), 0.9),
    "shifted up left": (lambda image: np.roll(image, (-6, -6), (0, 1)), 0.9),
    "shifted by 2.5 %": (lambda image: np.roll(image, 3, 1), 0.75),
    "without its top 5 %": (lambda image: zoom(image, 128, (0.05, 1, 0, 1)), 0.95),
    "without 5 % left, below": (lambda image: zoom(image, 128, (0, 0.95, 0.05, 1)), 0.95),
    "without 5 % of its width": (lambda image: zoom(image, 128, (0, 1, 0.025, 0.975)), 0.95),
    "without 5 % around": (lambda image: zoom(image, 128, (0.025, 0.975, 0.025, 0.975)), 0.95),
    "without 3 % around": (lambda image: zoom(image, 128, (0.015, 0.985, 0.015, 0.985)), 0.75),
}


@pytest.mark.parametrize("change", CHANGES)
def test_finds_a_planted_copy(change: str) -> None:
    """Among bodies with the same outline; in both directions, as either may be the changed one."""
    alter, least = CHANGES[change]
    others = [chest(seed) for seed in range(1, 5)]
    for images in ([chest(0), *others, alter(chest(0))], [alter(chest(0)), *others, chest(0)]):
        ((i, j, correlation),) = similar_pairs(np.stack(images))
        assert (i, j) == (0, 5)
        assert least <= correlation <= 1


@pytest.mark.parametrize("size", [32, 64, 100, 256])
def test_finds_them_at_any_size(size: int) -> None:
    images = np.stack([zoom(chest(seed, 256), size) for seed in (0, 1, 2, 0, 1)])
    pairs = similar_pairs(images.astype(np.float32))
    assert [pair[:2] for pair in pairs] == [(0, 3), (1, 4)]
    np.testing.assert_allclose([pair[2] for pair in pairs], 1, atol=1e-3)


def test_bodies_of_one_outline_are_not_alike() -> None:
    """The plain correlation of whole pictures would take all of them for one: it is above 0.7."""
    images = np.stack([chest(seed) for seed in range(16)])
    assert np.corrcoef(images.reshape(16, -1)).min() > 0.7
    assert similar_pairs(images) == []


def test_fill_outside_the_field_of_view_does_not_make_slices_alike() -> None:
    """A rim of 2000 HU around every slice changes nothing: neither hides nor makes a pair."""
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    images = np.stack([chest(seed) for seed in (*range(8), 3)])
    images[:, x**2 + y**2 > 1] = -3024
    ((i, j, correlation),) = similar_pairs(images)
    assert (i, j) == (3, 8)
    assert correlation > 0.999


def boxes_of(image: np.ndarray) -> list[np.ndarray]:
    """What is compared: boxes that lack up to 5 % of either side, as 32 x 32 pixels less a blur.

    Values below the 5th and above the 95th percentile, of all but the smallest value, are cut off.
    """
    ordered = np.sort(image[image > image.min()])
    ranks = 0.05 * (len(ordered) - 1), 0.95 * (len(ordered) - 1)
    low, high = np.interp(ranks, range(len(ordered)), ordered).tolist()
    small = zoom(np.minimum(np.maximum(image, low), high), 64)
    kernel = np.exp(-0.5 * np.arange(-4, 5) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    boxes = []
    ends = [(0, 1), (0, 0.95), (0.05, 1), (0.025, 0.975)]
    for (top, bottom), (left, right) in itertools.product(ends, ends):
        box = zoom(small, 32, (top, bottom, left, right))
        boxes.append(box - convolve2d(np.pad(box, 4, mode="edge"), kernel, "valid"))
    return boxes


def test_is_its_definition_in_plain_loops() -> None:
    """Slices of all degrees of likeness, from a copy's to a stranger's."""
    first, second = chest(0, 96), chest(1, 96)
    other = zoom(second, 96, (0, 0.93, 0.02, 1))
    images = [first, 0.5 * first + 0.5 * second, np.roll(first, (2, -3), (0, 1)), other]
    boxes = [boxes_of(image) for image in images]
    expected = [
        (i, j, max(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a in boxes[i] for b in boxes[j]))
        for i, j in itertools.combinations(range(4), 2)
    ]
    found = similar_pairs(np.stack(images), threshold=0.05)
    assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert min(pair[2] for pair in expected) < 0.6 < 0.8 < max(pair[2] for pair in expected)


def test_threshold_is_what_divides() -> None:
    """Blends of two chests: the pairs at a threshold are those whose own correlation reaches it."""
    first, second = chest(0), chest(1)
    images = np.stack([(1 - share) * first + share * second for share in np.linspace(0, 1, 7)])
    everything = similar_pairs(images, threshold=0.01)
    assert len(everything) == 7 * 6 / 2
    for threshold in (0.7, 0.9, everything[0][2]):
        expected = [pair for pair in everything if pair[2] >= threshold]
        assert 0 < len(expected) < len(everything)
        assert similar_pairs(images, threshold) == expected


def test_pairs_come_once_and_in_order_however_many_slices() -> None:
    """Of 150 slices of noise, four are copies of slices far away, and one has two copies."""
    images = np.random.default_rng(0).normal(size=(150, 32, 32))
    planted = [(0, 149), (5, 64), (5, 130), (63, 70), (64, 130), (100, 101)]
    for i, j in planted:
        images[j] = images[i]
    pairs = similar_pairs(images)
    assert [pair[:2] for pair in pairs] == planted
    assert all(type(i) is int and type(j) is int for i, j, _ in pairs)


@pytest.mark.parametrize("value", [0.0, -1000.0, 1024.3, 65535.0])
@pytest.mark.parametrize("size", [32, 200])
def test_slices_of_one_value_are_like_nothing(value: float, size: int) -> None:
    """Not like each other, not like a chest; and no division by their spread of zero."""
    flat = np.full((size, size), value, np.float32)
    rounded = flat.copy()
    rounded[::2, ::3] += np.spacing(flat[0, 0]) if value else 0
    images = np.stack([flat, flat, rounded, rounded, *[zoom(chest(0), size)] * 2])
    assert [pair[:2] for pair in similar_pairs(images, threshold=0.01)] == [(4, 5)]


def test_a_slice_of_two_values_has_its_copy() -> None:
    """Here the percentiles, which leave out the smallest value, coincide."""
    images = np.zeros((4, 64, 64), np.uint8)
    images[0, 20:30, 10:50] = images[2, 20:30, 10:50] = 1
    images[1, 35:40, 10:20] = 1
    assert [pair[:2] for pair in similar_pairs(images)] == [(0, 2)]


def test_marks_in_opposite_corners_are_not_alike_where_they_are_missing() -> None:
    """A box that leaves the mark out is empty, and like no other empty one."""
    images = np.full((4, 64, 64), 1000.3, np.float32)
    images[0, 0, 0], images[1, -1, -1], images[2, 0, -1], images[3, 0, 0] = 900, 800, 1100, 950
    assert [pair[:2] for pair in similar_pairs(images, threshold=0.1)] == [(0, 3)]


@pytest.mark.parametrize("count", [0, 1])
def test_few_slices_make_no_pair(count: int) -> None:
    assert similar_pairs(np.stack([chest(0), chest(1)])[:count]) == []


def test_reads_a_mapped_file(tmp_path: Path) -> None:
    codes = np.stack([chest(0), chest(1), chest(0)])
    codes = (10 * (codes + 3000)).astype(np.uint16)
    np.save(tmp_path / "codes.npy", codes)
    mapped = np.load(tmp_path / "codes.npy", mmap_mode="r")
    assert [pair[:2] for pair in similar_pairs(mapped)] == [(0, 2)]


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize("shape", [(64, 64), (2, 64, 64, 1)])
def test_refuses_what_is_no_stack(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="slices, rows, columns"):
        similar_pairs(np.zeros(shape))


def shrink(image: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(image, np.float32))
    return np.asarray(picture.resize((128, 128), Image.Resampling.BILINEAR))


def test_finds_the_pairs_that_leak_in_covid_semiseg(real_data: Path) -> None:
    """The two that the data's README names, and only pairs that are by eye of one patient.

    Vessels, bronchi and fissures agree in all of them; the first pair below 0.7 is of two patients.
    """
    root = real_data / "covid_semiseg"
    train = [*(root / "TrainingSet/LungInfection-Train/Doctor-label/Imgs").iterdir()]
    test = [*(root / "TestingSet/LungInfection-Test/Imgs").iterdir()]
    images = []
    for path in train + test:
        with Image.open(path) as picture:
            images.append(shrink(np.asarray(picture.convert("L"))))
    names = [int(path.stem) for path in train + test]
    pairs = similar_pairs(np.stack(images))
    assert [{names[i], names[j]} for i, j, c in pairs if c > 0.99] == [{10, 43}]  # both in train
    across = {(names[i], names[j]): c for i, j, c in pairs if i < len(train) <= j}
    assert min(across[5, 93], across[17, 91]) > 0.9
    one_patient = set(itertools.product((4, 5, 17, 46), (64, 83, 91, 93)))
    others = {(33, 97), (53, 21)}
    assert others <= across.keys() <= one_patient | others


def test_tells_neighbours_from_strangers_in_radiopaedia(real_data: Path) -> None:
    """367 slices of 8 patients: 53,834 pairs of two patients, 357 neighbours in one volume."""
    root = real_data / "radiopaedia"
    with (root / "patients.csv").open() as file:
        patient_of = {row["volume"]: row["patient"] for row in csv.DictReader(file)}
    images, places = [], []
    for volume in patient_of:
        stack = np.asarray(nib.load(root / f"rp_im/{volume}.nii.gz").dataobj).T  # pyright: ignore
        images += [shrink(image) for image in stack]
        places += [(volume, index) for index in range(len(stack))]
    patients = [patient_of[volume] for volume, _ in places]
    pairs = similar_pairs(np.stack(images))
    strangers = [pair for pair in pairs if patients[pair[0]] != patients[pair[1]]]
    found = {pair[:2] for pair in pairs}
    neighbours = [i for i in range(366) if places[i][0] == places[i + 1][0]]
    assert strangers == []
    assert len(neighbours) == 357
    assert sum((i, i + 1) in found for i in neighbours) / 357 > 0.98


def test_principal_components_lose_no_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 slices, by fours alike: the short way reports what the comparison of all reports."""
    rng = np.random.default_rng(0)
    bases = gaussian_filter(rng.normal(size=(20, 40, 40)), (0, 2, 2))
    own = gaussian_filter(rng.normal(size=(80, 40, 40)), (0, 2, 2))
    images = np.repeat(bases, 4, axis=0) + 0.5 * own
    whole = similar_pairs(images)
    monkeypatch.setattr(near_duplicates, "_FEW", 40)
    done: list[tuple[int, int]] = []
    reduced = similar_pairs(images, progress=lambda *slices: done.append(slices))
    assert [pair[:2] for pair in reduced] == [pair[:2] for pair in whole]
    assert {(i // 4, j // 4) for i, j, _ in whole} == {(k, k) for k in range(20)}
    np.testing.assert_allclose([p[2] for p in reduced], [p[2] for p in whole], atol=1e-6)
    assert done == [(64, 80), (80, 80)]
