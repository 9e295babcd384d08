"""Pictures of slices and predictions: which slices, which colours, and that one can be read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covid_jax.reporting import example_figures as figures
from covid_jax.reporting.drawing import FALSE_ALARM, HIT, MISS, class_colour, painted
from covid_jax.reporting.example_figures import Example, choose, example_grid
from covid_jax.reporting.figures import save_figure


def ids(*rows: str) -> np.ndarray:
    """Class ids of a mask written as digits, a dot for background."""
    return np.array([[int(c.replace(".", "0")) for c in row] for row in rows], np.uint8)


def panels(monkeypatch: pytest.MonkeyPatch, example: Example) -> list[np.ndarray]:
    """The four pictures of a row, as they are before matplotlib scales them."""
    shown = []

    def note_down(grey: np.ndarray, regions: list) -> np.ndarray:
        picture = painted(grey, regions)
        shown.append(picture[0])
        return picture

    monkeypatch.setattr(figures, "painted", note_down)
    example_grid([example], "by hand", ("one", "two"))
    return shown


def test_the_overlay_tells_hits_false_alarms_and_misses_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found; falsely marked; missed; nothing; class 2 taken for 1, which is a miss of 2."""
    example = Example("s", np.full((1, 5), 7), ids("1.1.2"), ids("11..1"), 0.5)
    truth, prediction, overlay = panels(monkeypatch, example)
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
        save_figure(example_grid(examples, "a caption", ("mask",)), path)
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width == 1080
            assert picture.height == pytest.approx(150 * (2.0 * count + 0.7), abs=2)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["1.png", "3.png"]
