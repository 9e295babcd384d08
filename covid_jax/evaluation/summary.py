"""From slices' scores to what a report says: means, pooled values, intervals, patients."""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from covid_jax.evaluation.report import (
    LesionFreeRecord,
    Overlap,
    Record,
    RegionRecord,
    SourceRecord,
)
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.metrics.bootstrap import FEWEST, bootstrap_interval
from covid_jax.metrics.calibration import Calibration
from covid_jax.metrics.confusion import METRICS, THRESHOLDS, Counts, summarize
from covid_jax.metrics.covid_semiseg import AT_HALF, SemiSegSummary, summarize_semiseg
from covid_jax.metrics.lesion_detection import AreaError, Lesions, detection_by_size
from covid_jax.metrics.surface_distance import SurfaceScores, summarize_surface

SIZES = {"mm2": (50.0, 200.0, 800.0), "px": (100.0, 400.0, 1600.0)}  # edges of lesions' size bins
LEVEL = 0.95


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


def summarize_regions(scores: Sequence[SliceScores]) -> dict[str, RegionRecord]:
    """The summary of each region, the whole lesion first."""
    return {name: summarize_region(scores, name) for name in scores[0].regions}


def summarize_region(scores: Sequence[SliceScores], region: str) -> RegionRecord:
    """Overlap at both sizes, surface distances, lesions and areas, as JSON can hold them."""
    parts = [one.regions[region] for one in scores]
    draws = resampled([one.item.patient for one in scores])
    units = ["px"] + ["mm"] * all("mm" in part.surface for part in parts)
    area_unit, pixels = pixel_areas(scores)
    lesions = [_scaled(part.lesions, pixel) for part, pixel in zip(parts, pixels, strict=True)]
    areas = np.array([part.area for part in parts]) * pixels[:, None]
    area = dict(zip(AreaError._fields, areas.mean(0).tolist(), strict=True))
    return {
        "own_grid": overlap([part.counts for part in parts], draws),
        "network_size": overlap([part.network for part in parts], draws),
        "surface": {
            unit: _surface([part.surface[unit] for part in parts], draws) for unit in units
        },
        "lesions": {
            "unit": area_unit,
            "bins": [
                plain(part._asdict()) for part in detection_by_size(lesions, SIZES[area_unit])
            ],
        },
        "area": {"unit": area_unit, **area},
    }


def overlap_of(scores: Sequence[SliceScores]) -> Overlap:
    """The whole lesion's overlap metrics over some slices, on their own grids."""
    draws = resampled([one.item.patient for one in scores])
    return overlap([one.lesion.counts for one in scores], draws)


def summarize_lesion_free(scores: Sequence[SliceScores]) -> LesionFreeRecord:
    """What was marked where there is no lesion, and the overlap metrics where there is one."""
    free = [one.lesion.counts for one in scores if not one.truth.any()]
    others = [one for one in scores if one.truth.any()]
    areas = [int(counts.fp) / int(counts.fp + counts.tn) for counts in free]
    return {
        "slices": len(free),
        "any_marked": sum(area > 0 for area in areas) / len(free) if free else None,
        "marked_area": sum(areas) / len(free) if free else None,
        "with_lesion": overlap_of(others) if free and others else None,
    }


def summarize_sources(scores: Sequence[SliceScores]) -> dict[str, SourceRecord]:
    """The slices of each source by its name, in the order in which they come; {} for one source."""
    parts: dict[str, list[SliceScores]] = {}
    for one in scores:
        parts.setdefault(one.item.source, []).append(one)
    if len(parts) == 1:
        return {}
    return {
        source: {
            "slices": len(part),
            "own_grid": overlap_of(part),
            "lesion_free": summarize_lesion_free(part),
        }
        for source, part in parts.items()
    }


def pixel_areas(scores: Sequence[SliceScores]) -> tuple[str, Float[np.ndarray, " n"]]:
    """The unit in which areas of all these slices can stand together, and a pixel's in each.

    mm2 where all slices' spacing is known, else pixels.
    """
    spacings = [one.item.spacing for one in scores if one.item.spacing]
    if len(spacings) < len(scores):
        return "px", np.ones(len(scores))
    return "mm2", np.prod(spacings, axis=1)


def summarize_patients(scores: Sequence[SliceScores]) -> dict[str, Record]:
    """The whole lesion's metrics of each known patient, its slices' counts added up."""
    known = sorted({one.item.patient for one in scores if one.item.patient is not None})
    rows = {}
    for patient in known:
        counts = [one.lesion.counts for one in scores if one.item.patient == patient]
        total = added(counts)
        rows[patient] = {"slices": len(counts)} | plain(
            {name: float(metric(total)[0]) for name, metric in METRICS.items()}
        )
    return rows


def summarize_protocols(scores: Sequence[SliceScores]) -> dict[str, Record]:
    """The whole lesion by the published protocols: name, definition and values of each."""
    network = stack([one.lesion.network for one in scores])
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


def plain(record: Mapping[str, Any]) -> Record:
    """NaN and infinity as null, which JSON has no word for."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }


def overlap(counts: Sequence[Counts], draws: Resampled) -> Overlap:
    """Summaries of every overlap metric, with intervals and means over patients."""
    stacked = stack(counts)
    rows: Overlap = {}
    for name, summary in summarize(stacked).items():
        values = plain(summary._asdict())
        rows[name] = {
            "mean": values["mean"],
            "pooled": values["pooled"],
            "slices": summary.slices,
            "empty": summary.empty,
            "interval": interval_of(METRICS[name](stacked), draws),
            "patients_mean": _patients_mean(METRICS[name], stacked, draws.groups),
        }
    return rows


def interval_of(values: Float[np.ndarray, " n"], draws: Resampled) -> list[float] | None:
    """The bootstrap interval of the values' mean; None where too few are known."""
    interval = bootstrap_interval(values, draws.groups, level=LEVEL)
    return None if interval is None else [interval.low, interval.high]


def mean_of(values: Float[np.ndarray, " n"]) -> float | None:
    """The mean of what is defined; None where nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _surface(parts: Sequence[SurfaceScores], draws: Resampled) -> dict[str, Record]:
    return {
        name: plain(summary._asdict())
        | {"interval": interval_of(np.array([getattr(part, name) for part in parts]), draws)}
        for name, summary in summarize_surface(parts).items()
    }


def _scaled(lesions: Lesions, pixel: float) -> Lesions:
    return lesions._replace(areas=lesions.areas * pixel, false_areas=lesions.false_areas * pixel)


def _patients_mean(
    metric: Callable[[Counts], np.ndarray], counts: Counts, patients: Sequence[Hashable] | None
) -> float | None:
    """Mean over patients of the value pooled over the slices of each; None where unknown."""
    if patients is None:
        return None
    numbers: dict[Hashable, int] = {}
    groups = [numbers.setdefault(patient, len(numbers)) for patient in patients]
    return mean_of(metric(Counts(*(np.bincount(groups, weights=part) for part in counts))))
