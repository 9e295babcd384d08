"""The results of an evaluation as tables and sections, for report, terminal and model card."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from covid_jax.errors import plural
from covid_jax.evaluation.report import EvaluationReport, Record, finite

Rows = Mapping[str, Mapping[str, Any]]  # by metric, with the keys of MetricRecord

UNDEFINED = "\N{EN DASH}"
_HEADINGS = ("Metric", "Mean", "95 % interval", "Over patients", "Pooled", "Slices", "Empty masks")
_WORDS = {"dice": "Dice", "iou": "IoU"}  # spelling in headings
_WORDS |= {word: word.upper() for word in ("mae", "hd95", "assd", "nsd", "ece", "covid", "hu")}
_RULES = (
    "Mean: over slices. Over patients: mean over patients, from the summed counts of a patient's "
    "slices. Pooled: all pixels together. Empty masks: slices where the metric's denominator is 0 "
    "(Dice and IoU are then 1, sensitivity is undefined without a lesion, precision is 0 if a "
    "lesion was missed and nothing predicted)."
)


class ScoreTable(NamedTuple):
    """A table of metrics, with a note below it."""

    title: str
    rows: Rows
    note: str = ""


class Section(NamedTuple):
    """A text, and values by name; ``folded`` if few readers need it."""

    title: str
    text: str = ""
    values: Mapping[str, Any] = {}
    folded: bool = False


def score_tables(report: EvaluationReport) -> Iterator[ScoreTable]:
    """The tables of an evaluation, the whole lesion on the slices' own grids first."""
    rule = f" at threshold {report.threshold:g} ({report.threshold_from})"
    rule = ", each pixel of the most probable class" if report.classes else rule
    free = report.lesion_free or {"slices": 0}
    scored = "each with a lesion."
    if free["slices"]:
        scored = f"of which {free['slices']} without lesion have Dice 1 if nothing is marked, else "
        scored += f"0. {_lesion_free(free)}"
    note = f"Over {report.slices} slices, {scored} {_sentence(report.intervals)} {_RULES}"
    yield ScoreTable(f"On each slice's own grid{rule}", report.own_grid, note)
    if others := free.get("with_lesion"):
        yield ScoreTable(f"Slices with a lesion alone, {report.slices - free['slices']}", others)
    for source, part in report.per_source.items():
        words = _lesion_free(part["lesion_free"]) or "Each with a lesion."
        yield ScoreTable(f"Source {source}, {part['slices']} slices", part["own_grid"], words)
    if report.network_size:
        title = f"At the network's size, {report.image_size} x {report.image_size}, threshold 0.5"
        yield ScoreTable(title, report.network_size, "As in the paper.")
    for unit, part in report.surface.items():
        rows = {}
        for name, values in part.items():
            empty = values["one_empty"] + values["both_empty"]
            rows[name + f"_({unit})" * (name != "nsd")] = values | {"empty": empty}
        empty = "A missed lesion counts as the slice's diagonal, two empty masks as 0."
        note = f"NSD: surface Dice at {report.tolerance:g} {unit}. {empty}"
        yield ScoreTable(f"Distances between boundaries, in {unit}", rows, note)
    for name, part in report.classes.items():
        yield ScoreTable(f"{name}, on the own grid", part["own_grid"])
    for key, words in (("without_them", "without"), ("among_them", "only")):
        if part := (report.near_duplicates or {}).get(key):
            yield ScoreTable(f"Slices {words} near-duplicates of training slices", part)


def sections(report: EvaluationReport) -> Iterator[Section]:
    """The other results of an evaluation, and where they come from."""
    yield Section("Split", _sentence(report.split["statement"]))
    names = {"lesions": "Lesions", "detected": "Found", "missed": "Missed", "false": "False alarms"}
    bins = report.lesions["bins"]
    about = "8-connected lesions of all sizes; found if one of their pixels is predicted."
    counts = {word: sum(part[name] for part in bins) for name, word in names.items()}
    yield Section("Single lesions", about, counts)
    for name, part in report.protocols.items():
        values = {in_words(k): _rounded(v) for k, v in part.items() if k != "definition"}
        yield Section(f"Protocol: {name}", _sentence(part["definition"]), values)
    scores = {in_words(k): _rounded(report.calibration[k]) for k in ("ece", "brier", "mae")}
    yield Section("Calibration", "Of the lesion probability over all pixels.", scores)
    if report.per_patient:
        rows = {
            patient: ", ".join(f"{in_words(k)} {_rounded(v)}" for k, v in part.items())
            for patient, part in report.per_patient.items()
        }
        has_interval = report.own_grid["dice"]["interval"] is not None  # else these replace it
        yield Section("Each patient, slices added up", "", rows, folded=has_interval)
    training = report.training
    if "command" in training:  # not of masks from elsewhere
        settings = {name: training[name] for name in ("date", "device")}
        for name, value in training["config"].items():
            is_group = isinstance(value, Mapping)
            settings[name] = ", ".join(f"{k} {v}" for k, v in value.items()) if is_group else value
        yield Section("Training", training["command"], settings, folded=True)


def lines(rows: Rows) -> list[list[str]]:
    """The headings and a line of cells for each metric; "Over patients" only where it is known."""
    by_patient = any(record.get("patients_mean") is not None for record in rows.values())
    whole = [list(_HEADINGS), *([in_words(name), *cells(row)] for name, row in rows.items())]
    return whole if by_patient else [line[:3] + line[4:] for line in whole]


def cells(record: Mapping[str, Any]) -> list[str]:
    """The cells after the metric's name; the numbers of a row have the same number of decimals."""
    means = [finite(record.get(name)) for name in ("mean", "patients_mean", "pooled")]
    bounds = record["interval"] or ()
    digits = digits_for((*means, *bounds))
    mean, patients, pooled = (UNDEFINED if v is None else f"{v:,.{digits}f}" for v in means)
    interval = " to ".join(f"{bound:,.{digits}f}" for bound in bounds) or UNDEFINED
    return [mean, interval, patients, pooled, f"{record['slices']:,}", f"{record['empty']:,}"]


def digits_for(values: Iterable[float | None]) -> int:
    """Decimals for a row or column of numbers: 0 for integers, 1 if any is 10 or more, else 3."""
    known = [value for value in map(finite, values) if value is not None]
    if all(isinstance(value, int) for value in known):
        return 0
    return 3 if max(map(abs, known)) < 10 else 1


def in_words(key: str) -> str:
    """A metric's key as a heading: ``hd95_mm`` becomes "HD95 mm"."""
    words = " ".join(_WORDS.get(word, word) for word in key.split("_"))
    return words[:1].upper() + words[1:]


def _lesion_free(record: Record) -> str:
    """What was marked in lesion-free slices, as a sentence; "" if there are no such slices."""
    if not record["slices"]:
        return ""
    return (
        f"{plural(record['slices'], 'lesion-free slice')}: any lesion marked in "
        f"{100 * record['any_marked']:.1f} %, mean marked area "
        f"{100 * record['marked_area']:.3g} % of the picture."
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _rounded(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else "undefined" if value is None else value
