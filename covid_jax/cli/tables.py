"""Output of the commands on the terminal: tables and notes."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from covid_jax.data.dataset import SliceDataset
from covid_jax.data.statistics import LESION_SIZES
from covid_jax.evaluation import contents
from covid_jax.evaluation.report import EvaluationReport
from covid_jax.runs.record import SourceRecord
from covid_jax.splits.leakage import SimilarPairs, may_leak

Rows = Iterable[Sequence[str]]  # plain texts
PAIRS_SHOWN = 10
SCANS_SHOWN = 20  # all are in summary.csv
_NARROW: Any = {"box": SIMPLE_HEAD, "padding": (0, 1, 0, 0), "show_edge": False}


def show_notes(notes: Iterable[str], console: Console) -> None:
    """Prints one line per note."""
    for note in notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}")


def show_survey(parts: Sequence[SourceRecord], console: Console) -> None:
    """A table with a column for each source."""
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
    lines = ([name, *map(cell, parts)] for name, cell in rows.items())
    console.print(text_table("what is there", ["", *(part.source for part in parts)], lines))


def show_pairs(dataset: SliceDataset, pairs: SimilarPairs, console: Console) -> None:
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
    metrics, whole = summary["metrics"], summary["slices"]
    rows = [
        [row["run"], str(row["slices"]), *(_number(row[name]) for name in metrics)]
        for row in summary["runs"]
    ]
    for which in ("mean", "sd"):
        rows.append([which, "", *(_number(part[which]) for part in metrics.values())])
    parts = whole["metrics"].values()
    numbers = (f"{_number(part['mean'])} {_interval(part['interval'])}".strip() for part in parts)
    rows.append(["all slices", str(whole["slices"]), *numbers])
    title = f"{len(summary['runs'])} runs, test slices, means over slices"
    console.print(text_table(title, ("run", "slices", *metrics), rows))
    files = f"{out}/ summary.json, runs.csv, a folder a run"
    _show_lines({"all slices": whole["intervals"], "files": files}, console)


def show_scores(report: EvaluationReport, console: Console) -> None:
    """Prints the tables and sections of an evaluation, with the notes needed to interpret them."""
    console.print(f"[bold]{report.slices} {report.subset} slices[/bold]")
    for part in contents.score_tables(report):
        head, *rows = contents.lines(part.rows)
        console.print(f"[italic]{escape(part.title)}[/italic]")  # may be wider than the table
        console.print(text_table("", head, rows, head[0], **_NARROW))
        if part.note:
            console.print(f"[dim]{escape(part.note)}[/dim]")
    for part in contents.sections(report):
        values = "; ".join(f"{name} {value}" for name, value in part.values.items())
        if not part.folded:
            _show_lines({part.title: f"{part.text} {values}".strip()}, console)
    show_notes((*report.split["warnings"], *report.notes), console)
    page = ", report.html" if (Path(report.folder) / "report.html").exists() else ""
    files = f"{report.folder}/ metrics.json, slices.csv, examples.png{page}"
    _show_lines({"files": files}, console)


def show_comparison(record: dict[str, Any], out: Path, console: Console) -> None:
    """Prints one row for each metric and run."""
    rows = []
    for metric, parts in record["metrics"].items():
        for place, (run, part) in enumerate(zip(record["runs"], parts, strict=True)):
            mean = f"{_number(part['mean'])}\n{_interval(part['interval'])}"
            gap, p = "undefined" if place else "", ""
            if place and part["difference"] is not None:
                gap = f"{part['difference']:+.4f}\n{_interval(part['difference_interval'])}"
                p = "" if part["p_value"] is None else f"{part['p_value']:.2g}"
            rows.append(["" if place else metric, run, mean.strip(), gap.strip(), p])
    headings = ("metric", "run", "mean\n95 %", "less the first\n95 %", "p")
    title = f"{record['slices']} {record['subset']} slices"
    console.print(text_table(title, headings, rows, "run"))
    _show_lines({"intervals": record["intervals"], "test": record["test"]}, console)
    if len(set(record["thresholds"])) > 1:
        show_notes([f"the runs' thresholds differ: {record['thresholds']}"], console)
    _show_lines({"files": f"{out}/ compare.json, compare.csv, scatter.png, methods.png"}, console)


def show_scans(scans: Sequence[dict[str, Any]], console: Console) -> None:
    """A table of the main numbers, a row per scan."""
    rows = []
    for one in scans[:SCANS_SHOWN]:
        ml, share, sure = one["lesion_ml"], one["share_of_lung"], one["probability_in_lesion"]
        names = [str(one[key]) for key in ("name", "slices", "slices_with_lesion")]
        lesion = f"{one['lesion_voxels']:,} px" if ml is None else f"{ml:.1f} ml"
        part = "" if share is None else f"{100 * share:.1f} %"
        rows.append([*names, lesion, part, "" if sure is None else f"{sure:.2f}"])
    headings = ("scan", "slices", "with lesion", "lesion", "share of lung", "probability in it")
    if rows:
        console.print(text_table("predicted", headings, rows))
    if len(scans) > SCANS_SHOWN:
        console.print(f"and {len(scans) - SCANS_SHOWN} more, in summary.csv")


def show_failures(failures: Sequence[tuple[Path, str]], console: Console) -> None:
    """A line for each scan that was left out."""
    if failures:
        console.print(f"[bold red]{len(failures)} left out:[/bold red]")
    for path, reason in failures:
        console.print(f"  {escape(f'{path}: {reason}')}")


def text_table(
    title: str, headings: Iterable[str], rows: Rows, folded: str = "", **style: Any
) -> Table:
    """A table with names in the first column, numbers in the others.

    Args:
      title: above the table.
      headings: of the columns.
      rows: a text for each column.
      folded: heading of a column of names, the only one that is wrapped on a narrow screen; by
        default all are.
      style: of the table, as rich has it.
    """
    table = Table(title=escape(title), title_justify="left", **style)
    for heading in headings:
        justify = "right" if table.columns and heading != folded else "left"
        whole = folded not in ("", heading)
        table.add_column(escape(heading), justify=justify, overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _show_lines(texts: dict[str, str], console: Console) -> None:
    """A line for each text, after its name."""
    for name, text in texts.items():
        console.print(f"[dim]{escape(name)}[/dim]  {escape(text)}")


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
