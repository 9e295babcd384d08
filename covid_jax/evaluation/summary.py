"""From slices' scores to what a report says: means, pooled values, intervals, patients."""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.metrics.bootstrap import FEWEST, bootstrap_interval
from covid_jax.metrics.calibration import Calibration
from covid_jax.metrics.confusion import METRICS, Counts, summarize
from covid_jax.metrics.covid_semiseg import AT_HALF, SemiSegSummary, summarize_semiseg
from covid_jax.metrics.lesion_detection import AreaError, Lesions, by_size
from covid_jax.metrics.surface_distance import summarize_surface
from covid_jax.metrics.sweep import THRESHOLDS

SIZES = {"mm2": (50.0, 200.0, 800.0), "px": (100.0, 400.0, 1600.0)}  # edges of lesions' size bins
LEVEL = 0.95
Record = dict[str, Any]  # as metrics.json holds it


class Resampled(NamedTuple):
    """What a bootstrap draws: patients where all are known, else slices.

    Attributes:
      groups: of each slice; None for slices.
      statement: in words, and why there is no interval, if there is none.
    """

    groups: Sequence[Hashable] | None
    statement: str


def resampled(patients: Sequence[str | None]) -> Resampled:
    """How the intervals of these slices are to be drawn."""
    percent = f"{100 * LEVEL:.0f} % bootstrap intervals"
    if None in patients:
        if len(patients) < FEWEST:
            return Resampled(None, f"no intervals: {len(patients)} slices are too few")
        known = "no patient is" if set(patients) == {None} else "not all patients are"
        return Resampled(
            None,
            f"{percent}, slices resampled as {known} known: too narrow where slices share a "
            "patient",
        )
    number = len(set(patients))
    if number < FEWEST:
        return Resampled(
            patients,
            f"no intervals: {number} patients are too few to say how the next would do; each "
            "patient's values stand by themselves",
        )
    return Resampled(patients, f"{percent}, {number} patients resampled with all their slices")


def summarize_regions(scores: Sequence[SliceScores]) -> dict[str, Record]:
    """For each region what ``summarize_region`` says of it."""
    draws = resampled([one.item.patient for one in scores])
    return {name: summarize_region(scores, name, draws) for name in scores[0].regions}


def summarize_region(scores: Sequence[SliceScores], region: str, draws: Resampled) -> Record:
    """Overlap at both sizes, surface distances, lesions and areas, as JSON can hold them."""
    judged = [one.regions[region] for one in scores]
    patients = None if draws.groups is None else list(draws.groups)
    units = ["px"] + ["mm"] * all("mm" in one.surface for one in judged)
    area_unit, pixels = pixel_areas(scores)
    found = [_scaled(one.lesions, pixel) for one, pixel in zip(judged, pixels, strict=True)]
    areas = np.array([one.area for one in judged]) * pixels[:, None]
    area = dict(zip(AreaError._fields, areas.mean(0).tolist(), strict=True))
    return {
        "own_grid": _overlap(stack([one.counts for one in judged]), draws, patients),
        "network_size": _overlap(stack([one.network for one in judged]), draws, patients),
        "surface": {
            unit: {
                name: plain(summary._asdict())
                | {
                    "interval": _interval(
                        np.array([getattr(one.surface[unit], name) for one in judged]), draws
                    )
                }
                for name, summary in summarize_surface(
                    [one.surface[unit] for one in judged]
                ).items()
            }
            for unit in units
        },
        "lesions": {
            "unit": area_unit,
            "bins": [plain(part._asdict()) for part in by_size(found, SIZES[area_unit])],
        },
        "area": {"unit": area_unit, **area},
    }


def pixel_areas(scores: Sequence[SliceScores]) -> tuple[str, Float[np.ndarray, " n"]]:
    """The unit in which areas of all these slices can stand together, and a pixel's in each.

    mm2 where all slices' spacing is known, else pixels.
    """
    spacings = [one.item.spacing for one in scores if one.item.spacing]
    if len(spacings) < len(scores):
        return "px", np.ones(len(scores))
    return "mm2", np.prod(spacings, axis=1)


def summarize_patients(scores: Sequence[SliceScores], region: str) -> dict[str, Record]:
    """Each known patient's slices added up, and how many they are."""
    known = sorted({one.item.patient for one in scores if one.item.patient is not None})
    rows = {}
    for patient in known:
        counts = [one.regions[region].counts for one in scores if one.item.patient == patient]
        total = added(counts)
        rows[patient] = {"slices": len(counts)} | plain(
            {name: float(metric(total)[0]) for name, metric in METRICS.items()}
        )
    return rows


def summarize_protocols(scores: Sequence[SliceScores], region: str) -> dict[str, Record]:
    """The published protocols, by name, each with what it is."""
    network = stack([one.regions[region].network for one in scores])
    paper = {name: plain(part._asdict()) for name, part in summarize(network).items()}
    semiseg = summarize_semiseg([one.semiseg for one in scores])
    return {
        "paper": {
            "definition": "means over slices at the network's size, threshold 0.5",
            **{name: paper[name]["mean"] for name in ("dice", "sensitivity", "specificity")},
        },
        "covid-semiseg": semiseg_record(semiseg),
    }


def semiseg_record(summary: SemiSegSummary) -> Record:
    """COVID-SemiSeg's numbers as JSON can hold them, the curve's Dice at one half beside them."""
    return {
        "definition": "each map stretched to its own range, means over slices, then over the "
        "thresholds 1, 254/255, ..., 0; 0 where no lesion pixel is hit",
        **{name: getattr(summary, name) for name in ("dice", "sensitivity", "specificity", "mae")},
        "dice_at_128_of_255": float(summary.dice_curve[AT_HALF]),
        "empty_truths": summary.empty_truths,
        "constants": summary.constants,
    }


def summarize_calibration(scores: Sequence[SliceScores]) -> Record:
    """Over all pixels of all slices."""
    total = total_calibration(scores)
    return {
        "ece": total.ece,
        "brier": total.brier,
        "mae": total.mae,
        "bins": [
            plain({"confidence": float(c), "frequency": float(f), "pixels": int(n)})
            for c, f, n in zip(total.confidence, total.frequency, total.pixels, strict=True)
        ],
    }


def total_calibration(scores: Sequence[SliceScores]) -> Calibration:
    """The slices' sums added up."""
    total, *others = (one.calibration for one in scores)
    for other in others:
        total = total.add(other)
    return total


def dice_by_threshold(scores: Sequence[SliceScores]) -> Float[np.ndarray, "n t"]:
    """The lesion's Dice of each slice at each of ``THRESHOLDS``."""
    dices = np.stack([METRICS["dice"](one.sweep) for one in scores])
    assert dices.shape[1] == THRESHOLDS.size
    return dices


def stack(counts: Sequence[Counts]) -> Counts:
    """One entry a slice."""
    return Counts(*(np.asarray(part) for part in zip(*counts, strict=True)))


def added(counts: Sequence[Counts]) -> Counts:
    """All slices' counts together, one entry."""
    return Counts(*(np.asarray(part).sum(keepdims=True) for part in stack(counts)))


def plain(record: dict[str, Any]) -> Record:
    """NaN and infinity as null, which JSON has no word for."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }


def _overlap(counts: Counts, draws: Resampled, patients: Sequence[Hashable] | None) -> Record:
    """Summaries of every overlap metric, with intervals and means over patients."""
    rows = {}
    for name, summary in summarize(counts).items():
        metric = METRICS[name]
        rows[name] = plain(summary._asdict()) | {
            "interval": _interval(metric(counts), draws),
            "patients_mean": _patients_mean(metric, counts, patients),
        }
    return rows


def _scaled(lesions: Lesions, pixel: float) -> Lesions:
    return lesions._replace(areas=lesions.areas * pixel, false_areas=lesions.false_areas * pixel)


def _patients_mean(
    metric: Callable[[Counts], np.ndarray], counts: Counts, patients: Sequence[Hashable] | None
) -> float | None:
    """Mean over patients of the value pooled over each one's slices; None where unknown."""
    if patients is None:
        return None
    numbers: dict[Hashable, int] = {}
    whose = [numbers.setdefault(patient, len(numbers)) for patient in patients]
    totals = Counts(*(np.bincount(whose, weights=part) for part in counts))
    values = metric(totals)
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _interval(values: Float[np.ndarray, " n"], draws: Resampled) -> list[float] | None:
    found = bootstrap_interval(values, draws.groups, level=LEVEL)
    return None if found is None else [found.low, found.high]
