"""The figures of an evaluation, and its HTML report."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from covid_jax.data import SliceDataset
from covid_jax.evaluation import summary
from covid_jax.evaluation.evaluate import Evaluation
from covid_jax.evaluation.report import EvaluationReport
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.evaluation.slice_table import row_of
from covid_jax.files import writing_to
from covid_jax.reporting import html_report as html
from covid_jax.reporting.drawing import save_figure, save_figures
from covid_jax.reporting.example_figures import Example, choose, example_grid
from covid_jax.reporting.plots import area_figure, reliability_figure, sweep_figure
from covid_jax.reporting.slice_viewer import SlicePage, display_arrays
from covid_jax.runs.provenance import NOTICE
from covid_jax.transforms.labels import class_names

_HIDDEN = ("slice", "source", "patient", "height", "width", "tp", "fp", "fn", "tn")
_TEXTS = json.loads(html.page_part("texts.json"))  # captions of the figures in their order, rules


def draw_evaluation(dataset: SliceDataset, evaluation: Evaluation, *, report: bool = False) -> None:
    """Writes examples.png to the folder of an evaluation, or every figure and report.html.

    Args:
      dataset: contains the slices.
      evaluation: result of ``evaluate``.
      report: whether to draw all figures, as PNG and PDF, and to write the report.

    Raises:
      RunError: if a file cannot be written.
    """
    folder = Path(evaluation.report.folder)
    examples = [
        Example(one.item.id, one.item.image, one.truth, one.prediction, one.dice)
        for one in evaluation.slices
    ]
    names = dataset.targets or class_names(dataset.targets)
    grid = example_grid(examples, caption(evaluation.report), names)
    with writing_to(folder):
        save_figure(grid, folder / "examples.png")
        if not report:
            return
        save_figures({"examples": grid, **_figures(evaluation)}, folder)
        paths = {name: folder / f"{name}.png" for name in _TEXTS["captions"]}
        paths["curves"] = Path(evaluation.report.run) / "curves.png"
        figures = [
            html.figure(name.capitalize(), _TEXTS["captions"][name], path.read_bytes())
            for name, path in paths.items()
            if path.exists()
        ]
        picked = ("best", "median", "worst")
        picks = [(label, one.id) for label, one in choose(examples) if label in picked]
        page = _page(evaluation)._replace(figures=figures, picks=picks)
        html.write_report(folder / "report.html", page)


def caption(report: EvaluationReport) -> str:
    """A caption for a figure of these slices that is complete without the report."""
    synthetic = "Synthetic phantom. " if "synthetic phantom" in " ".join(report.notes) else ""
    leaky = " The paper's leaky split." if report.split["policy"] == "paper" else ""
    rule = "" if report.classes else f" at threshold {report.threshold:g}"
    rule += ", averaged over flips" if report.tta else ""
    return (
        f"{synthetic}{report.slices} {report.subset} slices, mean Dice "
        f"{report.own_grid['dice']['mean']:.3f}{rule}.{leaky} {NOTICE}"
    )


def _figures(evaluation: Evaluation) -> dict[str, Figure]:
    """All figures except the examples."""
    report, scores, _ = evaluation
    unit, pixels = summary.pixel_areas(scores)
    areas = pixels * [int(one.lesion.counts.tp + one.lesion.counts.fn) for one in scores]
    dices = np.array([one.dice for one in scores])
    thresholds = {"one half": 0.5}
    if report.threshold_from != "given":
        thresholds["chosen on validation"] = report.threshold
    curves = {f"{report.subset} slices": summary.dice_by_threshold(scores).mean(0)}
    return {
        "area": area_figure(areas, dices, report.lesions, unit),
        "threshold": sweep_figure(curves, thresholds),
        "reliability": reliability_figure(summary.total_calibration(scores)),
    }


def _page(evaluation: Evaluation) -> html.Report:
    """The report page without figures and picks."""
    report = evaluation.report
    weights = "" if report.epoch is None else f" Weights of epoch {report.epoch}."
    paper = report.split["policy"] == "paper"
    leaky = " Patients may be on both sides: the paper's split." * paper
    return html.Report(
        title=f"{Path(report.run).resolve().name}: {report.slices} {report.subset} slices",
        lead=f"{report.data}.{weights}{leaky}",
        slices=[_slice(one, evaluation.resembled) for one in evaluation.slices],
        headline=report.own_grid,
        summaries=list(_summaries(report)),
        warnings=report.split["warnings"],
        notes=report.notes,
        sections=list(_sections(report)),
        threshold=report.threshold,
        decision="by the most probable class" if report.classes else "",
    )


def _slice(scored: SliceScores, resembled: Mapping[str, str]) -> SlicePage:
    item, similar = scored.item, resembled.get(scored.item.id)
    probability = scored.probability.astype(np.float32) / 255
    cells: dict[str, Any] = {k: v for k, v in row_of(scored).items() if k not in _HIDDEN}
    return SlicePage(
        *(item.id, item.source, item.patient, item.mask.shape),
        *display_arrays(item.image, scored.truth, probability),
        cells,
        f"near-duplicate of the training slice {similar}" if similar else "",
    )


def _summaries(report: EvaluationReport) -> Iterator[str]:
    rule = f" at threshold {report.threshold:g} ({report.threshold_from})"
    rule = ", each pixel of the most probable class" if report.classes else rule
    free = report.lesion_free or {"slices": 0}
    scored = "each with a lesion"
    if free["slices"]:
        scored = (
            f"of which {free['slices']} without lesion have Dice 1 if nothing is marked, else 0"
        )
    note = f"Over {report.slices} slices, {scored}. {_sentence(report.intervals)} {_TEXTS['rules']}"
    yield html.summary_table(f"On each slice's own grid{rule}", report.own_grid, note)
    if others := free.get("with_lesion"):
        title = f"Slices with a lesion alone, {report.slices - free['slices']}"
        yield html.summary_table(title, others, f"{summary.lesion_free_words(free)}.")
    for source, part in report.per_source.items():
        words = summary.lesion_free_words(part["lesion_free"]) or "each with a lesion"
        title = f"Source {source}, {part['slices']} slices"
        yield html.summary_table(title, part["own_grid"], _sentence(words))
    if report.network_size:
        title = f"At the network's size, {report.image_size} x {report.image_size}, threshold 0.5"
        yield html.summary_table(title, report.network_size, "As in the paper.")
    for unit, part in report.surface.items():
        rows = {
            name + f"_({unit})" * (name != "nsd"): values
            | {"empty": values["one_empty"] + values["both_empty"]}
            for name, values in part.items()
        }
        note = (
            f"NSD: surface Dice at {report.tolerance:g} {unit}. A missed lesion counts as the "
            "slice's diagonal, two empty masks as 0."
        )
        yield html.summary_table(f"Distances between boundaries, in {unit}", rows, note)
    for name, part in report.classes.items():
        yield html.summary_table(f"{name}, on the own grid", part["own_grid"])
    for key, words in (("without_them", "without"), ("among_them", "only")):
        if part := (report.near_duplicates or {}).get(key):
            yield html.summary_table(f"Slices {words} near-duplicates of training slices", part)


def _sections(report: EvaluationReport) -> Iterator[str]:
    yield html.section("Split", [_sentence(report.split["statement"])])
    for name, part in report.protocols.items():
        settings = {html.in_words(k): _rounded(v) for k, v in part.items() if k != "definition"}
        yield html.section(f"Protocol: {name}", [_sentence(part["definition"])], settings)
    scores = {
        html.in_words(name): _rounded(report.calibration[name]) for name in ("ece", "brier", "mae")
    }
    about = "Calibration of the lesion probability over all pixels."
    yield html.section("Calibration", [about], scores)
    if report.per_patient:
        rows = {
            patient: ", ".join(f"{html.in_words(k)} {_rounded(v)}" for k, v in part.items())
            for patient, part in report.per_patient.items()
        }
        has_interval = report.own_grid["dice"]["interval"] is not None  # else these replace it
        yield html.section("Each patient, slices added up", (), rows, folded=has_interval)
    training = report.training
    if "command" in training:  # not of masks from elsewhere
        settings = {name: training[name] for name in ("date", "device")}
        for name, value in training["config"].items():
            is_group = isinstance(value, Mapping)
            settings[name] = ", ".join(f"{k} {v}" for k, v in value.items()) if is_group else value
        yield html.section("Training", [str(training["command"])], settings, folded=True)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _rounded(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else "undefined" if value is None else value
