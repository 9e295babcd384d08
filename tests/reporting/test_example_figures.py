"""Pictures of slices and predictions: which slices, which colours, and that one can be read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covid_jax.reporting import example_figures as figures
from covid_jax.reporting.drawing import (
    FALSE_ALARM,
    HIT,
    MISS,
    class_colour,
    class_regions,
    outline,
    painted,
    save_figure,
    to_grey,
)
from covid_jax.reporting.example_figures import Example, choose, example_grid

GREY_100 = 100 / 255


def ids(*rows: str) -> np.ndarray:
    """Class ids of a mask written as digits, a dot for background."""
    return np.array([[int(c.replace(".", "0")) for c in row] for row in rows], np.uint8)


def tinted(colour: tuple[float, float, float]) -> np.ndarray:
    """What 65 % of a colour over grey 100 gives."""
    return 255 * (0.35 * GREY_100 + 0.65 * np.array(colour))


def test_hu_is_shown_through_a_lung_window_and_pictures_by_their_range() -> None:
    """Level -600, width 1500: black at -1350, white at 150."""
    hu = np.array([[-1350.0, -600.0, 150.0, 3000.0]])
    np.testing.assert_array_equal(to_grey(hu), [[0, 127, 255, 255]])
    np.testing.assert_array_equal(to_grey(np.array([[10, 20, 30]])), [[0, 127, 255]])
    np.testing.assert_array_equal(to_grey(np.full((1, 2), 7)), [[0, 0]])


def test_regions_are_painted_over_grey_in_their_order() -> None:
    grey = np.full((1, 3), 100, np.uint8)
    first, second = np.array([[True, True, False]]), np.array([[False, True, False]])
    picture = painted(grey, [(first, HIT), (second, MISS)])
    assert picture.dtype == np.uint8
    twice = 0.35 * tinted(HIT) + 0.65 * 255 * np.array(MISS)
    np.testing.assert_allclose(picture[0], [tinted(HIT), twice, [100] * 3], atol=1)
    solid = painted(grey, [(first, HIT)], strength=1.0)
    np.testing.assert_allclose(solid[0, 0], 255 * np.array(HIT), atol=1)


def test_an_outline_is_the_rim_within_the_mask() -> None:
    """By hand; what lies at the picture's edge touches the outside too."""
    mask = ids("11111.", "11111.", "11111.", "......", "1.....")
    expected = ids("11111.", "1...1.", "11111.", "......", "1.....")
    np.testing.assert_array_equal(outline(mask > 0), expected > 0)


def test_classes_have_colours_that_are_no_verdict() -> None:
    """Four of their own, then over again; none is that of a hit, a false alarm or a miss."""
    colours = [class_colour(k) for k in range(1, 6)]
    assert len({*colours[:4], HIT, FALSE_ALARM, MISS}) == 7
    assert colours[4] == colours[0]
    regions = class_regions(ids("13", ".1"))
    assert [colour for _, colour in regions] == colours[:3]
    assert [region.tolist() for region, _ in regions] == [
        [[True, False], [False, True]],
        [[False, False], [False, False]],
        [[False, True], [False, False]],
    ]
    assert class_regions(ids("..")) == []


def panels(monkeypatch: pytest.MonkeyPatch, example: Example, path: Path) -> list[np.ndarray]:
    """The four pictures of a row, as they are before matplotlib scales them."""
    shown = []

    def note_down(grey: np.ndarray, regions: list) -> np.ndarray:
        picture = painted(grey, regions)
        shown.append(picture[0])
        return picture

    monkeypatch.setattr(figures, "painted", note_down)
    example_grid([example], path, "by hand", ("one", "two"))
    return shown


def test_the_overlay_tells_hits_false_alarms_and_misses_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found; falsely marked; missed; nothing; class 2 taken for 1, which is a miss of 2."""
    example = Example("s", np.full((1, 5), 7), ids("1.1.2"), ids("11..1"), 0.5)
    truth, prediction, overlay = panels(monkeypatch, example, tmp_path / "one.png")
    one, two = class_colour(1), class_colour(2)
    black = [0.0, 0.0, 0.0]
    expected = {
        "truth": (truth, [one, black, one, black, two]),
        "prediction": (prediction, [one, one, black, black, one]),
        "overlay": (overlay, [HIT, FALSE_ALARM, MISS, black, MISS]),
    }
    for name, (picture, colours) in expected.items():
        np.testing.assert_allclose(picture, 0.65 * 255 * np.array(colours), atol=1, err_msg=name)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (2, 2), (3, 3), (7, 7), (40, 7)])
def test_examples_run_from_best_to_worst_without_repeats(count: int, rows: int) -> None:
    blank = np.zeros((2, 2))
    examples = [Example(str(i), blank, blank > 0, blank > 0, i / 40) for i in range(count)]
    chosen = choose(examples)
    assert len(chosen) == rows
    assert len({example.id for _, example in chosen}) == rows
    scores = [example.dice for _, example in chosen]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == (count - 1) / 40
    assert scores[-1] == 0.0


def test_typical_slices_stand_at_the_quartiles() -> None:
    """Of 41 slices with Dice 0, 0.025, ... 1."""
    blank = np.zeros((2, 2))
    chosen = choose([Example(str(i), blank, blank, blank, i / 40) for i in range(41)])
    assert {label: example.dice for label, example in chosen} == {
        "best": 1.0,
        "2nd best": 0.975,
        "upper quartile": 0.75,
        "median": 0.5,
        "lower quartile": 0.25,
        "2nd worst": 0.025,
        "worst": 0.0,
    }


def test_the_figure_has_a_row_an_example(tmp_path: Path) -> None:
    """Of any sizes; a PNG under its name alone, 7.2 inches wide at 150 dots each."""
    rng = np.random.default_rng(0)
    for count in (1, 3):
        examples = [
            Example(
                str(i),
                rng.normal(size=(20 + i, 30)),
                ids("1" * 30) * np.ones((20 + i, 1), np.uint8),
                np.zeros((20 + i, 30), np.uint8),
                0.1 * i,
            )
            for i in range(count)
        ]
        path = tmp_path / f"{count}.png"
        example_grid(examples, path, "a caption")
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width == 1080
            assert picture.height == pytest.approx(150 * (1.85 * count + 0.7), abs=2)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["1.png", "3.png"]


def method_examples(*predictions: str) -> list[Example]:
    """Slices of five pixels: found, false, missed, nothing, and one of another class."""
    truth = ids("1.1.2")
    return [
        Example(f"s{i}", np.full((1, 5), 7), truth, ids(row), 0.1 * i)
        for i, row in enumerate(predictions)
    ]


def test_each_method_has_a_column_between_slice_and_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row a slice; every method's own prediction and Dice."""
    monkeypatch.setattr(figures, "painted", lambda grey, regions: painted(grey, regions, 1.0))
    methods = {
        "first": method_examples("11..1", "....."),
        "second": method_examples("1.1.2", "...1."),
    }
    figure = figures.method_grid(methods)
    grid = np.reshape(figure.axes, (2, 4))
    assert [axis.get_title() for axis in grid[0]] == ["slice", "first", "second", "truth"]
    assert [axis.get_ylabel() for axis in grid[:, 0]] == ["s0", "s1"]
    assert [axis.get_xlabel() for axis in grid[1]] == ["", "Dice 0.100", "Dice 0.100", ""]
    black = (0.0, 0.0, 0.0)
    one, two = class_colour(1), class_colour(2)
    shown = {
        (0, 1): [HIT, FALSE_ALARM, MISS, black, MISS],
        (0, 2): [HIT, black, HIT, black, HIT],
        (0, 3): [one, black, one, black, two],
        (1, 1): [MISS, black, MISS, black, MISS],
        (1, 2): [MISS, black, MISS, FALSE_ALARM, MISS],
    }
    for place, colours in shown.items():
        picture = np.asarray(grid[place].images[0].get_array())
        np.testing.assert_allclose(picture[0], 255 * np.array(colours), atol=1, err_msg=str(place))


@pytest.mark.parametrize(("methods", "slices"), [(1, 1), (2, 7), (6, 2)])
def test_the_grid_of_methods_is_no_wider_than_a_page(
    tmp_path: Path, methods: int, slices: int
) -> None:
    """At 150 dots an inch; six methods are made smaller."""
    examples = method_examples(*["1...."] * slices)
    figure = figures.method_grid({f"method {i}": examples for i in range(methods)})
    save_figure(figure, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.width <= 1080
        assert picture.height > 100 * slices
