"""Output of the commands on the terminal: settings, tables, a progress bar, notes."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from covid_jax.data.dataset import SliceDataset
from covid_jax.data.statistics import LESION_SIZES
from covid_jax.errors import plural
from covid_jax.evaluation.report import EvaluationReport
from covid_jax.evaluation.summary import lesion_free_words
from covid_jax.runs.record import SourceRecord
from covid_jax.splits.leakage import may_leak

PAIRS_SHOWN = 10
SCANS_SHOWN = 20  # all are in summary.csv


def show_notes(notes: Iterable[str], console: Console) -> None:
    """Prints one line per note."""
    for note in notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}")


def show_survey(parts: Sequence[SourceRecord], console: Console) -> None:
    """A table with a column for each source."""
    table = Table(title="what is there", title_justify="left")
    table.add_column("")
    for part in parts:
        table.add_column(escape(part.source), justify="right")
    rows: dict[str, Callable[[SourceRecord], str]] = {
        "slices": lambda part: str(part.slices),
        "known patients": lambda part: str(part.patients),
        "slices of unknown patients": lambda part: str(part.unknown),
        "size in pixels": lambda part: _span("x".join(map(str, size)) for size in part.sizes),
        "spacing in mm": lambda part: _span(f"{value:.3g}" for value in part.spacings or ()),
        "intensities": lambda part: f"{_span(f'{v:g}' for v in part.range)} ({part.scale})",
    }
    for name in dict.fromkeys(name for part in parts for name in part.label_pixels):
        rows[f"{name} pixels"] = lambda part, name=name: f"{part.label_pixels.get(name, 0):,}"
    edges = [f"{100 * edge:g} %" for edge in LESION_SIZES]
    bins = ["no lesion", f"lesion under {edges[0]} of the slice"]
    bins += [f"{low} to {high}" for low, high in itertools.pairwise(edges)]
    for number, name in enumerate([*bins, f"{edges[-1]} and more"]):
        rows[name] = lambda part, number=number: str(part.lesion_sizes[number])
    for name, cell in rows.items():
        table.add_row(name, *map(cell, parts))
    console.print(table)


def show_pairs(
    dataset: SliceDataset, pairs: Sequence[tuple[int, int, float]], console: Console
) -> None:
    """Near-duplicate slices that are not known to be of one patient, the closest first."""
    slices = dataset.slices
    apart = [
        (correlation, slices[a].id, slices[b].id)
        for a, b, correlation in pairs
        if (slices[a].patient is None or slices[a].patient != slices[b].patient)
        and may_leak(dataset, a, b, correlation)
    ]
    console.print(f"near-duplicate slices not known to be of one patient: {len(apart)} pairs")
    for correlation, a, b in sorted(apart, reverse=True)[:PAIRS_SHOWN]:
        console.print(f"  {correlation:.2f}  {escape(a)}  {escape(b)}")
    if len(apart) > PAIRS_SHOWN:
        console.print(f"  and {len(apart) - PAIRS_SHOWN} more")


def show_study(summary: dict[str, Any], out: Path, console: Console) -> None:
    """Prints one row per run, then mean and standard deviation."""
    table = Table(title=f"{len(summary['runs'])} runs, test slices, means over slices")
    for heading in ("run", "slices", *summary["metrics"]):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for row in summary["runs"]:
        numbers = (_number(row[name]) for name in summary["metrics"])
        table.add_row(row["run"], str(row["slices"]), *numbers)
    for which in ("mean", "sd"):
        spread = (_number(part[which]) for part in summary["metrics"].values())
        table.add_row(f"[bold]{which}[/bold]", "", *spread)
    whole = summary["slices"]
    table.add_section()
    cells = (part for part in whole["metrics"].values())
    numbers = [f"{_number(c['mean'])} {_interval(c['interval'])}".strip() for c in cells]
    table.add_row("[bold]all slices[/bold]", str(whole["slices"]), *numbers)
    console.print(table)
    console.print(f"[dim]all slices[/dim]  {escape(whole['intervals'])}")
    console.print(f"[dim]files[/dim]  {escape(str(out))}/ summary.json, runs.csv, a folder a run")


def show_scores(report: EvaluationReport, console: Console) -> None:
    """Prints tables of metrics, with the notes needed to interpret them."""
    at = f"threshold {report.threshold:g} ({report.threshold_from})"
    if report.classes:
        at = "each pixel of the most probable class"
    table = Table(title=f"{report.slices} {report.subset} slices, {at}", title_justify="left")
    table.box, table.padding = SIMPLE_HEAD, (0, 1, 0, 0)  # all of it fits into 80 columns
    table.add_column("metric", overflow="fold")
    dice = report.own_grid["dice"]
    shown = {"mean": True, "95 %": dice["interval"] is not None}
    shown |= {"patients": dice["patients_mean"] is not None, "pooled": True}
    shown["network\nsize"] = bool(report.network_size)
    headings = [heading for heading, is_shown in shown.items() if is_shown]
    for heading in (*headings, "slices", "empty\nmasks"):
        table.add_column(heading, justify="right", no_wrap=True)
    regions = {"": (report.own_grid, report.network_size)} | {
        name: (part["own_grid"], part["network_size"]) for name, part in report.classes.items()
    }
    for region, (own_grid, network_size) in regions.items():
        if region:
            table.add_row(f"[bold]{escape(region)}[/bold]")
        for name, own in own_grid.items():
            cells = {
                "mean": _number(own["mean"]),
                "95 %": _interval(own["interval"]),
                "patients": _number(own["patients_mean"]),
                "pooled": _number(own["pooled"]),
            }
            if network_size:
                cells["network\nsize"] = _number(network_size[name]["mean"])
            numbers = (cells[heading] for heading in headings)
            table.add_row(name, *numbers, str(own["slices"]), str(own["empty"]))
    console.print(table)
    for line in _score_lines(report):
        console.print(line)
    show_notes((*report.split["warnings"], *report.notes), console)
    page = ", report.html" if (Path(report.folder) / "report.html").exists() else ""
    files = f"{report.folder}/ metrics.json, slices.csv, examples.png{page}"
    console.print(f"[dim]files[/dim]  {escape(files)}")


def _score_lines(report: EvaluationReport) -> Iterator[str]:
    """One line each for lesion-free slices, sources, distances, lesions and protocols."""
    if words := lesion_free_words(report.lesion_free):
        with_lesion = (report.lesion_free or {}).get("with_lesion")
        dice = _number(with_lesion["dice"]["mean"]) if with_lesion else "of no others"
        yield f"[dim]{words}[/dim]; the others alone: mean Dice {dice}"
    for source, part in report.per_source.items():
        free = part["lesion_free"]["slices"]
        yield (
            f"[dim]source {escape(source)}[/dim]  {part['slices']} slices, {free} lesion-free, "
            f"mean Dice {_number(part['own_grid']['dice']['mean'])}"
        )
    for unit, part in list(report.surface.items())[-1:]:  # in mm where that is known
        yield (
            f"[dim]distances[/dim]  HD95 {_number(part['hd95']['mean'])} {unit}, "
            f"ASSD {_number(part['assd']['mean'])} {unit}, "
            f"surface Dice {_number(part['nsd']['mean'])} at {report.tolerance:g} {unit}; "
            f"{part['hd95']['one_empty']} slices with one mask empty"
        )
    bins = report.lesions["bins"]
    found, lesions, false = (
        sum(part[name] for part in bins) for name in ("detected", "lesions", "false")
    )
    yield f"[dim]lesions[/dim]  {found} of {lesions} found, {false} false ones"
    if report.own_grid["dice"]["interval"] is None:
        for patient, part in report.per_patient.items():
            values = f"{plural(part['slices'], 'slice')} added up, Dice {_number(part['dice'])}"
            yield f"[dim]patient {escape(patient)}[/dim]  {values}"
    for name, part in report.protocols.items():
        yield (
            f"[dim]protocol {name}[/dim]  Dice {part['dice']:.4f}, sensitivity "
            f"{_number(part['sensitivity'])}, specificity {_number(part['specificity'])}"
        )
    if similar := report.near_duplicates:
        without = similar["without_them"]
        left = f"Dice {_number(without['dice']['mean'])} without them" if without else "no others"
        yield f"[dim]near-duplicates of training slices[/dim]  {len(similar['slices'])}; {left}"
    yield f"[dim]intervals[/dim]  {escape(report.intervals)}"
    yield f"[dim]split[/dim]  {escape(report.split['statement'])}"
    yield (
        "[dim]empty masks[/dim]  Dice, IoU 1 if both are empty; sensitivity undefined without a "
        "lesion; precision 0 where one was missed and nothing predicted"
    )


def show_comparison(record: dict[str, Any], out: Path, console: Console) -> None:
    """Prints one row for each metric and run."""
    table = Table(title=f"{record['slices']} {record['subset']} slices", title_justify="left")
    table.add_column("metric", no_wrap=True)
    table.add_column("run", overflow="fold")  # the one that gives way on a narrow screen
    for heading in ("mean\n95 %", "less the first\n95 %", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric, rows in record["metrics"].items():
        for place, (run, row) in enumerate(zip(record["runs"], rows, strict=True)):
            mean = f"{_number(row['mean'])}\n{_interval(row['interval'])}"
            gap, p = "", ""
            if place and row["difference"] is not None:
                gap = f"{row['difference']:+.4f}\n{_interval(row['difference_interval'])}"
                p = "" if row["p_value"] is None else f"{row['p_value']:.2g}"
            cells = (mean, gap or "undefined" * bool(place), p)
            table.add_row("" if place else metric, escape(run), *(cell.strip() for cell in cells))
    console.print(table)
    console.print(f"[dim]intervals[/dim]  {escape(record['intervals'])}")
    console.print(f"[dim]test[/dim]  {escape(record['test'])}")
    if len(set(record["thresholds"])) > 1:
        show_notes([f"the runs' thresholds differ: {record['thresholds']}"], console)
    files = f"{out}/ compare.json, compare.csv, scatter.png, methods.png"
    console.print(f"[dim]files[/dim]  {escape(files)}")


def show_scans(scans: Sequence[dict[str, Any]], console: Console) -> None:
    """A table of the main numbers, a row per scan."""
    if not scans:
        return
    table = Table(title="predicted", title_justify="left")
    headings = ("slices", "with lesion", "lesion", "share of lung", "probability in it")
    table.add_column("scan")
    for heading in headings:
        table.add_column(heading, justify="right")
    for one in scans[:SCANS_SHOWN]:
        ml, share, sure = one["lesion_ml"], one["share_of_lung"], one["probability_in_lesion"]
        table.add_row(
            escape(one["name"]),
            str(one["slices"]),
            str(one["slices_with_lesion"]),
            f"{one['lesion_voxels']:,} px" if ml is None else f"{ml:.1f} ml",
            "" if share is None else f"{100 * share:.1f} %",
            "" if sure is None else f"{sure:.2f}",
        )
    console.print(table)
    if len(scans) > SCANS_SHOWN:
        console.print(f"and {len(scans) - SCANS_SHOWN} more, in summary.csv")


def show_failures(failures: Sequence[tuple[Path, str]], console: Console) -> None:
    """A line for each scan that was left out."""
    if failures:
        console.print(f"[bold red]{len(failures)} left out:[/bold red]")
    for path, reason in failures:
        console.print(f"  {escape(f'{path}: {reason}')}")


def _interval(pair: Sequence[float] | None) -> str:
    if pair is None:
        return ""
    dash = " to " if pair[0] < 0 else "\N{EN DASH}"
    return f"{pair[0]:.2f}{dash}{pair[1]:.2f}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _span(values: Iterable[str]) -> str:
    """``smallest to largest``; a single value if they are equal; "unknown" without values."""
    return " to ".join(dict.fromkeys(values)) or "unknown"
