"""The curves of a run: what is drawn is what was recorded."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from covid_jax.reporting import plots
from covid_jax.reporting.figures import save_figure

ROWS = [
    {"epoch": 1, "train_loss": 0.9, "val_loss": 0.8, "val_dice": 0.1, "learning_rate": 1e-3},
    {"epoch": 2, "train_loss": 0.5, "val_loss": 0.4, "val_dice": 0.7, "learning_rate": 1e-3},
    {"epoch": 3, "train_loss": 0.3, "val_loss": 0.6, "val_dice": 0.6, "learning_rate": 5e-4},
]


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Figure:
    kept: list[Figure] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: kept.append(figure))
    plots.draw_curves(ROWS, tmp_path / "curves.png", "the data")
    save_figure(kept[0], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 2 * picture.height
    return kept[0]


def test_each_curve_holds_what_was_recorded(drawn: Figure) -> None:
    loss, dice, rate = drawn.axes
    shown = {
        "train_loss": loss.lines[0],
        "val_loss": loss.lines[1],
        "val_dice": dice.lines[0],
        "learning_rate": rate.lines[0],
    }
    for name, line in shown.items():
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
        np.testing.assert_array_equal(line.get_ydata(), [row[name] for row in ROWS])
    assert [text.get_text() for text in loss.get_legend().get_texts()] == [
        "training (augmented)",
        "validation",
    ]


def test_the_best_epoch_is_that_of_the_lowest_validation_loss(drawn: Figure) -> None:
    loss, dice, _ = drawn.axes
    assert loss.lines[-1].get_xdata() == dice.lines[-1].get_xdata() == [2, 2]
    assert "best epoch 2" in dice.get_title()


def test_one_epoch_can_be_drawn(tmp_path: Path) -> None:
    plots.draw_curves(ROWS[:1], tmp_path / "curves.png", "one")
    assert (tmp_path / "curves.png").stat().st_size > 1000
