"""Lesions found, missed and made up: by hand, and against a flood fill."""

import math

import numpy as np
import pytest

from covid_jax.metrics.lesion_detection import (
    Lesions,
    detection_by_size,
    match_lesions,
)
from tests.support.annotations import unchecked

# Four lesions: two pixels joined by a corner, one pixel on the border, a bar, a square.
TRUTH = np.array(
    [
        [1, 0, 0, 0, 0, 0, 0, 1],
        [0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 1, 1],
    ],
    bool,
)
# It finds half of the first, a quarter of the bar, the square whole, and makes up two.
PREDICTION = np.array(
    [
        [0, 0, 0, 0, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 1, 1],
        [0, 0, 1, 1, 0, 1, 1, 1],
    ],
    bool,
)
NOTHING, ALL = np.zeros_like(TRUTH), np.ones_like(TRUTH)


def flood(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Components by walking to all eight neighbours, by their first pixel."""
    left = {(int(r), int(c)) for r, c in np.argwhere(mask)}
    components = []
    for start in sorted(left):
        if start not in left:
            continue
        component, front = set(), [start]
        left.discard(start)
        while front:
            r, c = front.pop()
            component.add((r, c))
            near = {(r + y, c + x) for y in (-1, 0, 1) for x in (-1, 0, 1)} & left
            left -= near
            front += near
        components.append(component)
    return components


def test_by_hand() -> None:
    lesions = match_lesions(PREDICTION, TRUTH)
    assert lesions.areas.tolist() == [2, 1, 4, 4]
    assert lesions.covered.tolist() == [1 / 2, 0, 1 / 4, 1]
    assert lesions.detected.tolist() == [True, False, True, True]
    # The pair in the last row lies beside the bar, but covers none of it.
    assert lesions.false_areas.tolist() == [1, 2]


def test_areas_in_mm2() -> None:
    lesions = match_lesions(PREDICTION, TRUTH).scaled(0.49)
    np.testing.assert_allclose(lesions.areas, [0.98, 0.49, 1.96, 1.96])
    np.testing.assert_allclose(lesions.false_areas, [0.49, 0.98])
    assert lesions.covered.tolist() == [1 / 2, 0, 1 / 4, 1]


@pytest.mark.parametrize(
    ("prediction", "truth", "areas", "detected", "false"),
    [
        pytest.param(NOTHING, NOTHING, [], [], [], id="clean and left alone"),
        pytest.param(NOTHING, TRUTH, [2, 1, 4, 4], [False] * 4, [], id="all missed"),
        pytest.param(TRUTH, NOTHING, [], [], [2, 1, 4, 4], id="all made up"),
        pytest.param(ALL, TRUTH, [2, 1, 4, 4], [True] * 4, [], id="one finds four"),
        pytest.param(TRUTH, ALL, [40], [True], [], id="four find one"),
        pytest.param(ALL, ALL, [40], [True], [], id="everywhere and found"),
    ],
)
def test_corners(prediction, truth, areas, detected, false) -> None:
    lesions = match_lesions(prediction, truth)
    assert lesions.areas.tolist() == areas
    assert lesions.detected.tolist() == detected
    assert lesions.false_areas.tolist() == false


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5])
def test_against_a_flood_fill(density: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        prediction, truth = rng.random((2, 17, 23)) < density
        marked, true = ({tuple(p) for p in np.argwhere(mask)} for mask in (prediction, truth))
        lesions = match_lesions(prediction, truth)
        components = flood(truth)
        assert lesions.areas.tolist() == [len(one) for one in components]
        shares = [len(one & marked) / len(one) for one in components]
        np.testing.assert_allclose(lesions.covered, shares)
        made_up = [len(one) for one in flood(prediction) if not one & true]
        assert lesions.false_areas.tolist() == made_up


def test_bins_by_hand() -> None:
    """Areas 2 (found), 1 (missed), 4, 4 (found), 3 (missed); false ones of 1, 2 and 9; a clean
    slice counts among the slices."""
    clean = Lesions(np.empty(0), np.empty(0), np.empty(0))
    other = Lesions(np.array([3.0]), np.array([0.0]), np.array([9.0]))
    slices = [match_lesions(PREDICTION, TRUTH), other, clean]
    small, middle, large, huge = detection_by_size(slices, [2, 4, 100])
    assert tuple(small) == (0, 2, 1, 0, 1, 1, 0, 1 / 3)
    assert tuple(middle) == (2, 4, 2, 1, 1, 1, 1 / 2, 1 / 3)
    assert tuple(large) == (4, 100, 2, 2, 0, 1, 1, 1 / 3)
    assert huge[:6] == (100, math.inf, 0, 0, 0, 0)
    assert math.isnan(huge.sensitivity)
    (everything,) = detection_by_size(slices)
    assert tuple(everything) == (0, math.inf, 5, 3, 2, 3, 3 / 5, 1)


def test_bins_of_no_slices() -> None:
    (nothing,) = detection_by_size([])
    assert nothing[2:6] == (0, 0, 0, 0)
    assert math.isnan(nothing.sensitivity)
    assert math.isnan(nothing.false_per_slice)


@pytest.mark.parametrize("edges", [[0], [-1], [4, 2], [2, 2], [math.nan], [math.inf]])
def test_bins_refuse_edges_that_do_not_increase(edges: list[float]) -> None:
    with unchecked(), pytest.raises(ValueError, match="edges that increase"):
        detection_by_size([], edges)


def test_refuses() -> None:
    with unchecked(), pytest.raises(ValueError, match="two slices of one shape"):
        match_lesions(TRUTH, TRUTH.T)
    with unchecked(), pytest.raises(ValueError, match="boolean mask, got int64"):
        match_lesions(TRUTH.astype(np.int64), TRUTH)
