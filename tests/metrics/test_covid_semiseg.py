"""COVID-SemiSeg's evaluator against its published description, threshold by threshold."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from covid_jax.io.image_files import read_labels
from covid_jax.metrics.covid_semiseg import (
    AT_HALF,
    SEMISEG_THRESHOLDS,
    semiseg_scores,
    summarize_semiseg,
)
from tests.support.annotations import unchecked

SEMISEG_TRUTHS = "covid_semiseg/TestingSet/LungInfection-Test/GT"
TRUTH = np.array([[1, 1, 0, 0], [0, 1, 0, 0]], bool)
NOTHING, ALL = np.zeros_like(TRUTH), np.ones_like(TRUTH)


def random_slice(seed: int, kind: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random((23, 31)) < 0.2
    values = np.clip(0.5 * truth + rng.normal(0.3, 0.2, truth.shape), 0, 1)
    return (values * 255).astype(kind) if kind is np.uint8 else values.astype(kind), truth


def evaluator(prediction: np.ndarray, truth: np.ndarray) -> tuple[list[list[Fraction]], float]:
    """The published description, threshold after threshold, in exact fractions of 8-bit values."""
    low, high = int(prediction.min()), int(prediction.max())
    rows = []
    for k in range(255, -1, -1):
        reached = 255 * (prediction.astype(int) - low) >= k * (high - low)
        tp = int((reached & truth).sum())
        tn = int((~reached & ~truth).sum())
        if tp == 0:
            rows.append([Fraction(0)] * 3)
            continue
        rows.append(
            [
                Fraction(2 * tp, int(reached.sum() + truth.sum())),
                Fraction(tp, int(truth.sum())),
                Fraction(tn, int((~truth).sum())),
            ]
        )
    stretched = (prediction - float(low)) / (high - low)
    return rows, float(np.abs(stretched - truth).mean())


def test_thresholds_are_those_of_8_bit_pictures_downwards() -> None:
    expected = [float(Fraction(k, 255)) for k in range(255, -1, -1)]
    assert SEMISEG_THRESHOLDS.tolist() == expected
    assert SEMISEG_THRESHOLDS[AT_HALF] == 128 / 255


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("narrow", [False, True], ids=["8 bits", "few of 8 bits"])
def test_semiseg_against_thresholding_one_by_one(seed: int, narrow: bool) -> None:
    """A narrow map has values that fall exactly on thresholds once stretched."""
    prediction, truth = random_slice(seed, np.uint8)
    prediction = prediction // 17 + 40 if narrow else prediction
    rows, mae = evaluator(prediction, truth)
    found = semiseg_scores(prediction, truth)
    expected = np.array([[float(x) for x in row] for row in rows])
    np.testing.assert_array_equal(found.dice, expected[:, 0])
    np.testing.assert_array_equal(found.sensitivity, expected[:, 1])
    np.testing.assert_array_equal(found.specificity, expected[:, 2])
    assert found.mae == pytest.approx(mae, rel=1e-12)
    assert (found.empty_truth, found.constant) == (False, False)


def test_a_stretched_map_scores_as_the_map_itself() -> None:
    """Only order and ratios of differences count, so halving contrast changes nothing."""
    prediction, truth = random_slice(0)
    scores, again = semiseg_scores(prediction, truth), semiseg_scores(prediction / 2 + 0.25, truth)
    np.testing.assert_allclose(scores.dice, again.dice)
    assert scores.mae == pytest.approx(again.mae)


def test_constant_maps_are_not_stretched() -> None:
    """Black reaches threshold 0 only, grey half of them, white all; everything is then lesion."""
    overlap = 2 * 3 / (8 + 3)
    for value, reached in ((0, 1), (128, 129), (255, 256)):
        scores = semiseg_scores(np.full(TRUTH.shape, value, np.uint8), TRUTH)
        assert scores.constant
        assert scores.dice.tolist() == [0] * (256 - reached) + [pytest.approx(overlap)] * reached
        assert scores.sensitivity[-1] == 1
        assert not scores.specificity.any()
        assert scores.mae == pytest.approx((3 * (255 - value) + 5 * value) / (8 * 255))
    deep = semiseg_scores(np.full(TRUTH.shape, 2**16 - 1, np.uint16), TRUTH)
    assert (deep.dice > 0).all()
    assert deep.mae == pytest.approx(5 / 8)


def test_nothing_hit_is_0_on_an_empty_truth_and_on_a_miss() -> None:
    """Even specificity, and even where nothing was predicted: the protocol's rule."""
    prediction, _ = random_slice(0)
    scores = semiseg_scores(prediction, np.zeros(prediction.shape, bool))
    assert scores.empty_truth
    assert not scores.dice.any()
    assert not scores.specificity.any()
    missed = semiseg_scores(np.where(TRUTH, 0.0, 1.0), TRUTH)
    assert missed.dice.tolist() == [0] * 255 + [pytest.approx(2 * 3 / 11)]
    assert not missed.specificity.any()


def test_perfect_and_full() -> None:
    perfect = semiseg_scores(TRUTH.astype(float), TRUTH)
    assert perfect.dice.tolist() == [1] * 255 + [pytest.approx(2 * 3 / 11)]
    assert perfect.specificity.tolist() == [1] * 255 + [0]
    assert perfect.mae == 0
    pixel = np.zeros(TRUTH.shape, bool)
    pixel[0, 0] = True
    assert semiseg_scores(pixel.astype(float), pixel).sensitivity.tolist() == [1] * 256
    full = semiseg_scores(ALL.astype(float), ALL)
    assert full.dice.tolist() == [1] * 256
    assert not full.specificity.any()  # 0/0, which their evaluator leaves undefined


def test_semiseg_summary_by_hand() -> None:
    """Perfect, missed and on an empty truth: means over slices at each threshold, then over all."""
    scores = [
        semiseg_scores(TRUTH.astype(float), TRUTH),
        semiseg_scores(np.where(TRUTH, 0.0, 1.0), TRUTH),
        semiseg_scores(np.zeros(TRUTH.shape), NOTHING),
    ]
    found = summarize_semiseg(scores)
    everything = 2 * 3 / 11
    assert found.dice_curve[:-1].tolist() == [pytest.approx(1 / 3)] * 255
    assert found.dice_curve[-1] == pytest.approx(2 * everything / 3)
    assert found.dice == pytest.approx((255 / 3 + 2 * everything / 3) / 256)
    assert found.sensitivity == pytest.approx((255 / 3 + 2 / 3) / 256)
    assert found.specificity == pytest.approx(255 / 3 / 256)
    assert found.mae == pytest.approx((0 + 1 + 0) / 3)
    assert (found.empty_truths, found.constants) == (1, 1)
    with unchecked(), pytest.raises(ValueError, match="no slices"):
        summarize_semiseg([])


def test_all_positive_on_real_masks(real_data: Path) -> None:
    """0.25772: mean Dice at threshold 0 in the curves released with COVID-SemiSeg (Inf-Net)."""
    masks = [read_labels(path) > 128 for path in sorted((real_data / SEMISEG_TRUTHS).iterdir())]
    rng = np.random.default_rng(0)
    for white in (True, False):
        maps = [np.ones(m.shape) if white else rng.random(m.shape) for m in masks]
        scores = [semiseg_scores(*one) for one in zip(maps, masks, strict=True)]
        assert summarize_semiseg(scores).dice_curve[-1] == pytest.approx(0.25772, abs=5e-6)
        assert all(one.sensitivity[-1] == 1 for one in scores)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: semiseg_scores(TRUTH.T.astype(float), TRUTH), "one shape"),
        (lambda: semiseg_scores(TRUTH.astype(float), TRUTH.astype(int)), "boolean"),
        (lambda: semiseg_scores(2.0 * TRUTH, TRUTH), r"in \[0, 1\]"),
        (lambda: semiseg_scores(TRUTH.astype(int), TRUTH), r"in \[0, 1\], got int64"),
        (lambda: semiseg_scores(np.full(TRUTH.shape, np.nan), TRUTH), "nan"),
    ],
)
def test_refuses(call, message: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        call()
