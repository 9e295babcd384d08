"""The common grey scale: known tissues in known windows, and real slices."""

import csv

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from covid_jax.transforms import grey_scale
from covid_jax.transforms.grey_scale import (
    HOUNSFIELD,
    find_grey_scale,
    find_grey_scales,
    hounsfield_problem,
    looks_like_hounsfield,
    otsu,
)

AIR, LUNG, FAT, MUSCLE, BONE = -1000, -860, -110, 40, 600


def chest(size: int = 128, noise: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """A slice in HU (a body of muscle under fat, a spine, two lungs) and its lungs."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    lungs = ((np.abs(x) - 0.16) / 0.1) ** 2 + (y / 0.18) ** 2 < 1
    image = np.full((size, size), float(AIR))
    image[(x / 0.42) ** 2 + (y / 0.32) ** 2 < 1] = FAT
    image[(x / 0.37) ** 2 + (y / 0.27) ** 2 < 1] = MUSCLE
    image[(x / 0.05) ** 2 + ((y - 0.2) / 0.05) ** 2 < 1] = BONE
    rng = np.random.default_rng(0)
    # Lungs vary: a lower quartile of -860 HU and a twentieth below -890, as measured in patients.
    texture = ndimage.gaussian_filter(rng.normal(size=image.shape), 2)
    image[lungs] = -840 + 30 * (texture / texture.std())[lungs]
    return image + rng.normal(0, noise, image.shape), lungs


def windowed(image: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.uint8(np.clip((image - low) / (high - low), 0, 1) * 255)


def test_hounsfield_units_have_a_fixed_scale():
    values = HOUNSFIELD.apply(np.array([-3024, -860, -410, 40, 3000], np.int16))
    np.testing.assert_allclose(values, [-0.2, 0, 0.5, 1, 1.1], atol=1e-6)
    assert values.dtype == np.float32


WINDOWS = {"lung": (-1350, 150), "wide": (-1000, 1550), "narrow": (-1000, 60)}


@pytest.mark.parametrize("window", ["lung", "wide", "narrow"])
def test_a_window_is_undone(window):
    image, lungs = chest()
    low, high = WINDOWS[window]
    scale = find_grey_scale(windowed(image, low, high), lungs)
    grey = (high - low) / 255  # HU of one grey level
    assert scale.fallback is None
    assert low + grey * scale.lung == pytest.approx(LUNG, abs=12 + grey)
    assert low + grey * scale.soft_tissue == pytest.approx(MUSCLE, abs=12 + 2 * grey)


def test_lung_window_and_hounsfield_units_look_alike():
    image, lungs = chest()
    picture = windowed(image, *WINDOWS["lung"])
    apart = find_grey_scale(picture, lungs).apply(picture) - HOUNSFIELD.apply(image)
    assert np.abs(apart).mean() < 0.02
    assert np.abs(apart - np.median(apart)).max() < 0.05


@pytest.mark.parametrize("value", [0, 255])
def test_padding_changes_nothing(value):
    image, lungs = chest()
    picture = windowed(image, *WINDOWS["wide"])
    wide = [np.pad(part, 40) for part in (picture, lungs)]
    if value:
        wide[0][:, :20] = value
    assert find_grey_scale(wide[0], wide[1])[:2] == pytest.approx(
        find_grey_scale(picture, lungs)[:2], abs=2.5
    )


def test_half_a_consolidated_lung_moves_nothing():
    image, lungs = chest()
    picture = windowed(image, *WINDOWS["lung"])
    dense = lungs.copy()
    dense[:64] = False
    ill = np.where(dense, windowed(image * 0 + 20, *WINDOWS["lung"]), picture)
    assert find_grey_scale(ill, lungs)[:2] == pytest.approx(
        find_grey_scale(picture, lungs)[:2], abs=3
    )


def test_diffuse_ground_glass_moves_nothing():
    """Four fifths of the lungs are ill: their quartile and their mode are ground glass."""
    image, lungs = chest()
    ill = image.copy()
    rows = np.nonzero(lungs)[0]
    ill[lungs & (np.arange(128)[:, None] > np.quantile(rows, 0.2))] += 250
    scales = [find_grey_scale(windowed(one, *WINDOWS["lung"]), lungs) for one in (image, ill)]
    assert scales[1][:2] == pytest.approx(scales[0][:2], abs=6)  # 35 HU


def test_missing_tissues_are_said():
    flat = find_grey_scale(np.full((32, 32), 7.0))
    assert flat.fallback == "the slice is constant"
    np.testing.assert_array_equal(flat.apply(np.full((2, 2), 7.0)), 0)
    image, lungs = chest()
    picture = windowed(image, *WINDOWS["lung"])
    abdomen = find_grey_scale(picture, np.zeros_like(lungs))
    assert abdomen.fallback == "no lung in the slice"
    assert abdomen.soft_tissue > abdomen.lung
    all_lung = find_grey_scale(picture, np.ones_like(lungs))
    assert all_lung.fallback == "no soft tissue"


def test_a_slice_without_lung_takes_the_scans_scale():
    image, lungs = chest()
    picture = windowed(image, *WINDOWS["lung"])
    scales = find_grey_scales(
        np.stack([picture, picture]), False, np.stack([lungs, np.zeros_like(lungs)])
    )
    assert scales[0].fallback is None
    assert scales[1].fallback == "no lung in the slice"
    assert scales[0][:2] == scales[1][:2]
    assert find_grey_scales(np.zeros((2, 4, 4)), True) == [HOUNSFIELD, HOUNSFIELD]


def test_otsu_of_two_values_lies_between():
    assert 10 < otsu([10] * 30 + [90] * 5) < 90
    near = np.float32(1) + np.float32(2e-7) * np.arange(4, dtype=np.float32)  # few float32s apart
    assert near.min() < otsu(near) <= near.max()


PROBLEMS = {
    "intercept": (lambda image: image + 1024, "intercept lost"),
    "ten": (lambda image: image * 10, "by ten"),
    "fraction": (lambda image: windowed(image, -1000, 400) / 255, "fractions"),
    "picture": (lambda image: windowed(image, -1000, 400), "8-bit"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_cannot_be_hounsfield_units_is_said(name):
    change, words = PROBLEMS[name]
    stack = change(chest()[0])[None]
    assert words in (hounsfield_problem(stack) or "")
    assert not looks_like_hounsfield(stack)


@pytest.mark.parametrize("change", [np.maximum, np.minimum])
def test_a_part_without_lung_or_tissue_does_not_look_like_a_chest(change):
    """0 HU and more is no lung, -400 HU and less no soft tissue; both may still be HU."""
    limit = {np.maximum: 0, np.minimum: -400}[change]
    stack = change(chest()[0], limit)[None]
    assert not looks_like_hounsfield(stack)
    assert hounsfield_problem(stack) is None


def test_hounsfield_units_are_known_with_and_without_padding():
    stack = chest()[0][None].astype(np.int16)
    assert looks_like_hounsfield(stack)
    assert hounsfield_problem(stack) is None
    padded = np.pad(stack, ((0, 0), (0, 0), (0, 32)), constant_values=-2000)
    assert looks_like_hounsfield(padded)
    assert hounsfield_problem(padded) is None
    assert "intercept lost" in hounsfield_problem(np.where(padded > -2000, padded + 1024, -2000))
    assert not looks_like_hounsfield(np.full((1, 8, 8), -2000))


@pytest.mark.parametrize("slices", range(12, 20))
def test_the_number_of_slices_does_not_decide_what_is_seen(monkeypatch, slices):
    """128 x 128 x 16 voxels, 2048 at most: every 128th is in the first column, which is air."""
    monkeypatch.setattr(grey_scale, "_SAMPLE", 2048)
    stack = np.repeat(chest()[0][None], slices, 0).astype(np.int16)
    assert looks_like_hounsfield(stack)


def test_real_scans_and_pictures(real_data):
    nibabel = pytest.importorskip("nibabel")
    for name in ("hu_scans/P001", "hu_scans/cap001", "hu_scans/lidc_normal_2", "io/chest_ct_hu"):
        scan = np.asarray(nibabel.load(real_data / f"{name}.nii.gz").dataobj)
        assert looks_like_hounsfield(scan), name
    equalised = np.asarray(nibabel.load(real_data / "radiopaedia/rp_im/6.nii.gz").dataobj)
    assert "8-bit" in (hounsfield_problem(equalised) or "")


def test_real_soft_tissue_is_what_was_noted(real_data):
    """coronacases_window notes each slice's soft-tissue grey; lung is near -860 HU there."""
    folder = real_data / "coronacases_window"
    for row in list(csv.DictReader((folder / "slices.csv").read_text().splitlines()))[::60]:
        image = np.array(Image.open(folder / "images" / f"{row['name']}.jpg").convert("L"))
        scale = find_grey_scale(image)
        noted = float(row["soft_tissue_grey"])
        assert scale.fallback is None
        assert scale.soft_tissue == pytest.approx(noted, rel=0.03)
        assert -1000 + 1050 * scale.lung / noted == pytest.approx(-860, abs=60)
