"""Distances between boundaries: by hand, against all pairs of pixels, and against MONAI."""

import itertools
import math

import numpy as np
import pytest
from scipy import ndimage

from covid_jax.metrics.surface_distance import (
    SURFACE_METRICS,
    SurfaceScores,
    boundary,
    summarize_surface,
    surface_scores,
)
from tests.support.annotations import unchecked

SHAPE = 12, 9
NOTHING, ALL = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
ANISOTROPIC = (0.7, 1.9)


def box(rows: slice, columns: slice) -> np.ndarray:
    mask = NOTHING.copy()
    mask[rows, columns] = True
    return mask


def ring() -> np.ndarray:
    mask = box(slice(2, 9), slice(1, 8))
    mask[4:7, 3:6] = False
    return mask


ONE, CORNER = box(slice(5, 6), slice(4, 5)), box(slice(0, 1), slice(8, 9))
BORDER, SQUARE = box(slice(0, 4), slice(0, 9)), box(slice(3, 9), slice(2, 7))
MASKS = {
    "one": ONE,
    "corner": CORNER,
    "border": BORDER,
    "square": SQUARE,
    "ring": ring(),
    "full": ALL,
}
PAIRS = [(a, b) for a in MASKS for b in MASKS]


def random_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Noise of several densities, and blobs against blobs that overlap in part."""
    rng = np.random.default_rng(0)
    noise = [(rng.random(SHAPE) < a, rng.random(SHAPE) < a) for a in (0.03, 0.3, 0.7, 0.97)]
    field = [ndimage.gaussian_filter(rng.standard_normal((40, 31)), 3) for _ in range(5)]
    blobs = [(a > 0, a + b > 0.05) for a, b in itertools.pairwise(field)]
    return [(a, b) for a, b in noise + blobs if a.any() and b.any()]


def all_pairs(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Each boundary pixel's nearest among the other's, found by looking at all of them."""

    def edge(mask: np.ndarray) -> np.ndarray:
        rows, columns = mask.shape
        return np.array(
            [
                (r, c)
                for r, c in np.argwhere(mask)
                if any(
                    not (0 <= y < rows and 0 <= x < columns) or not mask[y, x]
                    for y, x in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1))
                )
            ]
        ) * np.array(spacing)

    p, g = edge(prediction), edge(truth)
    distances = np.sqrt(((p[:, None] - g[None]) ** 2).sum(-1))
    return distances.min(1), distances.min(0)


def test_by_hand() -> None:
    """One pixel against a bar of three, 4 rows below: 4, and 4, sqrt 17, sqrt 20 the other way."""
    prediction, truth = box(slice(2, 3), slice(3, 4)), box(slice(6, 7), slice(3, 6))
    back = 4, math.sqrt(17), math.sqrt(20)
    scores = surface_scores(prediction, truth, tolerance=4)
    assert scores.hausdorff == pytest.approx(back[2])
    # The 95th percentile of three lies 0.9 of the way from the second to the third.
    assert scores.hd95 == pytest.approx(0.1 * back[1] + 0.9 * back[2])
    assert scores.assd == pytest.approx((4 + sum(back)) / 4)
    assert scores.nsd == 2 / 4
    assert scores[4:] == (4, 0)


def test_spacing_is_rows_then_columns_in_mm() -> None:
    down = surface_scores(ONE, np.roll(ONE, 3, 0), 0.3, (0.1, 1.9))
    right = surface_scores(ONE, np.roll(ONE, 3, 1), 0.3, (0.1, 1.9))
    assert down.hausdorff == pytest.approx(3 * 0.1)
    assert right.hausdorff == pytest.approx(3 * 1.9)
    assert (down.nsd, right.nsd) == (1, 0)  # 3 * 0.1 > 0.3 in floating point


def test_boundary_has_the_border_of_the_slice_and_of_holes() -> None:
    """Of a full slice its frame; around a hole the sides, not the corners."""
    assert boundary(ALL).sum() == 2 * 12 + 2 * 9 - 4
    outer, inner = 4 * 7 - 4, 4 * 3
    assert boundary(ring()).sum() == outer + inner
    assert not boundary(ring())[3, 2]


@pytest.mark.parametrize("spacing", [None, ANISOTROPIC])
@pytest.mark.parametrize(
    ("prediction", "truth", "rule"),
    [
        pytest.param(NOTHING, NOTHING, 0, id="both empty"),
        pytest.param(NOTHING, ONE, 1, id="missed"),
        pytest.param(SQUARE, NOTHING, 1, id="false alarm"),
    ],
)
def test_empty_masks(
    prediction: np.ndarray, truth: np.ndarray, rule: int, spacing: tuple[float, float] | None
) -> None:
    """Right: 0 and 1. Wrong: the diagonal, which no distance between pixels reaches, and 0."""
    rows, columns = spacing or (1, 1)
    diagonal = math.hypot(12 * rows, 9 * columns)
    scores = surface_scores(prediction, truth, 1e9, spacing)
    assert scores[:3] == pytest.approx((rule * diagonal,) * 3)
    assert scores.nsd == 1 - rule
    assert scores.empty == 2 - rule
    far = surface_scores(CORNER, np.rot90(CORNER, 2), 1, spacing)
    assert far.hausdorff < diagonal


@pytest.mark.parametrize("spacing", [None, ANISOTROPIC])
def test_equal_masks_are_at_no_distance(spacing: tuple[float, float] | None) -> None:
    for mask in MASKS.values():
        assert surface_scores(mask, mask, 0, spacing)[:4] == (0, 0, 0, 1)


@pytest.mark.parametrize("spacing", [None, ANISOTROPIC])
@pytest.mark.parametrize("tolerance", [0, 1, 2.5])
def test_against_all_pairs(spacing: tuple[float, float] | None, tolerance: float) -> None:
    for p, g in [(MASKS[a], MASKS[b]) for a, b in PAIRS] + random_pairs():
        there, back = all_pairs(p, g, spacing or (1, 1))
        both = np.concatenate([there, back])
        expected = (
            both.max(),
            max(np.quantile(there, 0.95), np.quantile(back, 0.95)),
            both.mean(),
            (both <= tolerance + 1e-9).mean(),
            both.size,
            0,
        )
        assert surface_scores(p, g, tolerance, spacing) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")  # its own
@pytest.mark.parametrize("spacing", [None, ANISOTROPIC])
def test_against_monai(spacing: tuple[float, float] | None) -> None:
    """1.6.1; it takes batches of channels, background first."""
    torch = pytest.importorskip("torch", reason="MONAI needs torch: the group `oracles`")
    monai = pytest.importorskip(
        "monai.metrics", reason="the distances' oracle: pip install --no-deps monai"
    )
    for p, g in [(MASKS[a], MASKS[b]) for a, b in PAIRS] + random_pairs():
        masks = [torch.from_numpy(np.stack([~m, m])[None].astype(np.uint8)) for m in (p, g)]
        expected = (
            monai.compute_hausdorff_distance(*masks, spacing=spacing),
            monai.compute_hausdorff_distance(*masks, percentile=95, spacing=spacing),
            monai.compute_average_surface_distance(*masks, symmetric=True, spacing=spacing),
            monai.compute_surface_dice(*masks, class_thresholds=[1.5], spacing=spacing),
        )
        found = surface_scores(p, g, 1.5, spacing)[:4]
        assert found == pytest.approx([float(one) for one in expected], rel=1e-5)


def test_distances_are_symmetric_and_do_not_depend_on_the_place() -> None:
    """The crop to the masks' box changes nothing."""
    p, g = random_pairs()[-1]
    scores = surface_scores(p, g, 1.0, ANISOTROPIC)
    assert surface_scores(g, p, 1.0, ANISOTROPIC) == pytest.approx(scores)
    padded = [np.pad(mask, ((3, 17), (20, 1))) for mask in (p, g)]
    assert surface_scores(*padded, 1.0, ANISOTROPIC) == pytest.approx(scores)


def test_summary_by_hand() -> None:
    """A slice found, one missed, one clean: every mean says what it did with the empty ones."""
    scores = [
        SurfaceScores(hausdorff=4, hd95=3, assd=2, nsd=0.5, boundary=30, empty=0),
        SurfaceScores(hausdorff=100, hd95=100, assd=100, nsd=0, boundary=10, empty=1),
        SurfaceScores(hausdorff=0, hd95=0, assd=0, nsd=1, boundary=0, empty=2),
    ]
    summary = summarize_surface(scores)
    nan = math.nan
    expected = {  # mean, of both, pooled
        "hausdorff": (104 / 3, 4, nan),
        "hd95": (103 / 3, 3, nan),
        "assd": (102 / 3, 2, (30 * 2 + 10 * 100) / 40),
        "nsd": (1.5 / 3, 0.5, 30 * 0.5 / 40),
    }
    assert list(summary) == list(expected) == list(SURFACE_METRICS)
    for name, values in expected.items():
        assert tuple(summary[name]) == pytest.approx((*values, 3, 1, 1), nan_ok=True), name
    clean = summarize_surface(scores[2:])["assd"]
    assert tuple(clean) == pytest.approx((0, nan, nan, 1, 0, 1), nan_ok=True)
    assert math.isnan(summarize_surface([])["nsd"].mean)


@pytest.mark.parametrize(
    ("prediction", "truth", "tolerance", "spacing", "message"),
    [
        (ONE, ONE.T, 1, None, r"\(12, 9\) and \(9, 12\)"),
        (ONE[None], ONE[None], 1, None, "two slices"),
        (ONE[:0], ONE[:0], 1, None, "two slices"),
        (ONE.astype(np.uint8), ONE, 1, None, "boolean mask, got uint8"),
        (ONE, ONE.astype(float), 1, None, "boolean mask, got float64"),
        (ONE, ONE, -1, None, "tolerance of 0 or more, got -1"),
        (ONE, ONE, math.nan, None, "tolerance"),
        (ONE, ONE, 1, (0.7, 0.0), "positive spacing"),
        (ONE, ONE, 1, (math.nan, 1.0), "positive spacing"),
    ],
)
def test_refuses(prediction, truth, tolerance, spacing, message) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        surface_scores(prediction, truth, tolerance, spacing)
