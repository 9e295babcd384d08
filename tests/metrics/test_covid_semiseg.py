"""COVID-SemiSeg's evaluator against its published description, threshold by threshold."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covid_jax.errors import DataError
from covid_jax.evaluation.score_maps import read_truths, score_folder
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
    assert (found.slices, found.empty_truths, found.constants) == (3, 1, 1)
    with unchecked(), pytest.raises(ValueError, match="no slices"):
        summarize_semiseg([])


def test_all_positive_on_real_masks(real_data: Path) -> None:
    """0.25772: mean Dice at threshold 0 in the curves released with COVID-SemiSeg (Inf-Net)."""
    masks = list(read_truths(real_data / SEMISEG_TRUTHS).values())
    rng = np.random.default_rng(0)
    for white in (True, False):
        maps = [np.ones(m.shape) if white else rng.random(m.shape) for m in masks]
        found = summarize_semiseg([semiseg_scores(*one) for one in zip(maps, masks, strict=True)])
        assert found.dice_curve[-1] == pytest.approx(0.25772, abs=5e-6)
        assert found.sensitivity_curve[-1] == 1


def test_a_folder_of_the_real_truths_is_perfect(real_data: Path) -> None:
    """As predictions they are right at every threshold above 0; at 0 all is lesion."""
    folder = real_data / SEMISEG_TRUTHS
    truths = read_truths(folder)
    scores, resized = score_folder(folder, truths)
    found = summarize_semiseg(list(scores.values()))
    assert (found.slices, resized) == (48, [])
    assert found.dice == pytest.approx((255 + 0.25772) / 256, abs=1e-6)
    assert found.mae < 1e-3  # a few masks have some grey pixels


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


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path)


def test_a_folder_is_scored_by_name(tmp_path: Path) -> None:
    """8 and 16 bits and bits alone, in the truths' order, each as its array is."""
    truths = {}
    for i in (1, 2, 10):
        prediction, truths[str(i)] = random_slice(i, np.uint8)
        save(tmp_path / f"maps/{i}.png", prediction)
        save(tmp_path / f"truths/{i}.png", np.uint8(255) * truths[str(i)])
    save(tmp_path / "maps/2.png", random_slice(2, np.uint8)[0].astype(np.uint16) * 257)
    save(tmp_path / "maps/10.png", random_slice(10)[0] > 0.5)
    read = read_truths(tmp_path / "truths")
    assert list(read) == ["1", "2", "10"]
    for name, mask in read.items():
        np.testing.assert_array_equal(mask, truths[name])
    scores, resized = score_folder(tmp_path / "maps", read)
    assert (list(scores), resized) == (["1", "2", "10"], [])
    expected = {"1": random_slice(1, np.uint8)[0], "2": random_slice(2, np.uint8)[0]}
    expected["10"] = np.uint8(255) * (random_slice(10)[0] > 0.5)
    for name, array in expected.items():
        np.testing.assert_array_equal(
            scores[name].dice, semiseg_scores(array, truths[name]).dice, name
        )


def test_truths_are_greys_above_128(tmp_path: Path) -> None:
    save(tmp_path / "1.png", np.array([[0, 128, 129, 255]], np.uint8))
    save(tmp_path / "2.png", np.zeros((1, 4), np.uint8))
    save(tmp_path / "3.png", np.array([[True, False]]))
    expected = {"1": [[False, False, True, True]], "2": [[False] * 4], "3": [[True, False]]}
    assert {name: mask.tolist() for name, mask in read_truths(tmp_path).items()} == expected
    save(tmp_path / "4.png", np.array([[0, 1, 2]], np.uint8))
    with pytest.raises(DataError, match=r"4\.png: its highest value is 2; expected black"):
        read_truths(tmp_path)


def test_maps_of_another_size_are_resized_and_named(tmp_path: Path) -> None:
    """A square, twice as large: its edges blur by a pixel, the rest is what it was."""
    truth = np.zeros((40, 48), bool)
    truth[10:30, 12:36] = True
    save(tmp_path / "a.png", np.kron(np.uint8(255) * truth, np.ones((2, 2), np.uint8)))
    save(tmp_path / "b.png", np.uint8(255) * truth)
    save(tmp_path / "c.tif", np.kron(truth.astype(np.float32), np.ones((2, 2), np.float32)))
    scores, resized = score_folder(tmp_path, {"a": truth, "b": truth, "c": truth})
    assert resized == ["a", "c"]
    for name in "ac":
        assert scores[name].dice[AT_HALF] == 1
        assert 0 < scores[name].mae < 88 / truth.size


def test_a_map_of_one_value_stays_one_when_resized(tmp_path: Path) -> None:
    """Else it would be stretched."""
    save(tmp_path / "a.png", np.full((31, 57), 200, np.uint8))
    truth = random_slice(0)[1]
    found = score_folder(tmp_path, {"a": truth})[0]["a"]
    expected = semiseg_scores(np.full(truth.shape, 200, np.uint8), truth)
    assert found.constant
    np.testing.assert_array_equal(found.dice, expected.dice)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        pytest.param("1", None, r"no prediction for 1 of 2 slices \(2\)", id="missing"),
        pytest.param("3", TRUTH, r"1 of 3 pictures belong to no slice \(3\.png\)", id="unknown"),
        pytest.param("2", np.uint8(TRUTH).T, "4 rows and 2 columns .* transpose it", id="turned"),
        pytest.param("2", np.int32(TRUTH) * 70000, "int32 from 0 to 70000", id="too deep"),
        pytest.param("2", np.float32(TRUTH) * 9, "float32 from 0.0 to 9.0", id="logits"),
    ],
)
def test_folders_that_cannot_be_scored(
    tmp_path: Path, name: str, array: np.ndarray | None, message: str
) -> None:
    save(tmp_path / "1.png", np.uint8(255) * TRUTH)
    if array is not None:
        deep = array.dtype.itemsize == 4
        if name == "3":
            save(tmp_path / "2.png", np.uint8(255) * TRUTH)
        save(tmp_path / f"{name}.{'tif' if deep else 'png'}", array)
    with pytest.raises(DataError, match=message):
        score_folder(tmp_path, {"1": TRUTH, "2": TRUTH})


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no files here that end in \.png"):
        score_folder(tmp_path, {"1": TRUTH})
