"""The figures of an evaluation, and its HTML report."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from covid_jax.evaluation import contents, summary
from covid_jax.evaluation.evaluate import Evaluation
from covid_jax.evaluation.report import EvaluationReport
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.evaluation.slice_table import row_of
from covid_jax.files import writing_to
from covid_jax.reporting import html_report as html
from covid_jax.reporting.example_figures import Example, choose, example_grid
from covid_jax.reporting.figures import save_figure, save_figures
from covid_jax.reporting.plots import area_figure, reliability_figure, sweep_figure
from covid_jax.reporting.slice_viewer import SlicePage, display_arrays
from covid_jax.runs.provenance import NOTICE
from covid_jax.transforms.labels import LESION

_HIDDEN = ("slice", "source", "patient", "height", "width", "tp", "fp", "fn", "tn")
_CAPTIONS = json.loads(html.page_part("captions.json"))  # of the figures, in their order


def draw_evaluation(evaluation: Evaluation, *, report: bool = False) -> None:
    """Writes examples.png to the folder of an evaluation, or every figure and report.html.

    Args:
      evaluation: result of ``evaluate``.
      report: whether to draw all figures, as PNG and PDF, and to write the report.

    Raises:
      RunError: if a file cannot be written.
    """
    folder = Path(evaluation.report.folder)
    slices = evaluation.slices
    examples = [Example(s.item.id, s.item.image, s.truth, s.prediction, s.dice) for s in slices]
    classes = evaluation.report.trained_classes or [LESION]
    grid = example_grid(examples, caption(evaluation.report), classes)
    with writing_to(folder):
        save_figure(grid, folder / "examples.png")
        if not report:
            return
        save_figures({"examples": grid, **_figures(evaluation)}, folder)
        paths = {name: folder / f"{name}.png" for name in _CAPTIONS}
        paths["curves"] = Path(evaluation.report.run) / "curves.png"
        drawn = {name: path.read_bytes() for name, path in paths.items() if path.exists()}
        figures = [html.figure(k.capitalize(), _CAPTIONS[k], png) for k, png in drawn.items()]
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
        tables=list(contents.score_tables(report)),
        warnings=report.split["warnings"],
        notes=report.notes,
        sections=list(contents.sections(report)),
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
