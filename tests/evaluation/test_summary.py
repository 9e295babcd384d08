"""Means, pooled values, patients and intervals of a few slices, added up by hand."""

import dataclasses
import inspect
import json
from typing import Any

import numpy as np
import pytest
from scipy import stats

from covid_jax.data import SliceDataset
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.evaluation.summary import (
    dice_by_threshold,
    pixel_areas,
    plain,
    resampled,
    summarize_calibration,
    summarize_lesion_free,
    summarize_patients,
    summarize_protocols,
    summarize_regions,
    summarize_sources,
)
from covid_jax.metrics.confusion import METRICS, THRESHOLDS
from tests.support.scored import by_hand, maps_for, random_slices, score_all

PATIENTS = ["p", "q", "p", "p"]  # a patient of three slices, one of one


def masks_of(scores: list[SliceScores]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(one.prediction > 0, one.truth > 0) for one in scores]


def joined(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    return by_hand(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))


@pytest.fixture(scope="module")
def scores() -> list[SliceScores]:
    return score_all(random_slices(PATIENTS))


@pytest.fixture(scope="module")
def whole(scores: list[SliceScores]) -> dict[str, Any]:
    return summarize_regions(scores)["lesion"]


@pytest.mark.parametrize("metric", METRICS)
def test_over_slices_over_patients_and_pooled(
    scores: list[SliceScores], whole: dict[str, Any], metric: str
) -> None:
    pairs = masks_of(scores)
    patients = [joined([pairs[i] for i in (0, 2, 3)]), joined([pairs[1]])]
    part = whole["own_grid"][metric]
    assert part["mean"] == pytest.approx(np.mean([by_hand(*pair)[metric] for pair in pairs]))
    assert part["patients_mean"] == pytest.approx(np.mean([p[metric] for p in patients]))
    assert part["pooled"] == pytest.approx(joined(pairs)[metric])
    assert len({part["mean"], part["patients_mean"], part["pooled"]}) == 3
    assert (part["slices"], part["empty"], part["interval"]) == (4, 0, None)


def test_each_patient_added_up(scores: list[SliceScores]) -> None:
    rows = summarize_patients(scores)
    pairs = masks_of(scores)
    assert list(rows) == ["p", "q"]
    of_p = joined([pairs[i] for i in (0, 2, 3)])
    assert rows["p"] == pytest.approx({"slices": 3} | of_p)
    assert rows["q"] == pytest.approx({"slices": 1} | by_hand(*pairs[1]))


def test_slices_of_unknown_patients_are_no_patient() -> None:
    scores = score_all(random_slices(["p", None, None]))
    assert list(summarize_patients(scores)) == ["p"]
    part = summarize_regions(scores)["lesion"]["own_grid"]["dice"]
    assert part["patients_mean"] is None


@pytest.mark.parametrize(
    ("patients", "words", "drawn"),
    [
        (list("abcd") * 3, "no intervals: 4 patients are too few", False),
        (["a"], "no intervals: 1 patients are too few", False),
        (list("abcde"), "5 patients resampled with all their slices", True),
        ([None] * 4, "no intervals: 4 slices are too few", False),
        ([None] * 5, "slices resampled as no patient is known: too narrow", True),
        (["a", "b", "c", "d", "e", None], "slices resampled as not all patients are known", True),
    ],
)
def test_an_interval_needs_five_and_says_of_what(
    patients: list[str | None], words: str, drawn: bool
) -> None:
    assert words in resampled(patients).statement
    own = summarize_regions(score_all(random_slices(patients)))["lesion"]["own_grid"]
    assert [part["interval"] is not None for part in own.values()] == [drawn] * len(METRICS)


@pytest.mark.parametrize("known", [True, False])
def test_intervals_are_those_of_scipy(known: bool) -> None:
    """Six patients of two slices each: resampling patients is resampling their means."""
    patients = [f"p{i // 2}" if known else None for i in range(12)]
    scores = score_all(random_slices(patients))
    whole = summarize_regions(scores)["lesion"]
    for part, values in (
        (whole["own_grid"]["dice"], [by_hand(*pair)["dice"] for pair in masks_of(scores)]),
        (whole["surface"]["px"]["assd"], [one.lesion.surface["px"].assd for one in scores]),
    ):
        units = np.reshape(values, (6, 2)).mean(1) if known else np.array(values)
        seed = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
        made = stats.bootstrap((units,), np.mean, method="percentile", **{seed: 1})
        spread = made.confidence_interval.high - made.confidence_interval.low
        np.testing.assert_allclose(part["interval"], made.confidence_interval, atol=0.06 * spread)


def test_an_undefined_value_is_left_out_counted_and_null() -> None:
    """The first slice has no lesion and nothing is predicted there, but in one pixel."""
    dataset = random_slices(["p", "q"])
    clean = dataclasses.replace(dataset.slices[0], mask=np.zeros_like(dataset.slices[0].mask))
    dataset = SliceDataset("random", (clean, dataset.slices[1]), dataset.image_size)
    maps = maps_for(dataset)
    maps[0] = np.zeros_like(maps[0])
    maps[0][3, 3] = 1
    scores = score_all(dataset, maps)
    own = summarize_regions(scores)["lesion"]["own_grid"]
    expected = by_hand(*masks_of(scores)[1])
    assert own["sensitivity"]["mean"] == pytest.approx(expected["sensitivity"])
    assert (own["sensitivity"]["slices"], own["sensitivity"]["empty"]) == (1, 1)
    assert own["sensitivity"]["patients_mean"] == pytest.approx(expected["sensitivity"])
    assert own["dice"]["mean"] == pytest.approx(expected["dice"] / 2)
    alone = summarize_regions(scores[:1])["lesion"]
    assert alone["own_grid"]["sensitivity"]["mean"] is None
    assert alone["own_grid"]["sensitivity"]["patients_mean"] is None
    assert summarize_patients(scores[:1])["p"]["sensitivity"] is None
    json.dumps([alone, own], allow_nan=False)


def test_infinity_and_nan_are_null_and_nothing_else_is() -> None:
    record = {"a": float("inf"), "b": float("nan"), "c": 0.0, "d": 0, "e": None, "f": "nan"}
    assert plain(record) == {"a": None, "b": None, "c": 0.0, "d": 0, "e": None, "f": "nan"}


def test_surface_distances_stand_in_mm_only_if_all_slices_have_them() -> None:
    mixed = score_all(random_slices(["p", "q"], [(2.0, 2.0), None]))
    spaced = score_all(random_slices(["p", "q"], (2.0, 2.0)))
    assert list(summarize_regions(mixed)["lesion"]["surface"]) == ["px"]
    surface = summarize_regions(spaced)["lesion"]["surface"]
    assert list(surface) == ["px", "mm"]
    assert surface["mm"]["assd"]["mean"] == pytest.approx(2 * surface["px"]["assd"]["mean"])
    assert set(surface["mm"]) == {"hausdorff", "hd95", "assd", "nsd"}


@pytest.mark.parametrize(
    ("spacings", "unit", "pixels"),
    [
        (None, "px", [1, 1]),
        ([(2.0, 3.0), None], "px", [1, 1]),
        ([(2.0, 3.0), (0.5, 0.5)], "mm2", [6, 0.25]),
    ],
)
def test_areas_share_a_unit(spacings: Any, unit: str, pixels: list[float]) -> None:
    """Errors and lesions by hand; of mixed slices everything is in pixels, and nothing is lost."""
    scores = score_all(random_slices(["p", "q"], spacings))
    found_unit, found_pixels = pixel_areas(scores)
    assert (found_unit, found_pixels.tolist()) == (unit, pixels)
    whole = summarize_regions(scores)["lesion"]
    pairs = masks_of(scores)
    errors = [(int(p.sum()) - int(t.sum())) * a for (p, t), a in zip(pairs, pixels, strict=True)]
    assert whole["area"]["unit"] == whole["lesions"]["unit"] == unit
    assert whole["area"]["signed"] == pytest.approx(np.mean(errors))
    assert whole["area"]["absolute"] == pytest.approx(np.mean(np.abs(errors)))
    truths = [int(t.sum()) * a for (_, t), a in zip(pairs, pixels, strict=True)]
    assert whole["area"]["truth"] == pytest.approx(np.mean(truths))


def test_lesions_are_sorted_in_by_their_area() -> None:
    """A square of 100 pixels found by one of them, a pixel missed, a false one of 9 pixels."""
    mask = np.zeros((40, 40), np.uint8)
    mask[2:12, 2:12] = 1
    mask[30, 30] = 1
    found = np.zeros((40, 40, 1), np.float32)
    found[5, 5] = found[20:23, 20:23] = 1
    for spacing, edges, expected in (
        (None, [0, 100, 400, 1600, None], [(1, 0, 1), (1, 1, 0), (0, 0, 0), (0, 0, 0)]),
        ((3.0, 2.0), [0, 50, 200, 800, None], [(1, 0, 0), (0, 0, 1), (1, 1, 0), (0, 0, 0)]),
    ):
        item = dataclasses.replace(
            random_slices(["p"]).slices[0], image=mask.astype(np.int16), mask=mask, spacing=spacing
        )
        dataset = SliceDataset("by hand", (dataclasses.replace(item, image=mask),), 40)
        bins = summarize_regions(score_all(dataset, [found]))["lesion"]["lesions"]["bins"]
        assert [part["low"] for part in bins] + [bins[-1]["high"]] == edges
        assert [(b["lesions"], b["detected"], b["false"]) for b in bins] == expected
        assert bins[-1]["sensitivity"] is None


def test_each_class_is_summarized_beside_the_lesion() -> None:
    dataset = random_slices(PATIENTS, classes=2, targets=("a", "b"))
    scores = score_all(dataset)
    found = summarize_regions(scores)
    assert list(found) == ["lesion", "a", "b"]
    for k, name in ((1, "a"), (2, "b")):
        pairs = [(one.prediction == k, one.truth == k) for one in scores]
        mean = np.mean([by_hand(*pair)["dice"] for pair in pairs])
        assert found[name]["own_grid"]["dice"]["mean"] == pytest.approx(mean)
    json.dumps(found, allow_nan=False)


def test_the_papers_protocol_is_the_mean_over_slices_at_the_networks_size() -> None:
    """Whatever the threshold on the own grid."""
    dataset = random_slices(PATIENTS)
    maps = maps_for(dataset)
    protocols = summarize_protocols(score_all(dataset, maps, threshold=0.9))
    pairs = [(m[..., 0] > 0.5, i.mask > 0) for m, i in zip(maps, dataset.slices, strict=True)]
    for name in ("dice", "sensitivity", "specificity"):
        mean = np.mean([by_hand(*pair)[name] for pair in pairs])
        assert protocols["paper"][name] == pytest.approx(mean)
    assert protocols["covid-semiseg"]["empty_truths"] == 0


def test_covid_semiseg_of_a_perfect_map_by_hand() -> None:
    """Dice 1 at all thresholds but 0, where everything is predicted: 2 n / (n + pixels)."""
    dataset = random_slices(["p", "q"])
    maps = [(item.mask[..., None] > 0).astype(np.float32) for item in dataset.slices]
    record = summarize_protocols(score_all(dataset, maps))["covid-semiseg"]
    lesion = [int(item.mask.sum()) for item in dataset.slices]
    last = np.mean(
        [2 * n / (n + item.mask.size) for n, item in zip(lesion, dataset.slices, strict=True)]
    )
    assert record["dice"] == pytest.approx((255 + last) / 256)
    assert record["sensitivity"] == 1.0
    assert record["specificity"] == pytest.approx(255 / 256)
    assert (record["mae"], record["dice_at_128_of_255"], record["constants"]) == (0, 1, 0)


def test_calibration_is_over_all_pixels() -> None:
    dataset = random_slices(PATIENTS)
    maps = maps_for(dataset)
    record = summarize_calibration(score_all(dataset, maps))
    p = np.concatenate([map_.ravel() for map_ in maps]).astype(float)
    truth = np.concatenate([item.mask.ravel() for item in dataset.slices]).astype(float)
    assert record["brier"] == pytest.approx(np.mean((p - truth) ** 2))
    assert record["mae"] == pytest.approx(np.mean(np.abs(p - truth)))
    bins = np.minimum((15 * p).astype(int), 14)
    gaps = [abs(p[bins == b].sum() - truth[bins == b].sum()) for b in range(15)]
    assert record["ece"] == pytest.approx(sum(gaps) / p.size)
    assert [part["pixels"] for part in record["bins"]] == np.bincount(bins, minlength=15).tolist()
    assert record["bins"][7]["frequency"] == pytest.approx(truth[bins == 7].mean())
    json.dumps(record, allow_nan=False)


def test_dice_at_every_threshold_is_that_of_thresholding(scores: list[SliceScores]) -> None:
    dataset = random_slices(PATIENTS)
    found = dice_by_threshold(scores)
    assert found.shape == (4, THRESHOLDS.size)
    for row, map_, item in zip(found, maps_for(dataset), dataset.slices, strict=True):
        for place in (0, 137, 500, 731):
            predicted = map_[..., 0] > np.float32(THRESHOLDS[place])
            assert row[place] == pytest.approx(by_hand(predicted, item.mask > 0)["dice"])


def mixed_scores() -> list[SliceScores]:
    """Two sources; in each a lesion, none and nothing marked, none and 9 pixels marked."""
    dataset = random_slices(list("pqrstu"))
    maps = maps_for(dataset)
    slices = []
    for place, item in enumerate(dataset.slices):
        source = "ab"[place // 3]
        if place % 3:
            item = dataclasses.replace(item, mask=np.zeros_like(item.mask))
            maps[place] = np.zeros_like(maps[place])
            maps[place][:3, :3] = place % 3 == 2
        slices.append(dataclasses.replace(item, source=source))
    return score_all(SliceDataset("mixed", tuple(slices), 12), maps)


def test_lesion_free_slices_stand_apart() -> None:
    """Half of them are touched, by 9 of 144 pixels; the others have means without them."""
    scores = mixed_scores()
    found = summarize_lesion_free(scores)
    assert (found["slices"], found["any_marked"]) == (4, 0.5)
    assert found["marked_area"] == pytest.approx(9 / 144 / 2)
    with_lesion = [by_hand(*masks_of(scores)[place])["dice"] for place in (0, 3)]
    assert found["with_lesion"] is not None
    assert found["with_lesion"]["dice"]["mean"] == pytest.approx(np.mean(with_lesion))
    assert found["with_lesion"]["dice"]["slices"] == 2
    whole = summarize_regions(scores)["lesion"]["own_grid"]["dice"]["mean"]
    assert whole == pytest.approx((sum(with_lesion) + 2) / 6)  # an untouched one counts 1


def test_without_lesion_free_slices_nothing_is_known_of_them(scores: list[SliceScores]) -> None:
    expected = {"slices": 0, "any_marked": None, "marked_area": None, "with_lesion": None}
    assert summarize_lesion_free(scores) == expected
    only = summarize_lesion_free(mixed_scores()[1:3])
    assert (only["slices"], only["any_marked"], only["with_lesion"]) == (2, 0.5, None)


def test_each_source_of_several_has_means_of_its_own() -> None:
    scores = mixed_scores()
    found = summarize_sources(scores)
    assert list(found) == ["a", "b"]
    for name, place in (("a", 0), ("b", 3)):
        dice = by_hand(*masks_of(scores)[place])["dice"]
        assert found[name]["slices"] == 3
        assert found[name]["own_grid"]["dice"]["mean"] == pytest.approx((dice + 1) / 3)
        assert found[name]["lesion_free"]["slices"] == 2
        assert found[name]["lesion_free"]["marked_area"] == pytest.approx(9 / 144 / 2)
    assert summarize_sources(scores[:3]) == {}
