"""One slice judged: which map, which grid, which threshold and which unit each number is of."""

import dataclasses

import jax
import numpy as np
import pytest

from covid_jax.data import Slice, SliceDataset
from covid_jax.evaluation.slice_scores import SliceScores, lesion_probability, score_slice
from covid_jax.metrics.confusion import THRESHOLDS
from tests.support.scored import by_hand, maps_for, random_slices, score_all


def lone_pixels(spacing: tuple[float, float] | None) -> SliceScores:
    """One pixel of truth, one predicted three rows below and four columns to the right."""
    truth = np.zeros((16, 16), np.uint8)
    truth[2, 3] = 1
    found = np.zeros((16, 16, 1), np.float32)
    found[5, 7] = 1
    item = Slice("s", "by hand", None, None, truth.astype(np.int16), truth, spacing)
    dataset = SliceDataset("by hand", (item,), 16)
    return score_slice(dataset, item, found, truth, 0.5, 5.0)


def test_the_own_grid_is_judged_there_and_the_network_at_its_size() -> None:
    """The map is resized linearly, here by JAX; the network's mask is given, not made anew."""
    rng = np.random.default_rng(0)
    map_ = rng.random((8, 8, 1), np.float32)
    truth, small = rng.random((20, 14)) < 0.4, rng.random((8, 8)) < 0.4
    item = Slice("s", "random", "p", None, np.zeros((20, 14)), truth.astype(np.uint8))
    dataset = SliceDataset("random", (item,), 8)
    one = score_slice(dataset, item, map_, small.astype(np.uint8), 0.6, 1.0)
    own = np.asarray(jax.image.resize(map_[..., 0], (20, 14), "linear"))
    assert np.abs(own - 0.6).min() > 1e-5  # no pixel hangs on rounding
    assert one.dice == pytest.approx(by_hand(own > 0.6, truth)["dice"])
    assert one.lesion.counts.tp == np.sum((own > 0.6) & truth)
    assert one.lesion.counts.fp == np.sum((own > 0.6) & ~truth)
    assert one.lesion.network.tp == np.sum((map_[..., 0] > 0.5) & small)
    assert one.lesion.network.fp == np.sum((map_[..., 0] > 0.5) & ~small)
    np.testing.assert_array_equal(one.prediction, own > 0.6)
    np.testing.assert_array_equal(one.truth, truth)
    np.testing.assert_allclose(one.probability, 255 * own, atol=0.501)


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.85, 1.0])
def test_the_threshold_moves_the_own_grid_alone_and_is_one_of_the_sweep(threshold: float) -> None:
    dataset = random_slices(["p"])
    (map_,) = maps_for(dataset)
    one, half = score_all(dataset, [map_], threshold=threshold)[0], score_all(dataset, [map_])[0]
    above = map_[..., 0] > np.float32(threshold)
    assert int(one.lesion.counts.tp + one.lesion.counts.fp) == above.sum()
    place = int(np.argmin(abs(THRESHOLDS - threshold)))
    assert [part[place] for part in one.sweep] == [int(part) for part in one.lesion.counts]
    assert one.lesion.network == half.lesion.network


def test_of_several_classes_the_most_probable_one_counts_whatever_the_threshold() -> None:
    dataset = random_slices(["p"], classes=3, targets=("c", "a"))
    (map_,) = maps_for(dataset)
    one, other = score_all(dataset, [map_], threshold=0.9)[0], score_all(dataset, [map_])[0]
    np.testing.assert_array_equal(one.prediction, other.prediction)
    ids = map_.argmax(-1)
    truth = np.array([0, 2, 0, 1])[dataset.slices[0].mask]
    np.testing.assert_array_equal(one.prediction, ids)
    np.testing.assert_array_equal(one.truth, truth)
    assert list(one.regions) == ["lesion", "c", "a"]
    regions = {"lesion": (ids > 0, truth > 0), "c": (ids == 1, truth == 1)}
    regions["a"] = ids == 2, truth == 2
    for name, (found, there) in regions.items():
        tp, fp, fn, _ = (int(part) for part in one.regions[name].counts)
        assert (tp, fp, fn) == (
            np.sum(found & there),
            np.sum(found & ~there),
            np.sum(~found & there),
        )
    assert one.lesion is one.regions["lesion"]
    squares = (map_[..., 1:].sum(-1) - (truth > 0)) ** 2
    assert one.calibration.brier == pytest.approx(squares.mean(), abs=1e-6)


def test_a_class_alone_is_the_lesion_and_keeps_its_name() -> None:
    dataset = random_slices(["p"], classes=3, targets=("b",))
    (one,) = score_all(dataset)
    assert list(one.regions) == ["b"]
    tp, _, fn, _ = (int(part) for part in one.lesion.counts)
    assert tp + fn == np.sum(dataset.slices[0].mask == 2)


def test_the_probability_of_a_lesion_is_all_but_the_backgrounds() -> None:
    scores = np.float32([[[0.2, 0.5, 0.3], [1 + 1e-7, 0, 0]]])
    np.testing.assert_allclose(lesion_probability(scores), [[0.8, 0.0]], atol=1e-7)
    assert lesion_probability(scores).min() >= 0
    np.testing.assert_array_equal(lesion_probability(scores[..., :1]), scores[..., 0])


def test_distances_are_in_pixels_and_where_known_in_mm() -> None:
    """A step of 3 rows and 4 columns: 5 pixels; of 2 mm and 0.5 mm each: hypot(6, 2) mm."""
    plain, spaced = lone_pixels(None), lone_pixels((2.0, 0.5))
    assert list(plain.lesion.surface) == ["px"]
    assert list(spaced.lesion.surface) == ["px", "mm"]
    for one in (plain, spaced):
        assert one.lesion.surface["px"].hausdorff == pytest.approx(5.0)
        assert one.lesion.surface["px"].nsd == 1.0  # a tolerance of 5 pixels
    assert spaced.lesion.surface["mm"].assd == pytest.approx(np.hypot(6, 2))
    assert spaced.lesion.surface["mm"].nsd == 0.0  # and of 5 mm


@pytest.mark.parametrize("spacing", [None, (2.0, 0.5)])
def test_lesions_are_in_pixels(spacing: tuple[float, float] | None) -> None:
    one = lone_pixels(spacing)
    assert one.lesion.lesions.areas.tolist() == [1.0]
    assert one.lesion.lesions.false_areas.tolist() == [1.0]
    assert not one.lesion.lesions.detected.any()


def test_a_slice_without_lesion_is_judged_too() -> None:
    item = random_slices(["p"]).slices[0]
    clean = dataclasses.replace(item, mask=np.zeros_like(item.mask))
    dataset = SliceDataset("clean", (clean,), item.mask.shape[0])
    nothing = np.zeros((*clean.mask.shape, 1), np.float32)
    (one,) = score_all(dataset, [nothing])
    assert one.dice == 1.0
    assert one.semiseg.empty_truth
    (other,) = score_all(dataset, [nothing + np.float32(0.7)])
    assert other.dice == 0.0
