"""Figures of compared runs: whose masks and Dice they show, and what they refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from covid_jax.data import SliceDataset
from covid_jax.errors import RunError
from covid_jax.evaluation.compare import read_scored
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.reporting import example_figures as module
from covid_jax.reporting.drawing import FALSE_ALARM, HIT, MISS, class_colour, painted
from covid_jax.reporting.example_figures import Example, draw_comparison, method_grid
from covid_jax.reporting.figures import PAGE, save_figure
from covid_jax.reporting.plots import scatter_figure
from tests.support.scored import PATIENTS, keep, random_slices, skilled, values


@pytest.fixture(scope="module")
def dataset() -> SliceDataset:
    return random_slices(PATIENTS)


@pytest.fixture(scope="module")
def scores(dataset: SliceDataset) -> list[list[SliceScores]]:
    return [skilled(dataset, skill) for skill in (0.0, 0.1)]


@pytest.fixture
def runs(tmp_path: Path, dataset: SliceDataset, scores: list[list[SliceScores]]) -> list[Path]:
    for name, each in zip("ab", scores, strict=True):
        keep(tmp_path / name, dataset, each)
    return [tmp_path / name for name in "ab"]


def draw(runs: list[Path], dataset: SliceDataset, out: Path) -> None:
    draw_comparison(read_scored(runs, "test"), dataset, out)


def ids(*rows: str) -> np.ndarray:
    """Class ids of a mask written as digits, a dot for background."""
    return np.array([[int(c.replace(".", "0")) for c in row] for row in rows], np.uint8)


def test_pictures_show_each_run_s_own_masks_and_dice(
    runs: list[Path],
    dataset: SliceDataset,
    scores: list[list[SliceScores]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the slices that the first one finds best, typical and worst."""
    drawn: dict[str, Any] = {}
    grid, scatter = module.method_grid, module.scatter_figure

    def note_grid(methods: dict[str, list[Example]]) -> Any:
        drawn.update(methods)
        return grid(methods)

    def note_scatter(names: list[str], columns: list[np.ndarray], metric: str) -> Any:
        drawn["scatter"] = columns
        return scatter(names, columns, metric)

    monkeypatch.setattr(module, "method_grid", note_grid)
    monkeypatch.setattr(module, "scatter_figure", note_scatter)
    draw(runs, dataset, tmp_path / "out")
    for column, each in zip(drawn.pop("scatter"), scores, strict=False):
        np.testing.assert_allclose(column, values(each), atol=1e-12)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["methods.pdf", "methods.png", "scatter.pdf", "scatter.png"]
    assert list(drawn) == ["a", "b"]
    ranked = np.argsort(values(scores[0]))
    ids = [example.id for example in drawn["a"]]
    assert {f"s{ranked[0]}", f"s{ranked[1]}", f"s{ranked[-2]}", f"s{ranked[-1]}"} < set(ids)
    assert len(ids) == 7
    for name, each in zip("ab", scores, strict=False):
        assert [example.id for example in drawn[name]] == ids
        for example in drawn[name]:
            one = each[int(example.id[1:])]
            np.testing.assert_array_equal(example.prediction, one.prediction)
            np.testing.assert_array_equal(example.truth, one.truth)
            assert example.dice == pytest.approx(one.dice, abs=1e-6)


def keep_two_masks(path: Path) -> None:
    np.savez_compressed(path, **{str(i): np.zeros((12, 12), np.uint8) for i in range(2)})


def keep_large_masks(path: Path) -> None:
    np.savez_compressed(path, **{str(i): np.zeros((13, 12), np.uint8) for i in range(24)})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (Path.unlink, "no usable masks"),
        (lambda path: path.write_bytes(b"PK"), "no usable masks"),
        (keep_two_masks, "not of its slices; score the run again"),
        (keep_large_masks, "not of its slices; score the run again"),
    ],
)
def test_masks_that_are_not_the_run_s_leave_nothing_behind(
    runs: list[Path],
    dataset: SliceDataset,
    tmp_path: Path,
    spoil: Callable[[Path], Any],
    said: str,
) -> None:
    spoil(runs[1] / "eval/test/masks.npz")
    with pytest.raises(RunError, match=said):
        draw(runs, dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_of_other_data_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="other data than is given for figures"):
        draw(runs, random_slices(["p"]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_of_slices_that_the_data_lacks_are_named(
    runs: list[Path], dataset: SliceDataset, tmp_path: Path
) -> None:
    for run in runs:
        path = run / "eval/test/slices.csv"
        path.write_text(path.read_text().replace("s3,", "t3,"))
    with pytest.raises(RunError, match=r"the data has no slice t3"):
        draw(runs, dataset, tmp_path / "out")


def method_examples(*predictions: str) -> list[Example]:
    """Slices of five pixels: found, false, missed, nothing, and one of another class."""
    truth = ids("1.1.2")
    return [
        Example(f"s{i}", np.full((1, 5), 7), truth, ids(row), 0.1 * i)
        for i, row in enumerate(predictions)
    ]


def test_each_method_has_a_column_between_slice_and_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row a slice; every method's own prediction and Dice."""
    monkeypatch.setattr(module, "painted", lambda grey, regions: painted(grey, regions, 1.0))
    methods = {
        "first": method_examples("11..1", "....."),
        "second": method_examples("1.1.2", "...1."),
    }
    figure = method_grid(methods)
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
    figure = method_grid({f"method {i}": examples for i in range(methods)})
    save_figure(figure, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.width <= 1080
        assert picture.height > 100 * slices


@pytest.mark.parametrize("others", [1, 2, 4])
def test_each_run_is_drawn_against_the_first(others: int) -> None:
    columns = [np.array([0.1, np.nan, 0.9]) + 0.01 * i for i in range(others + 1)]
    names = [f"run {i}" for i in range(others + 1)]
    figure = scatter_figure(names, columns, "Dice")
    assert len(figure.axes) == others
    assert figure.get_figwidth() <= PAGE
    for number, axes in enumerate(figure.axes, start=1):
        (points,) = (line for line in axes.lines if line.get_marker() == ".")
        np.testing.assert_array_equal(points.get_xdata(), columns[0])
        np.testing.assert_array_equal(points.get_ydata(), columns[number])
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("Dice, run 0", f"Dice, run {number}")
        assert axes.get_aspect() == 1.0
