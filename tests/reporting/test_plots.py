"""Figures of many slices: what is drawn is what was given, and they are written without a word."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from covid_jax.metrics.calibration import Calibration
from covid_jax.metrics.confusion import THRESHOLDS
from covid_jax.reporting.figures import COLUMN, PAGE, save_figure
from covid_jax.reporting.plots import (
    area_figure,
    reliability_figure,
    scatter_figure,
    sweep_figure,
)


def bins(*counts: tuple[int, int, int], unit: str = "px") -> dict[str, Any]:
    """Lesions found, missed and false in bins from 0, 100, 200, ..."""
    parts = [
        {"low": 100.0 * i, "high": 100.0 * (i + 1), "detected": d, "missed": m, "false": f}
        for i, (d, m, f) in enumerate(counts)
    ]
    parts[-1]["high"] = None
    return {"unit": unit, "bins": parts}


def lines(axes: Axes, style: str | None = None) -> list[tuple[list[float], list[float]]]:
    """Points of each line, or of those of one style."""
    return [
        (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
        for line in axes.lines
        if style is None or style in (line.get_marker(), line.get_linestyle())
    ]


def heights(axes: Axes) -> list[float]:
    return [bar.get_height() for bar in axes.patches]


def texts(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


FEW = bins((3, 2, 4), (5, 0, 0), (6, 1, 2))


def test_dice_stands_against_area_in_slices_with_a_lesion() -> None:
    left, right = area_figure(np.array([10.0, 0, 300]), np.array([0.2, 1, 0.8]), FEW, "px").axes
    assert lines(left) == [([10.0, 300.0], [0.2, 0.8])]
    assert left.get_xscale() == "log"
    assert left.get_xlabel() == "lesion area in the slice (pixels)"
    assert heights(right) == [3, 5, 6, 2, 0, 1, -4, 0, -2]
    missed = right.patches[3:6]
    assert [bar.get_y() for bar in missed] == [3, 5, 6]  # on top of those found
    assert [tick.get_text() for tick in right.get_xticklabels()] == [
        "under 100",
        "100–200",  # noqa: RUF001
        "from 200",
    ]
    assert texts(right) == ["found", "missed", "false"]


def test_false_lesions_count_downwards_in_positive_numbers() -> None:
    right = area_figure(np.array([1.0]), np.array([0.5]), FEW, "px").axes[1]
    assert right.yaxis.get_major_formatter()(-4, None) == "4"
    low, high = right.get_ylim()
    assert low < -4
    assert high > 7


def test_quarters_have_their_medians() -> None:
    """Eight slices in no order: quarters of two."""
    areas = np.array([80.0, 10, 70, 20, 60, 30, 50, 40])
    dices = np.array([0.8, 0.0, 0.6, 0.2, 0.9, 0.3, 0.5, 0.4])
    left = area_figure(areas, dices, bins((0, 0, 0)), "mm2").axes[0]
    medians = [line for line in lines(left, "-") if line[0]]
    assert [x for x, _ in medians] == [[10, 20], [30, 40], [50, 60], [70, 80]]
    np.testing.assert_allclose([y[0] for _, y in medians], [0.1, 0.35, 0.7, 0.7])
    assert all(y[0] == y[1] for _, y in medians)
    assert left.get_xlabel() == "lesion area in the slice (mm²)"
    assert texts(left) == ["median of a quarter of the slices"]
    few = area_figure(areas[:7], dices[:7], bins((0, 0, 0)), "mm2").axes[0]
    assert len(lines(few)) == 1


def test_the_sweep_has_a_line_a_curve_and_a_mark_a_threshold() -> None:
    curves = {"test slices": THRESHOLDS**2, "others": 1 - THRESHOLDS}
    (axes,) = sweep_figure(curves, {"one half": 0.5, "chosen": 0.125}).axes
    drawn = lines(axes)
    assert [y for _, y in drawn[:2]] == [(THRESHOLDS**2).tolist(), (1 - THRESHOLDS).tolist()]
    assert all(x == THRESHOLDS.tolist() for x, _ in drawn[:2])
    assert [x for x, _ in drawn[2:]] == [[0.5, 0.5], [0.125, 0.125]]
    assert texts(axes) == ["test slices", "others", "one half: 0.5", "chosen: 0.125"]
    assert len({line.get_linestyle() for line in axes.lines[:2]}) == 2


def hand_made() -> Calibration:
    """Of four bins one is empty; 10 pixels, 4 of them lesion."""
    return Calibration(
        np.array([5, 0, 3, 2]),
        np.array([0.5, 0, 1.8, 1.8]),
        np.array([1, 0, 1, 2]),
        squared_error=2.5,
        absolute_error=4.0,
    )


def test_reliability_is_the_share_of_lesion_against_the_mean_probability() -> None:
    upper, lower = reliability_figure(hand_made()).axes
    ((x, y),) = lines(upper, "o")
    np.testing.assert_allclose(x, [0.1, np.nan, 0.6, 0.9])
    np.testing.assert_allclose(y, [0.2, np.nan, 1 / 3, 1.0])
    gaps = abs(0.5 - 1) + abs(1.8 - 1) + abs(1.8 - 2)
    assert upper.get_title() == f"ECE {gaps / 10:.4f}, Brier 0.2500"
    assert heights(lower) == [5, 0, 3, 2]
    middles = [bar.get_x() + bar.get_width() / 2 for bar in lower.patches]
    np.testing.assert_allclose(middles, [0.125, 0.375, 0.625, 0.875])
    assert lower.get_yscale() == "log"


NONE = np.zeros(3), np.ones(3)
FLAT = THRESHOLDS * 0


@pytest.mark.parametrize(
    "figure",
    [
        area_figure(np.arange(40.0), np.linspace(0, 1, 40), FEW, "px"),
        area_figure(*NONE, bins((0, 0, 0), (0, 0, 0)), "px"),  # no lesion anywhere
        area_figure(np.full(9, 7.0), np.ones(9), FEW, "mm2"),
        sweep_figure({"$x": FLAT}, {"one half": 0.5}),
        reliability_figure(hand_made()),
        scatter_figure(["a $b", "\udce9"], [np.array([np.nan]), np.array([0.5])], "Dice"),
    ],
)
def test_it_is_written_as_png_and_pdf_of_a_papers_width(figure: Figure, tmp_path: Path) -> None:
    for ending, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        save_figure(figure, tmp_path / f"figure.{ending}")
        assert (tmp_path / f"figure.{ending}").read_bytes().startswith(start)
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width in {round(150 * width) for width in (COLUMN, PAGE, COLUMN)}
