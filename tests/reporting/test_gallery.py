"""The augmentation's picture: what is in which panel, and that it can be read."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from covid_jax.errors import ConfigError
from covid_jax.reporting import gallery
from covid_jax.reporting.drawing import class_colour
from covid_jax.reporting.gallery import augmentation_gallery, full_range
from covid_jax.transforms.augmentation import AugmentConfig, transform

STANDARD = AugmentConfig.standard()
FLIP = AugmentConfig(flip=True)
SIDE = 32


def make_slices(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise; a disc of class 1 that crosses the left edge, a bar of class 2 in the last slice."""
    y, x = np.mgrid[:SIDE, :SIDE]
    masks = np.repeat(((y - 10) ** 2 + x**2 < 36)[None, :, :, None], count, axis=0).astype(np.uint8)
    masks[-1, 20:24, 8:28] = 2
    images = np.random.default_rng(0).normal(size=masks.shape).astype(np.float32)
    return images, masks


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures instead of files."""
    figures: list[Figure] = []
    monkeypatch.setattr(gallery, "save_figure", lambda figure, path: figures.append(figure))
    return figures


def test_a_picture_7_inches_wide_and_nothing_else_is_written(tmp_path: Path) -> None:
    strengths = AugmentConfig(rotation=20.0, contrast=0.2)
    augmentation_gallery(*make_slices(4), strengths, tmp_path / "augmentation.png")
    assert [path.name for path in tmp_path.iterdir()] == ["augmentation.png"]
    with Image.open(tmp_path / "augmentation.png") as picture:
        assert (picture.format, picture.width) == ("PNG", 7.2 * 150)
        colours = np.asarray(picture.convert("RGB"), float).reshape(-1, 3) / 255
    outline = np.abs(colours - class_colour(1)).max(axis=1) < 0.02
    assert outline.sum() > 100


def test_panels_of_slices_and_of_each_transform(drawn: list[Figure]) -> None:
    images, masks = make_slices(2)
    augmentation_gallery(images, masks, FLIP, Path("unused.png"))
    (figure,) = drawn
    rows, alone = (np.array(part.axes) for part in figure.subfigs)
    assert (len(rows), len(alone)) == (2 * 6, 6)
    shown = [np.asarray(axis.images[0].get_array()) for axis in rows]
    for i in (0, 6):
        np.testing.assert_array_equal(shown[i], images[i // 6, ..., 0])
        flipped = [images[i // 6, ::a, ::b, 0] for a in (1, -1) for b in (1, -1)]
        for result in shown[i + 1 : i + 6]:
            assert any(np.array_equal(result, way) for way in flipped)
    assert [axis.get_title() for axis in alone] == ["left-right", "up-down", "", "", "", ""]
    np.testing.assert_array_equal(alone[0].images[0].get_array(), images[0, :, ::-1, 0])
    np.testing.assert_array_equal(alone[1].images[0].get_array(), images[0, ::-1, :, 0])
    assert [axis.axison for axis in alone] == [True, True, False, False, False, False]


def test_masks_are_outlined_where_they_were_moved_to(drawn: list[Figure]) -> None:
    """Left-right: the disc of radius 6 at the left edge, row 10, is now at the right edge."""
    augmentation_gallery(*make_slices(1), FLIP, Path("unused.png"))
    rows, alone = (part.axes for part in drawn[0].subfigs)
    disc, bar = rows[0].collections
    np.testing.assert_array_equal(disc.get_edgecolor()[0, :3], class_colour(1))
    np.testing.assert_array_equal(bar.get_edgecolor()[0, :3], class_colour(2))
    for axis, left, right in ((rows[0], -0.5, 5.5), (alone[0], SIDE - 6.5, SIDE - 0.5)):
        points = axis.collections[0].get_paths()[0].vertices
        np.testing.assert_allclose(points.min(axis=0), (left, 4.5))
        np.testing.assert_allclose(points.max(axis=0), (right, 15.5))
    assert len(alone[0].collections) == 2 + 2  # with the grid's rows and columns


def test_one_grey_scale_and_no_outline_without_lesion(drawn: list[Figure]) -> None:
    images, masks = make_slices(1)
    augmentation_gallery(images, 0 * masks, AugmentConfig(contrast=0.2), Path("unused.png"))
    shown = [axis for axis in drawn[0].axes if axis.images]
    assert len(shown) == 6 + 2
    scales = {axis.images[0].get_clim() for axis in shown}
    assert scales == {tuple(np.percentile(images, (0.5, 99.5)))}
    assert not any(axis.collections for axis in shown)


def test_full_range_names_every_transform_that_is_on() -> None:
    assert [change.label for change in full_range(STANDARD)] == [
        "left-right", "up-down", "rotation -20°", "rotation +20°", "scale x 0.8", "scale x 1.2",
        "shift -5 %", "shift +5 %", "elastic 2 %", "elastic, opposite", "blur 1 px of 512",
        "noise 0.1 SD", "gamma 0.82", "gamma 1.22", "contrast x 0.8", "contrast x 1.2",
        "brightness -0.2 SD", "brightness +0.2 SD",
    ]  # fmt: skip
    labels = [change.label for change in full_range(AugmentConfig(gamma_correction=np.log(2)))]
    assert labels == ["gamma 0.50", "gamma 2.00"]


def test_a_change_does_what_its_label_says_and_nothing_else() -> None:
    """With every transform switched on, against closed forms."""
    strengths = dataclasses.replace(STANDARD, blur=10.0)  # seen in so small a slice
    images, masks = make_slices(1)
    image = images[0, ..., 0].astype(float)
    part = (image - image.min()) / np.ptp(image)
    expected: dict[str, Any] = {
        "left-right": image[:, ::-1],
        "up-down": image[::-1],
        "gamma 0.82": image.min() + np.ptp(image) * part ** np.exp(-0.2),
        "contrast x 1.2": image.mean() + 1.2 * (image - image.mean()),
        "brightness -0.2 SD": image - 0.2 * image.std(),
    }
    apply = jax.jit(transform, static_argnums=3)
    found = {}
    for change in full_range(strengths):
        found[change.label], _ = apply(change.draws, images[0], masks[0], strengths)
    for label, values in expected.items():
        np.testing.assert_allclose(found[label][..., 0], values, atol=1e-4)
    np.testing.assert_allclose(np.std(found["noise 0.1 SD"][..., 0] - image), 0.1, rtol=0.1)
    assert len({np.asarray(values).tobytes() for values in found.values()}) == 18


def test_nothing_to_show_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="all strengths are 0"):
        augmentation_gallery(*make_slices(1), AugmentConfig(), tmp_path / "none.png")
    assert list(tmp_path.iterdir()) == []
