"""Grey values, tints and outlines against hand-drawn pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covid_jax.reporting.drawing import (
    CLASSES,
    FALSE_ALARM,
    HIT,
    MISS,
    class_colour,
    class_regions,
    outlined,
    painted,
    to_grey,
    window_of,
)
from covid_jax.reporting.figures import new_figure, save_figure
from tests.support.limits import no_file_grows_beyond


def drawn(*rows: str) -> np.ndarray:
    """A mask drawn in characters: # is inside."""
    return np.array([[character == "#" for character in row] for row in rows])


def test_hu_is_shown_through_a_lung_window_and_pictures_by_their_range() -> None:
    hu = np.array([[-1350.0, -600.0, 150.0, 3000.0]])
    np.testing.assert_array_equal(to_grey(hu), [[0, 127, 255, 255]])
    np.testing.assert_array_equal(to_grey(np.array([[10, 20, 30]])), [[0, 127, 255]])
    np.testing.assert_array_equal(to_grey(np.array([[-200, 0, 200]])), [[0, 127, 255]])


@pytest.mark.parametrize("value", [0, 255, 1000, -100])
def test_a_constant_picture_is_black(value: int) -> None:
    grey = to_grey(np.full((2, 3), value, np.int16))
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey, np.zeros((2, 3)))


def test_a_window_is_shown_black_to_white() -> None:
    np.testing.assert_array_equal(
        to_grey(np.array([[0, 50, 100, 200]]), (50, 150)), [[0, 0, 127, 255]]
    )
    assert window_of(-1000, 400) == (-1350, 150)
    assert window_of(0, 255) == (0, 255)


def test_classes_are_outlined_by_their_own_pixels() -> None:
    """A square of 4 x 4, and one pixel of the second class; the inside keeps its grey."""
    ids = np.zeros((6, 8), np.uint8)
    ids[1:5, 1:5], ids[0, 7] = 1, 2
    picture = outlined(np.full((6, 8), -600), ids, (-1350, 150))
    edge = ids == 1
    edge[2:4, 2:4] = False
    for number, pixels in ((1, edge), (2, ids == 2)):
        colour = (np.array(class_colour(number)) * 255).astype(np.uint8)
        np.testing.assert_array_equal((picture == colour).all(-1), pixels)
    dark = np.zeros_like(edge)  # a line around both, which bone cannot hide
    dark[0:6, 0:6], dark[0:2, 6:8] = True, True
    dark &= ids == 0
    assert (picture[dark] == 0).all()
    assert (picture[(ids != 2) & ~edge & ~dark] == 127).all()


def test_regions_are_tinted_in_their_order() -> None:
    """A tint of strength 0.65 leaves 0.35 of what lies below."""
    grey = np.array([[0, 100, 200, 200]], np.uint8)
    first, second = drawn("##.."), drawn(".##.")
    picture = painted(grey, [(first, (1.0, 0.0, 0.0)), (second, (0.0, 0.0, 1.0))])
    assert picture.dtype == np.uint8
    below = np.array([0.35 * 100 + 0.65 * 255, 0.35 * 100, 0.35 * 100])
    expected = [
        [0.65 * 255, 0, 0],
        0.35 * below + [0, 0, 0.65 * 255],
        [0.35 * 200, 0.35 * 200, 0.35 * 200 + 0.65 * 255],
        [200, 200, 200],
    ]
    np.testing.assert_allclose(picture[0], expected, atol=1)
    np.testing.assert_array_equal(grey, [[0, 100, 200, 200]])


def test_full_strength_covers_what_lies_below() -> None:
    picture = painted(np.full((1, 2), 99, np.uint8), [(drawn("#."), HIT)], strength=1.0)
    np.testing.assert_allclose(picture[0, 0], np.array(HIT) * 255, atol=1)
    np.testing.assert_array_equal(picture[0, 1], 3 * [99])


def test_each_class_has_its_pixels_and_a_colour_of_its_own() -> None:
    ids = np.array([[0, 1, 3], [3, 0, 1]], np.uint8)
    regions = class_regions(ids)
    assert [colour for _, colour in regions] == [CLASSES[0], CLASSES[1], CLASSES[2]]
    for (region, _), mask in zip(
        regions, (drawn(".#.", "..#"), drawn("...", "..."), drawn("..#", "#..")), strict=True
    ):
        np.testing.assert_array_equal(region, mask)
    assert class_regions(np.zeros((2, 2), np.uint8)) == []


def test_no_two_colours_of_a_figure_are_alike() -> None:
    """Squared distances in RGB; after the last class the colours begin again."""
    colours = np.array([HIT, FALSE_ALARM, MISS, *CLASSES])
    distances = ((colours[:, None] - colours[None]) ** 2).sum(-1) + np.eye(len(colours))
    assert distances.min() > 0.05
    assert class_colour(1) == CLASSES[0]
    assert class_colour(len(CLASSES) + 1) == CLASSES[0]


def test_a_figure_is_written_whole_in_its_size(tmp_path: Path) -> None:
    save_figure(new_figure(2.0, 1.0), tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.size == (300, 150)  # 150 dots an inch
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_a_disk_that_fills_leaves_the_old_figure(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"figure.{ending}"
    path.write_text("old")
    with no_file_grows_beyond(500), pytest.raises(OSError, match="File too large"):
        save_figure(new_figure(2.0, 1.0), path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_names_with_dollar_signs_are_no_formulas(tmp_path: Path) -> None:
    """matplotlib would refuse 1_ between two of them."""
    figure = new_figure(2.0, 1.0)
    figure.suptitle("slice$1_$2")
    figure.subplots().set_title("cost$1_$2")
    save_figure(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 0
