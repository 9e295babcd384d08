"""All figures of an evaluation, and the report that holds them together."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from covid_jax.data import SliceDataset
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.evaluation.slice_table import row
from covid_jax.evaluation.summary import dice_by_threshold, pixel_areas, total_calibration
from covid_jax.inference import Run
from covid_jax.reporting.attention_maps import attention_figure, gate_contrast, spatial_gates
from covid_jax.reporting.drawing import save_figure
from covid_jax.reporting.html_report import Report, spoken, write_report
from covid_jax.reporting.plots import area_figure, reliability_figure, sweep_figure
from covid_jax.reporting.report_parts import ReportFigure, Section, Summary, SummaryRow
from covid_jax.reporting.slice_viewer import SlicePage, slice_page
from covid_jax.transforms.preprocessing import normalize

_GATED = 32  # slices over which the gates' means are taken
_UNSHOWN = ("slice", "source", "patient", "height", "width", "tp", "fp", "fn", "tn")
_DRAWN = ("examples", "area", "threshold", "reliability", "attention")
_CAPTIONS = {
    "examples": "The best, typical and worst slices by Dice; found, false and missed pixels.",
    "curves": "Losses, validation Dice and learning rate of the training.",
    "area": "Dice of each slice against its lesion's area, with the median of each quarter of the "
    "slices; and single lesions (8-connected), found if one pixel of them is predicted. False ones "
    "count downwards.",
    "threshold": "Mean Dice at every threshold. It is not chosen on the slices it is judged by.",
    "reliability": "Share of lesion among pixels of like predicted probability.",
    "attention": "The factor of each block's spatial gate over the best and the worst slice, with "
    "its mean over lesion and rest of the first slices.",
}


def remove_pages(folder: Path) -> None:
    """What an earlier evaluation drew, which would belie the numbers now beside it."""
    for path in folder.glob("*"):
        drawn = path.stem in _DRAWN and path.suffix in (".png", ".pdf")
        if path.name == "report.html" or drawn:
            path.unlink()


def write_pages(
    run: Run,
    dataset: SliceDataset,
    report: dict[str, Any],
    scores: Sequence[SliceScores],
    near_duplicates: Mapping[str, str],
    folder: Path,
) -> None:
    """Draws every figure as PNG and PDF, and writes report.html.

    Args:
      run: the run that was scored.
      dataset: the slices are from.
      report: what metrics.json holds; ``attention`` is added to it.
      scores: of each slice.
      near_duplicates: slices that resemble one in the training part, and which.
      folder: where examples.png lies already.

    Raises:
      OSError: if a file cannot be written.
    """
    drawn = {
        "area": _area(scores, report),
        "threshold": _thresholds(scores, report),
        "reliability": reliability_figure(total_calibration(scores)),
    }
    if (attention := _attention(run, dataset, report, scores)) is not None:
        drawn["attention"] = attention
    for name, figure in drawn.items():
        for ending in ("png", "pdf"):
            save_figure(figure, folder / f"{name}.{ending}")
    pictures = [folder / "examples.png", run.folder / "curves.png"]
    pictures += [folder / f"{name}.png" for name in drawn]
    figures = [
        ReportFigure(path.stem.capitalize(), _CAPTIONS[path.stem], path.read_bytes())
        for path in pictures
        if path.exists()
    ]
    write_report(folder / "report.html", _page(run, report, scores, near_duplicates, figures))


def _area(scores: Sequence[SliceScores], report: dict[str, Any]) -> Figure:
    unit, pixels = pixel_areas(scores)
    areas = pixels * [one.lesion.area.truth for one in scores]
    return area_figure(areas, np.array([one.dice for one in scores]), report["lesions"], unit)


def _thresholds(scores: Sequence[SliceScores], report: dict[str, Any]) -> Figure:
    curves = {f"{report['subset']} slices": dice_by_threshold(scores).mean(0)}
    marks = {"one half": 0.5}
    if report["threshold_from"] != "given":
        marks["chosen on validation"] = report["threshold"]
    return sweep_figure(curves, marks)


def _attention(
    run: Run, dataset: SliceDataset, report: dict[str, Any], scores: Sequence[SliceScores]
) -> Figure | None:
    """Over the best and the worst slice; the gates' means go into the report."""
    if run.model.attention == "none":
        return None
    position = {item.id: i for i, item in enumerate(dataset.slices)}
    ranked = sorted(scores, key=lambda one: -one.dice)
    shown = [position[one.item.id] for one in (ranked[0], *ranked[-1:][: len(ranked) - 1])]
    several = [position[one.item.id] for one in scores[:_GATED]]
    network = dataset.network

    def gates_of(places: Sequence[int]) -> dict[str, np.ndarray]:
        parts = []
        for start in range(0, len(places), 4):
            part = np.resize(np.asarray(places[start : start + 4]), 4)  # one shape for all
            images = normalize(network.images.take(part), run.normalization)
            parts.append(spatial_gates(run.model, run.params, jnp.asarray(images)))
        return {
            place: np.concatenate([part[place] for part in parts])[: len(places)]
            for place in parts[0]
        }

    contrast = gate_contrast(gates_of(several), dataset.target_ids(network.masks[several]))
    report["attention"] = {
        place: {k: None if math.isnan(v) else v for k, v in means.items()}
        for place, means in contrast.items()
    }
    raw = list(network.images.take(shown).decode())
    masks = dataset.target_ids(network.masks[shown])
    return attention_figure(raw, masks, gates_of(shown), contrast)


def _page(
    run: Run,
    report: dict[str, Any],
    scores: Sequence[SliceScores],
    near_duplicates: Mapping[str, str],
    figures: Sequence[ReportFigure],
) -> Report:
    name = run.folder.resolve().name
    leaky = " Patients may stand on both sides: the paper's split." * (
        report["split"]["policy"] == "paper"
    )
    return Report(
        title=f"{name}: {report['slices']} {report['subset']} slices",
        lead=f"{report['data']}. Weights of epoch {report['epoch']}.{leaky} Research use only: "
        "nothing here diagnoses anyone.",
        summaries=list(_summaries(report)),
        slices=[_slice(one, near_duplicates) for one in scores],
        warnings=report["split"]["warnings"],
        notes=report["notes"],
        sections=list(_sections(report)),
        figures=figures,
        threshold=report["threshold"],
        decision="by the most probable class" if len(report["classes"]) else "",
        labels={"covid_semiseg_dice": "COVID-SemiSeg Dice"},
    )


def _slice(one: SliceScores, near_duplicates: Mapping[str, str]) -> SlicePage:
    values = {key: cell for key, cell in row(one).items() if key not in _UNSHOWN}
    item, twin = one.item, near_duplicates.get(one.item.id)
    note = f"all but a copy of {twin}, which trained" if twin else ""
    return slice_page(
        *(item.id, item.source, item.patient, item.image, one.truth),
        one.probability.astype(np.float32) / 255,
        {key: cell for key, cell in values.items() if not isinstance(cell, str)},
        note,
    )


def _summaries(report: dict[str, Any]) -> Iterator[Summary]:
    chosen = f" at threshold {report['threshold']:g} ({report['threshold_from']})"
    if report["classes"]:
        chosen = ", each pixel of the most probable class"
    rules = (
        "Mean: over slices. Over patients: mean of each one's slices added up. Pooled: all pixels "
        "together. Empty masks: slices that met the metric's rule for nothing to divide by (Dice "
        "and IoU 1 where both masks are empty, sensitivity undefined without a lesion, precision 0 "
        "where nothing was predicted of one)."
    )
    yield Summary(
        f"On each slice's own grid{chosen}",
        _rows(report["own_grid"]),
        f"{_sentence(report['intervals'])} {rules}",
    )
    yield Summary(
        f"At the network's size, {report['image_size']} x {report['image_size']}, threshold 0.5",
        _rows(report["network_size"]),
        "As the paper counts.",
    )
    for unit, part in report["surface"].items():
        rows = [
            SummaryRow(
                spoken(name) + f" ({unit})" * (name != "nsd"),
                *(values["mean"], _pair(values["interval"]), values["pooled"]),
                *(values["slices"], values["one_empty"] + values["both_empty"]),
            )
            for name, values in part.items()
        ]
        yield Summary(
            f"Distances between boundaries, in {unit}",
            rows,
            f"NSD: surface Dice at {report['tolerance']:g} {unit}. A missed lesion counts as the "
            "slice's diagonal, two empty masks as 0.",
        )
    for name, part in report["classes"].items():
        yield Summary(f"{name}, on the own grid", _rows(part["own_grid"]))
    if report["near_duplicates"]:
        for key, words in (("without_them", "without"), ("among_them", "only")):
            if part := report["near_duplicates"][key]:
                yield Summary(f"Slices {words} near-duplicates of training slices", _rows(part))


def _rows(part: Mapping[str, Any]) -> list[SummaryRow]:
    return [
        SummaryRow(
            *(spoken(name), values["mean"], _pair(values["interval"]), values["pooled"]),
            *(values["slices"], values["empty"], values["patients_mean"]),
        )
        for name, values in part.items()
    ]


def _sections(report: dict[str, Any]) -> Iterator[Section]:
    split = report["split"]
    yield Section("Split", [_sentence(split["statement"])])
    for name, part in report["protocols"].items():
        settings = {spoken(k): _rounded(v) for k, v in part.items() if k != "definition"}
        yield Section(f"Protocol: {name}", [_sentence(part["definition"])], settings)
    scores = ("ece", "brier", "mae")
    calibration = {spoken(name): _rounded(report["calibration"][name]) for name in scores}
    yield Section("Calibration", ["Of the lesion's probability, over all pixels."], calibration)
    if report["per_patient"]:
        rows = {
            patient: ", ".join(f"{spoken(k)} {_rounded(v)}" for k, v in part.items())
            for patient, part in report["per_patient"].items()
        }
        few = report["own_grid"]["dice"]["interval"] is None  # and these stand in for it
        yield Section("Each patient, slices added up", (), rows, folded=not few)
    training = report["training"]
    settings = {name: training[name] for name in ("date", "device")} | _flat(training["config"])
    yield Section("Training", [str(training["command"])], settings, folded=True)


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in config.items():
        flat |= _flat(value) if isinstance(value, Mapping) else {name: value}
    return flat


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _pair(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (interval[0], interval[1])


def _rounded(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else "undefined" if value is None else value
