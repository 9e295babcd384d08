"""The contact sheet and the augmentation's examples, looked at before they are written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from covid_jax.data import Slice, SliceDataset
from covid_jax.reporting import contact_sheet as pictures
from covid_jax.reporting.contact_sheet import augmentation_examples, contact_sheet
from covid_jax.reporting.drawing import class_colour
from covid_jax.transforms.augmentation import AugmentConfig

CLASSES = ("ground_glass", "effusion")


def make_dataset(count: int, shape: tuple[int, int] = (40, 60)) -> SliceDataset:
    """Slices s00, s01, ...: grey ramps with 6 x 6 pixels of class 1 and 3 x 12 of class 2."""
    slices = []
    for i in range(count):
        image = np.arange(shape[0] * shape[1], dtype=np.int16).reshape(shape) + 7 * i
        mask = np.zeros(shape, np.uint8)
        mask[5:11, 5:11], mask[20:23, 20:32] = 1, 2
        slices.append(Slice(f"s{i:02d}", "ramps", None, None, image, mask))
    return SliceDataset("hand-made", tuple(slices), 16, classes=CLASSES)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would have been written."""
    figures: list[Figure] = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: figures.append(figure))
    return figures


def shown(figure: Figure) -> list[Any]:
    return [axis for axis in figure.axes if axis.images]


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [
        (1, 48, [0]),
        (5, 48, [0, 1, 2, 3, 4]),
        (9, 3, [0, 4, 8]),
        (11, 6, [0, 2, 4, 6, 8, 10]),
        (48, 48, list(range(48))),
    ],
)
def test_a_sheet_shows_slices_spread_evenly(
    tmp_path: Path, kept: list[Figure], count: int, most: int, expected: list[int]
) -> None:
    contact_sheet(make_dataset(count), tmp_path / "sheet.png", most)
    (figure,) = kept
    titles = [axis.get_title().split("\n") for axis in shown(figure)]
    assert [title[0] for title in titles] == [f"s{i:02d}" for i in expected]
    assert {title[1] for title in titles} == {"40x60, lesion 3 %"}  # 72 of 2400 pixels
    assert figure.get_suptitle().startswith(f"hand-made: {len(expected)} of {count} slices")
    assert not any(axis.axison for axis in figure.axes)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(CLASSES)
    colours = [handle.get_color() for handle in legend.get_lines()]
    assert colours == [class_colour(1), class_colour(2)]


def test_lesions_are_outlined_on_the_slice_itself(tmp_path: Path, kept: list[Figure]) -> None:
    """40 x 60 pixels are drawn as 160 x 240, four times as large."""
    contact_sheet(make_dataset(1), tmp_path / "sheet.png")
    (axis,) = shown(kept[0])
    picture = np.asarray(axis.images[0].get_array())
    assert picture.shape == (160, 240, 3)
    found = []
    for number in (1, 2):
        colour = np.array(class_colour(number)) * 255
        found.append(np.argwhere((np.abs(picture - colour) <= 1).all(-1)))
    for pixels, (top, left, height, width) in zip(
        found, ((20, 20, 24, 24), (80, 80, 12, 48)), strict=True
    ):
        assert len(pixels) == 2 * height + 2 * width - 4
        assert pixels.min(0).tolist() == [top, left]
        assert pixels.max(0).tolist() == [top + height - 1, left + width - 1]
    grey = picture.astype(float).std(-1) == 0
    assert grey.sum() == 160 * 240 - sum(map(len, found))
    rows = picture[..., 0].mean(1)  # the ramp rises from row to row
    assert (np.diff(rows[100:]) >= -0.5).all()
    assert rows[-1] > rows[0] + 200


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((480, 240), (240, 120)), ((100, 300), (80, 240)), ((240, 240), (240, 240))],
)
def test_a_thumbnail_keeps_the_slices_aspect(
    tmp_path: Path, kept: list[Figure], shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    contact_sheet(make_dataset(1, shape), tmp_path / "sheet.png")
    (axis,) = shown(kept[0])
    assert np.asarray(axis.images[0].get_array()).shape == (*expected, 3)


def test_slices_without_lesion_are_said_to_be_so(tmp_path: Path, kept: list[Figure]) -> None:
    image = np.zeros((4, 5), np.uint8)
    clean = SliceDataset("clean", (Slice("a", "x", None, None, image, image),), 16)
    contact_sheet(clean, tmp_path / "sheet.png")
    (axis,) = shown(kept[0])
    assert axis.get_title() == "a\n4x5, no lesion"


def test_a_sheet_is_written_into_a_new_folder(tmp_path: Path) -> None:
    """10.8 inches at 150 dots, two inches a row of six and 0.8 besides."""
    contact_sheet(make_dataset(7), tmp_path / "new/folder/sheet.png")
    with Image.open(tmp_path / "new/folder/sheet.png") as picture:
        assert picture.size == (1620, 720)


def test_augmentation_is_shown_on_three_slices_as_the_network_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple] = []
    monkeypatch.setattr(pictures, "augmentation_gallery", lambda *given: drawn.append(given))
    dataset, path = make_dataset(9, (16, 16)), tmp_path / "new/examples.png"
    dataset.slices[4].mask[:] = 2
    augmentation_examples(dataset, AugmentConfig.standard(), path)
    ((images, masks, strengths, given_path),) = drawn
    assert (strengths, given_path) == (AugmentConfig.standard(), path)
    assert path.parent.is_dir()
    assert (images.shape, masks.shape) == ((3, 16, 16, 1), (3, 16, 16, 1))
    for image, mask, i in zip(images, masks, (0, 4, 8), strict=True):
        values = dataset.slices[i].image.astype(float)
        expected = (values - values.mean()) / values.std()
        np.testing.assert_allclose(image[..., 0], expected, atol=1e-4)
        np.testing.assert_array_equal(mask[..., 0], dataset.slices[i].mask)
