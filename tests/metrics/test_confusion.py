"""Overlap metrics by hand counts and other definitions; the sweep against single thresholds."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import distance

from covid_jax.data import open_dataset
from covid_jax.metrics.confusion import (
    METRICS,
    THRESHOLDS,
    BestThreshold,
    Counts,
    best_threshold,
    confusion_counts,
    dice,
    summarize,
    threshold_sweep,
)
from covid_jax.transforms.labels import predict_labels
from tests.support.annotations import unchecked

# A 3 x 4 slice: TP 2, FP 1, FN 3, TN 6.
PREDICTION = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
TRUTH = np.array([[1, 1, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0]], bool)
NOTHING, ALL = np.zeros((3, 4), bool), np.ones((3, 4), bool)
NAN = np.nan
JAX = type(jnp.zeros(()))


@jax.jit
def score_under_jit(prediction: jax.Array, truth: jax.Array) -> dict[str, jax.Array]:
    counts = confusion_counts(prediction, truth)
    return {name: metric(counts) for name, metric in METRICS.items()}


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_counts_by_hand(kind: Any) -> None:
    """Over the last two axes, each slice for itself; NumPy and JAX alike, traced or not."""
    predictions = kind(np.stack([[PREDICTION, NOTHING], [ALL, ~TRUTH]]))
    truths = kind(np.stack([[TRUTH, TRUTH], [TRUTH, TRUTH]]))
    expected = Counts(
        tp=np.array([[2, 0], [5, 0]]),
        fp=np.array([[1, 0], [7, 7]]),
        fn=np.array([[3, 5], [0, 5]]),
        tn=np.array([[6, 7], [0, 0]]),
    )
    function = jax.jit(confusion_counts) if kind is jnp.asarray else confusion_counts
    for found, by_hand in zip(function(predictions, truths), expected, strict=True):
        np.testing.assert_array_equal(found, by_hand)


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (PREDICTION, TRUTH.T, r"\(3, 4\) and truth \(4, 3\) differ"),
        (PREDICTION[None], TRUTH, r"\(1, 3, 4\) and truth \(3, 4\) differ"),
        (255 * PREDICTION.astype(np.uint8), TRUTH, "prediction: .*got uint8; write mask > 0"),
        (PREDICTION, TRUTH.astype(int), "truth: .*got int64; .*ids == 2"),
        (jnp.float32(PREDICTION), jnp.asarray(TRUTH), "got float32; .*probabilities > 0.5"),
    ],
)
def test_counts_refuse_other_shapes_and_dtypes(prediction: Any, truth: Any, message: str) -> None:
    """0/255 masks once gave specificity 1.0 where it is 0.5, and class ids Dice 0 for 0.5."""
    with unchecked(), pytest.raises(ValueError, match=message):
        confusion_counts(prediction, truth)


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        pytest.param(
            PREDICTION,
            TRUTH,
            {
                "dice": 2 * 2 / (2 * 2 + 1 + 3),
                "iou": 2 / (2 + 1 + 3),
                "sensitivity": 2 / (2 + 3),
                "specificity": 6 / (6 + 1),
                "precision": 2 / (2 + 1),
            },
            id="some of each",
        ),
        pytest.param(
            TRUTH,
            TRUTH,
            {"dice": 1, "iou": 1, "sensitivity": 1, "specificity": 1, "precision": 1},
            id="perfect",
        ),
        pytest.param(
            NOTHING,
            NOTHING,
            {"dice": 1, "iou": 1, "sensitivity": NAN, "specificity": 1, "precision": 1},
            id="clean and left alone",
        ),
        pytest.param(
            PREDICTION,
            NOTHING,
            {"dice": 0, "iou": 0, "sensitivity": NAN, "specificity": 9 / 12, "precision": 0},
            id="false alarm",
        ),
        pytest.param(
            NOTHING,
            TRUTH,
            {"dice": 0, "iou": 0, "sensitivity": 0, "specificity": 1, "precision": 0},
            id="missed",
        ),
        pytest.param(
            PREDICTION,
            ALL,
            {
                "dice": 6 / 15,
                "iou": 3 / 12,
                "sensitivity": 3 / 12,
                "specificity": NAN,
                "precision": 1,
            },
            id="lesion everywhere",
        ),
        pytest.param(
            ALL,
            ALL,
            {"dice": 1, "iou": 1, "sensitivity": 1, "specificity": NAN, "precision": 1},
            id="lesion everywhere and found",
        ),
    ],
)
def test_metrics_by_hand(
    prediction: np.ndarray, truth: np.ndarray, expected: dict[str, float]
) -> None:
    """Empty masks as the module's table says."""
    counts = confusion_counts(prediction, truth)
    scores = {name: float(metric(counts)) for name, metric in METRICS.items()}
    assert scores == pytest.approx(expected, rel=1e-12, nan_ok=True)
    traced = score_under_jit(prediction, truth)
    assert {name: type(score) for name, score in traced.items()} == dict.fromkeys(METRICS, JAX)
    scores = {name: float(score) for name, score in traced.items()}
    assert scores == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_metrics_by_other_definitions() -> None:
    """scipy's distances, and shares of the pixels picked out by the other mask."""
    rng = np.random.default_rng(0)
    truth = rng.random((20, 8, 9)) < 0.3
    prediction = truth ^ (rng.random(truth.shape) < rng.random((20, 1, 1)))
    counts = confusion_counts(prediction, truth)
    found = {name: metric(counts) for name, metric in METRICS.items()}
    for i, (p, g) in enumerate(zip(prediction, truth, strict=True)):
        expected = {
            "dice": 1 - distance.dice(p.ravel(), g.ravel()),
            "iou": 1 - distance.jaccard(p.ravel(), g.ravel()),
            "sensitivity": p[g].mean(),
            "specificity": (~p[~g]).mean(),
            "precision": g[p].mean(),
        }
        assert {name: values[i] for name, values in found.items()} == pytest.approx(expected)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_summary_by_hand(kind: Any) -> None:
    """Six slices of 12 pixels: some of each, clean, false alarm, two missed, lesion everywhere."""
    predictions = kind(np.stack([PREDICTION, NOTHING, PREDICTION, NOTHING, NOTHING, PREDICTION]))
    truths = kind(np.stack([TRUTH, NOTHING, NOTHING, TRUTH, TRUTH, ALL]))
    # TP 2 0 0 0 0 3 = 5;  FP 1 0 3 0 0 0 = 4;  FN 3 0 0 5 5 9 = 22;  TN 6 12 9 7 7 0 = 41
    summary = summarize(confusion_counts(predictions, truths))
    dices = 2 * 2 / 8, 1, 0, 0, 0, 6 / 15
    ious = 2 / 6, 1, 0, 0, 0, 3 / 12
    sensitivities = 2 / 5, 0, 0, 3 / 12  # two slices have no lesion
    specificities = 6 / 7, 1, 9 / 12, 1, 1  # the last slice is all lesion
    precisions = 2 / 3, 1, 0, 0, 0, 1  # three slices have nothing predicted
    expected = {  # mean, pooled, slices, empty
        "dice": (sum(dices) / 6, 2 * 5 / (2 * 5 + 4 + 22), 6, 1),
        "iou": (sum(ious) / 6, 5 / (5 + 4 + 22), 6, 1),
        "sensitivity": (sum(sensitivities) / 4, 5 / (5 + 22), 4, 2),
        "specificity": (sum(specificities) / 5, 41 / (41 + 4), 5, 1),
        "precision": (sum(precisions) / 6, 5 / (5 + 4), 6, 3),
    }
    assert list(summary) == list(expected)
    for name, values in expected.items():
        assert tuple(summary[name]) == pytest.approx(values, rel=1e-12), name


def test_summary_where_a_metric_is_nowhere_defined() -> None:
    """Clean slices only: no sensitivity, neither mean nor pooled."""
    summary = summarize(confusion_counts(np.stack([NOTHING, PREDICTION]), np.stack([NOTHING] * 2)))
    sensitivity = tuple(summary["sensitivity"])
    assert sensitivity == pytest.approx((NAN, NAN, 0, 2), nan_ok=True)


def test_pooled_counts_do_not_overflow() -> None:
    """300 slices of 8192 x 8192 pixels: 2 ** 31 < 300 * 2 ** 26, in sums of int32 counts."""
    pixels = np.full(300, 2**26, np.int32)
    none = np.zeros(300, np.int32)
    summary = summarize(Counts(tp=pixels // 2, fp=none, fn=pixels // 2, tn=none))
    assert summary["sensitivity"].pooled == pytest.approx(1 / 2)
    assert summary["dice"].pooled == pytest.approx(2 / 3)


def test_all_positive_on_real_masks(real_data: Path) -> None:
    """0.25772: mean Dice at threshold 0 in the curves released with COVID-SemiSeg (Inf-Net)."""
    dataset = open_dataset(real_data / "covid_semiseg", 64)
    masks = [item.mask > 0 for item in dataset.slices if item.published == "test"]
    assert len(masks) == 48
    scores = [dice(confusion_counts(np.ones_like(mask), mask)) for mask in masks]
    assert np.mean(scores) == pytest.approx(0.25772, abs=5e-6)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_sweep_counts_as_thresholding_one_by_one(kind: type) -> None:
    """Above the threshold, as the masks of a run are; values equal to one too."""
    rng = np.random.default_rng(3)
    truth = rng.random((23, 31)) < 0.2
    values = np.clip(0.5 * truth + rng.normal(0.3, 0.2, truth.shape), 0, 1).astype(kind)
    values[:10] = values[:10].round(2)  # on thresholds, as near as the kind can be
    values[10, :3] = 0, 0.5, 1
    found = threshold_sweep(values, truth)
    for i in range(0, 1001, 10):
        mask = predict_labels(values[..., None], float(THRESHOLDS[i])) > 0
        expected = confusion_counts(mask, truth)
        assert [int(part[i]) for part in found] == [int(part) for part in expected], i


@pytest.mark.parametrize("truth", [TRUTH, NOTHING, ALL], ids=["some", "clean", "everywhere"])
def test_sweep_goes_into_the_overlap_metrics(truth: np.ndarray) -> None:
    values = np.linspace(0, 1, truth.size).reshape(truth.shape)
    thresholds = np.array([0.0, 0.3, 0.5, 1.0])
    masks = np.stack([values > t for t in thresholds])
    expected = confusion_counts(masks, np.stack([truth] * 4))
    found = threshold_sweep(values, truth, thresholds)
    for name, metric in METRICS.items():
        np.testing.assert_array_equal(metric(found), metric(expected), name)


def test_best_threshold_by_hand() -> None:
    """Means 0.2, 0.5, 0.5, 0.4: of equal ones, to the last bit or nearly, the nearest to 0.5."""
    thresholds = np.array([0.1, 0.4, 0.7, 0.9])
    dices = np.array([[0.1, 0.3, 0.8, 0.4], [0.3, 0.7, 0.2, 0.4], [0.2, 0.5, 0.5, 0.4]])
    assert best_threshold(dices, thresholds) == BestThreshold(0.4, pytest.approx(0.5))
    dices[:, 1] = 0
    assert best_threshold(dices, thresholds) == BestThreshold(0.7, pytest.approx(0.5))
    outlier = np.array([[0.0, 0.2, 0.2, 0.2], [0.0, 0.2, 0.2, 0.2], [1.0, 0.2, 0.2, 0.2]])
    assert best_threshold(outlier, thresholds) == BestThreshold(0.1, pytest.approx(1 / 3))
    last_bit = np.array([[0.0, 0.3, 0.0, 0.1 + 0.2]])
    assert best_threshold(last_bit, thresholds).threshold == 0.4


def test_best_threshold_is_where_the_maps_say() -> None:
    """Lesion at 0.3 on a ground of 0.2: any threshold from 0.2 on is right, 0.299 is nearest."""
    maps = [np.where(TRUTH, 0.3, 0.2)] * 3
    found = best_threshold(np.stack([dice(threshold_sweep(one, TRUTH)) for one in maps]))
    assert found == BestThreshold(pytest.approx(0.299), 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: threshold_sweep(TRUTH.T.astype(float), TRUTH), "one shape"),
        (lambda: threshold_sweep(-1.0 * TRUTH, TRUTH), r"in \[0, 1\]"),
        (lambda: threshold_sweep(1.0 * TRUTH, TRUTH, np.array([0.5, 0.5])), "that increase"),
        (lambda: best_threshold(np.zeros((2, 3))), r"1001 thresholds, got \(2, 3\)"),
        (lambda: best_threshold(np.zeros((0, 1001))), "slices x"),
        (lambda: best_threshold(np.full((2, 1001), np.nan)), "NaN"),
    ],
)
def test_sweep_refuses(call: Any, message: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        call()


def test_metrics_are_imported_without_jax() -> None:
    program = (
        "import sys; from covid_jax.metrics import Counts, dice; score = dice(Counts(1, 1, 1, 1)); "
        "print({'jax', 'scipy.stats', 'matplotlib'} & sys.modules.keys(), score)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set() 0.5"
