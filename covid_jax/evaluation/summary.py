"""Summaries of slices' scores for the report: means, pooled values, intervals, patients."""

import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from covid_jax.evaluation.report import Overlap, Record, finite
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.metrics.bootstrap import FEWEST, bootstrap_interval, number_groups
from covid_jax.metrics.calibration import Calibration
from covid_jax.metrics.confusion import METRICS, Counts, mean_of_defined, summarize
from covid_jax.metrics.covid_semiseg import AT_HALF, summarize_semiseg
from covid_jax.metrics.lesion_detection import detection_by_size
from covid_jax.metrics.surface_distance import SurfaceScores, summarize_surface

SIZES = {"mm2": (50.0, 200.0, 800.0), "px": (100.0, 400.0, 1600.0)}  # edges of lesions' size bins
_PROTOCOL_METRICS = ("dice", "sensitivity", "specificity")


class Resampled(NamedTuple):
    """The units that a bootstrap draws: patients where all are known, else slices.

    Attributes:
      groups: the patient of each slice; None to draw slices.
      statement: description of the intervals, or the reason why there are none.
    """

    groups: Sequence[Hashable] | None
    statement: str


def resampled(patients: Sequence[str | None]) -> Resampled:
    """The units to draw for slices of these patients."""
    kind = "95 % bootstrap intervals"
    groups = None if None in patients else patients
    number = len(patients if groups is None else set(patients))
    if groups is None and number < FEWEST:
        return Resampled(None, f"no intervals: {number} slices are too few")
    if groups is None:
        known = "no patient is" if set(patients) == {None} else "not all patients are"
        reason = f"slices resampled as {known} known: too narrow where slices share a patient"
        return Resampled(None, f"{kind}, {reason}")
    if number < FEWEST:
        reason = f"{number} patients are too few to say how the next would do"
        return Resampled(groups, f"no intervals: {reason}; each patient's values are given")
    return Resampled(groups, f"{kind}, {number} patients resampled with all their slices")


def summarize_slices(scores: Sequence[SliceScores]) -> Record:
    """All fields of ``EvaluationReport`` that are computed from the slices' scores alone."""
    (_, lesion), *classes = summarize_regions(scores).items()
    return {
        "intervals": _draws(scores).statement,
        **lesion,
        "lesion_free": summarize_lesion_free(scores),
        "per_patient": summarize_patients(scores),
        "per_source": summarize_sources(scores),
        "protocols": summarize_protocols(scores),
        "calibration": summarize_calibration(scores),
        "classes": dict(classes),
    }


def summarize_regions(scores: Sequence[SliceScores]) -> dict[str, Record]:
    """Overlap at both sizes, surface distances, lesions and areas of each region, lesion first."""
    draws, (unit, pixels) = _draws(scores), pixel_areas(scores)
    regions = {}
    for region in scores[0].regions:
        parts = [scored.regions[region] for scored in scores]
        units = ["px"] + ["mm"] * all("mm" in part.surface for part in parts)
        lesions = [part.lesions.scaled(pixel) for part, pixel in zip(parts, pixels, strict=True)]
        bins = detection_by_size(lesions, SIZES[unit])
        network = [part.network for part in parts if part.network is not None]
        counts = _stack([part.counts for part in parts])
        truth, prediction = counts.tp + counts.fn, counts.tp + counts.fp
        error = prediction - truth
        surface = {name: _surface([p.surface[name] for p in parts], draws) for name in units}
        areas = {"truth": truth, "prediction": prediction, "signed": error, "absolute": abs(error)}
        regions[region] = {
            "own_grid": _overlap(counts, draws),
            "network_size": _overlap(_stack(network), draws) if network else {},
            "surface": surface,
            "lesions": {"unit": unit, "bins": [plain(part._asdict()) for part in bins]},
            "area": {"unit": unit} | {k: float(np.mean(v * pixels)) for k, v in areas.items()},
        }
    return regions


def overlap_of(scores: Sequence[SliceScores]) -> Overlap:
    """The whole lesion's overlap metrics over some slices, on their own grids."""
    return _overlap(_stack([scored.lesion.counts for scored in scores]), _draws(scores))


def summarize_lesion_free(scores: Sequence[SliceScores]) -> Record:
    """Marked areas in slices without lesion, and the overlap metrics of those with lesion."""
    free = [scored.lesion.counts for scored in scores if not scored.truth.any()]
    others = [scored for scored in scores if scored.truth.any()]
    areas = [int(counts.fp) / int(counts.fp + counts.tn) for counts in free]
    return {
        "slices": len(free),
        "any_marked": sum(area > 0 for area in areas) / len(free) if free else None,
        "marked_area": sum(areas) / len(free) if free else None,
        "with_lesion": overlap_of(others) if free and others else None,
    }


def summarize_sources(scores: Sequence[SliceScores]) -> dict[str, Record]:
    """The slices of each source by its name, in order of appearance; {} for a single source."""
    parts = _grouped(scores, "source")
    rows = {}
    for source, part in parts.items():
        free = summarize_lesion_free(part)
        rows[source] = {"slices": len(part), "own_grid": overlap_of(part), "lesion_free": free}
    return rows if len(parts) > 1 else {}


def near_duplicates(scores: Sequence[SliceScores], resembled: Mapping[str, str]) -> Record | None:
    """Overlap metrics of the slices that resemble a training slice, and of the others.

    Args:
      scores: of each slice.
      resembled: by slice id, the training slice that it resembles (``near_trained``).
    """
    similar = [scored for scored in scores if scored.item.id in resembled]
    if not similar:
        return None
    others = [scored for scored in scores if scored.item.id not in resembled]
    names, without = [one.item.id for one in similar], overlap_of(others) if others else None
    return {"slices": names, "among_them": overlap_of(similar), "without_them": without}


def pixel_areas(scores: Sequence[SliceScores]) -> tuple[str, Float[np.ndarray, " n"]]:
    """The unit of areas over all these slices, and the area of a pixel of each slice in this unit.

    The unit is mm2 where every slice's spacing is known, else px.
    """
    spacings = [scored.item.spacing for scored in scores if scored.item.spacing]
    if len(spacings) < len(scores):
        return "px", np.ones(len(scores))
    return "mm2", np.prod(spacings, axis=1)


def summarize_patients(scores: Sequence[SliceScores]) -> dict[str, Record]:
    """The whole lesion's metrics of each known patient, from the summed counts of its slices."""
    parts = _grouped(scores, "patient")
    rows = {}
    for patient in sorted(parts.keys() - {None}):
        counts = [scored.lesion.counts for scored in parts[patient]]
        total = Counts(*map(sum, zip(*counts, strict=True)))
        metrics = {name: float(metric(total)) for name, metric in METRICS.items()}
        rows[patient] = {"slices": len(counts)} | plain(metrics)
    return rows


def summarize_protocols(scores: Sequence[SliceScores]) -> dict[str, Record]:
    """Definition and values of each published protocol, of the whole lesion."""
    summary = summarize_semiseg([scored.semiseg for scored in scores])
    semiseg = {
        "definition": "each map stretched to its own range, means over slices, then over the "
        "thresholds 1, 254/255, ..., 0; 0 where no lesion pixel is hit",
        **{name: getattr(summary, name) for name in (*_PROTOCOL_METRICS, "mae")},
        "dice_at_128_of_255": float(summary.dice_curve[AT_HALF]),
        "empty_truths": summary.empty_truths,
        "constants": summary.constants,
    }
    parts = [scored.lesion.network for scored in scores if scored.lesion.network is not None]
    if not parts:  # masks from elsewhere
        return {"covid-semiseg": semiseg}
    network = _stack(parts)
    paper = {name: mean_of(METRICS[name](network)) for name in _PROTOCOL_METRICS}
    definition = "means over slices at the network's size, threshold 0.5"
    return {"paper": {"definition": definition, **paper}, "covid-semiseg": semiseg}


def summarize_calibration(scores: Sequence[SliceScores]) -> Record:
    """Calibration over all pixels of all slices."""
    total, parts = total_calibration(scores), ("confidence", "frequency", "pixels")
    bins = zip(*(getattr(total, name).tolist() for name in parts), strict=True)
    return {
        **{name: getattr(total, name) for name in ("ece", "brier", "mae")},
        "bins": [plain(dict(zip(parts, row, strict=True))) for row in bins],
    }


def total_calibration(scores: Sequence[SliceScores]) -> Calibration:
    """Sums over the pixels of all slices."""
    return functools.reduce(Calibration.add, (scored.calibration for scored in scores))


def dice_by_threshold(scores: Sequence[SliceScores]) -> Float[np.ndarray, "n t"]:
    """The lesion's Dice of each slice at each of ``THRESHOLDS``."""
    return np.stack([METRICS["dice"](scored.sweep) for scored in scores])


def plain(record: Mapping[str, Any]) -> Record:
    """The record with None for NaN and infinity, which JSON does not have."""
    return {name: finite(value) for name, value in record.items()}


def interval_of(values: Float[np.ndarray, " n"], draws: Resampled) -> list[float] | None:
    """The bootstrap interval of the values' mean; None with too few slices or patients."""
    interval = bootstrap_interval(values, draws.groups)
    return None if interval is None else [interval.low, interval.high]


def mean_of(values: Float[np.ndarray, " n"]) -> float | None:
    """The mean of the values that are not NaN; None without any."""
    return finite(mean_of_defined(values))


def _draws(scores: Sequence[SliceScores]) -> Resampled:
    return resampled([scored.item.patient for scored in scores])


def _grouped(scores: Sequence[SliceScores], name: str) -> dict[Any, list[SliceScores]]:
    """The scores grouped by the source or the patient of the slices (the field ``name``)."""
    parts: dict[Any, list[SliceScores]] = {}
    for scored in scores:
        parts.setdefault(getattr(scored.item, name), []).append(scored)
    return parts


def _stack(counts: Sequence[Counts]) -> Counts:
    """Counts with an entry for each slice."""
    return Counts(*map(np.asarray, zip(*counts, strict=True)))


def _overlap(counts: Counts, draws: Resampled) -> Overlap:
    """Summaries of every overlap metric, with intervals and means over patients."""
    by_patient = None
    if draws.groups is not None:
        numbers = number_groups(draws.groups)
        by_patient = Counts(*(np.bincount(numbers, weights=part) for part in counts))
    rows: dict[str, Any] = {}
    for name, summary in summarize(counts).items():
        metric = METRICS[name]
        mean = None if by_patient is None else mean_of(metric(by_patient))
        spread = {"interval": interval_of(metric(counts), draws), "patients_mean": mean}
        rows[name] = plain(summary._asdict()) | spread
    return rows


def _surface(parts: Sequence[SurfaceScores], draws: Resampled) -> dict[str, Record]:
    return {
        name: plain(summary._asdict())
        | {"interval": interval_of(np.array([getattr(part, name) for part in parts]), draws)}
        for name, summary in summarize_surface(parts).items()
    }
