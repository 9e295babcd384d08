"""Calibration by hand, pixel by pixel, and of maps whose calibration is known."""

import math

import numpy as np
import pytest

from covid_jax.metrics.calibration import Calibration, calibration_scores
from tests.support.annotations import unchecked

P = np.array([[0.1, 0.3, 0.3], [0.6, 0.9, 1.0]])
G = np.array([[0, 0, 1], [1, 0, 1]], bool)


def test_by_hand() -> None:
    """Two bins: .1 .3 .3 with one lesion pixel, .6 .9 1 with two."""
    found = calibration_scores(P, G, bins=2)
    assert found.pixels.tolist() == [3, 3]
    assert found.confidence == pytest.approx([0.7 / 3, 2.5 / 3])
    assert found.frequency == pytest.approx([1 / 3, 2 / 3])
    assert found.ece == pytest.approx(3 / 6 * (1 - 0.7) / 3 + 3 / 6 * (2.5 - 2) / 3)
    assert found.brier == pytest.approx((0.1**2 + 0.3**2 + 0.7**2 + 0.4**2 + 0.9**2) / 6)
    assert found.mae == pytest.approx((0.1 + 0.3 + 0.7 + 0.4 + 0.9) / 6)


def test_bins_are_closed_below_and_the_last_above_too() -> None:
    edges = np.array([[0.0, 0.25, 0.5, 0.75, 1.0]])
    found = calibration_scores(edges, edges > 1, bins=4)
    assert found.pixels.tolist() == [1, 1, 1, 2]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_against_a_loop_over_pixels(kind: type) -> None:
    """Fifteen bins unless told otherwise; an empty bin has no confidence."""
    rng = np.random.default_rng(0)
    p = rng.random((30, 40)).astype(kind) ** 3
    p[(p > 0.4) & (p < 7 / 15)] = 0  # the seventh bin of fifteen stays empty
    g = rng.random(p.shape) < p
    found = calibration_scores(p, g)
    assert found.pixels.size == 15
    ece = 0.0
    for k in range(15):
        low, high = k / 15, (k + 1) / 15
        inside = (p >= low) & (p < high)
        assert found.pixels[k] == inside.sum()
        if not inside.any():
            assert k == 6
            assert math.isnan(found.confidence[k])
            assert math.isnan(found.frequency[k])
            continue
        assert found.confidence[k] == pytest.approx(p[inside].mean(dtype=float))
        assert found.frequency[k] == pytest.approx(g[inside].mean())
        ece += inside.mean() * abs(p[inside].mean(dtype=float) - g[inside].mean())
    assert found.ece == pytest.approx(ece)
    assert found.brier == pytest.approx(((p.astype(float) - g) ** 2).mean(), rel=1e-12)
    assert found.mae == pytest.approx(np.abs(p.astype(float) - g).mean(), rel=1e-12)


def test_slices_add_up_to_one_large_slice() -> None:
    """Pixels weigh alike, whatever the size of their slice."""
    rng = np.random.default_rng(1)
    p, g = rng.random((12, 10)), rng.random((12, 10)) < 0.3
    total = calibration_scores(p[:3], g[:3]).add(calibration_scores(p[3:], g[3:]))
    whole = calibration_scores(p, g)
    for part, expected in zip(total, whole, strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-12)
    assert total.ece == pytest.approx(whole.ece)
    assert isinstance(total, Calibration)


def test_other_bins_do_not_add_up() -> None:
    with unchecked(), pytest.raises(ValueError, match="broadcast"):
        calibration_scores(P, G, bins=2).add(calibration_scores(P, G, bins=3))


@pytest.mark.parametrize(
    ("p", "g", "ece", "brier", "mae"),
    [
        pytest.param(0.0, False, 0, 0, 0, id="clean and sure of it"),
        pytest.param(1.0, True, 0, 0, 0, id="lesion and sure of it"),
        pytest.param(1.0, False, 1, 1, 1, id="sure and wrong"),
        pytest.param(0.25, False, 0.25, 0.0625, 0.25, id="clean and not sure"),
    ],
)
def test_constant_maps(p: float, g: bool, ece: float, brier: float, mae: float) -> None:
    found = calibration_scores(np.full((4, 5), p), np.full((4, 5), g))
    assert (found.ece, found.brier, found.mae) == pytest.approx((ece, brier, mae))


def test_a_calibrated_map_has_little_error_and_a_sharpened_one_more() -> None:
    """Of p drawn evenly and lesion with probability p, the Brier score is E p(1-p) = 1/6."""
    rng = np.random.default_rng(2)
    p = rng.random((500, 500))
    g = rng.random(p.shape) < p
    honest, overconfident = calibration_scores(p, g), calibration_scores((p > 0.5).astype(float), g)
    assert honest.ece < 0.006
    assert honest.brier == pytest.approx(1 / 6, abs=0.002)
    assert overconfident.ece == pytest.approx(1 / 4, abs=0.005)


@pytest.mark.parametrize(
    ("p", "g", "bins", "message"),
    [
        (P, G.T, 15, "one shape"),
        (P, G.astype(int), 15, "boolean mask, got int64"),
        (P + 0.1, G, 15, r"in \[0, 1\], got float64 from 0.2 to 1.1"),
        (P - 0.2, G, 15, "from -0.1"),
        (np.where(G, np.nan, P), G, 15, "nan"),
        ((P * 255).astype(np.uint8), G, 15, "got uint8"),
        (P, G, 0, "at least one bin, got 0"),
    ],
)
def test_refuses(p: np.ndarray, g: np.ndarray, bins: int, message: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        calibration_scores(p, g, bins)
