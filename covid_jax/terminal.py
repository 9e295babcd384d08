"""What the commands show on the terminal: settings, tables, a bar, notes."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from covid_jax.config import TrainConfig, to_dict
from covid_jax.data.dataset import SliceDataset
from covid_jax.data.leaks import counts
from covid_jax.data.survey import LESION_SIZES, Survey

PAIRS_SHOWN = 10


@contextlib.contextmanager
def decoding_bar(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar that appears once it is told that something has been decoded."""
    columns = TextColumn("decoding, once"), BarColumn(), MofNCompleteColumn()
    silent = not console.is_terminal  # else it would leave an empty line in a file
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def show_notes(notes: Iterable[str], console: Console) -> None:
    """A line a note."""
    for note in notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}")


def show_config(config: TrainConfig, console: Console) -> None:
    """Prints the resolved settings, a group a line."""
    record = to_dict(config)
    groups = {name: value for name, value in record.items() if isinstance(value, dict)}
    groups["run"] = {name: value for name, value in record.items() if name not in groups}
    for name, settings in groups.items():
        text = ", ".join(f"{key} {value}" for key, value in settings.items())
        console.print(f"  [dim]{name:<10}[/dim] {escape(text)}")


def show_survey(parts: Sequence[Survey], console: Console) -> None:
    """A table with a column for each source."""
    table = Table(title="what is there", title_justify="left")
    table.add_column("")
    for part in parts:
        table.add_column(escape(part.source), justify="right")
    rows: dict[str, Callable[[Survey], str]] = {
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
        and counts(dataset, a, b, correlation)
    ]
    console.print(f"near-duplicate slices not known to be of one patient: {len(apart)} pairs")
    for correlation, a, b in sorted(apart, reverse=True)[:PAIRS_SHOWN]:
        console.print(f"  {correlation:.2f}  {escape(a)}  {escape(b)}")
    if len(apart) > PAIRS_SHOWN:
        console.print(f"  and {len(apart) - PAIRS_SHOWN} more")


def show_study(summary: dict[str, Any], out: Path, console: Console) -> None:
    """A row a run, then their mean and standard deviation."""
    table = Table(title=f"{len(summary['runs'])} runs, test slices, means over slices")
    for heading in ("run", "slices", *summary["metrics"]):
        table.add_column(heading, justify="left" if heading == "run" else "right")
    for row in summary["runs"]:
        numbers = (_number(row[name]) for name in summary["metrics"])
        table.add_row(row["run"], str(row["slices"]), *numbers)
    for which in ("mean", "sd"):
        spread = (_number(part[which]) for part in summary["metrics"].values())
        table.add_row(f"[bold]{which}[/bold]", "", *spread)
    console.print(table)
    console.print(f"[dim]files[/dim]  {escape(str(out))}/ summary.json, runs.csv, a folder a run")


def show_scores(report: dict[str, Any], console: Console) -> None:
    """A table of metrics, and what must be known to read it."""
    table = Table(
        title=f"{report['slices']} {report['subset']} slices, threshold {report['threshold']}"
    )
    table.add_column("metric", no_wrap=True)
    for heading in ("mean over slices", "pooled", "at network size", "slices", "empty masks"):
        table.add_column(heading, justify="right")
    for region, part in {"": report, **report["classes"]}.items():
        for name, own in part["own_grid"].items():
            table.add_row(
                f"{region} {name}".strip(),
                _number(own["mean"]),
                _number(own["pooled"]),
                _number(part["network_size"][name]["mean"]),
                str(own["slices"]),
                str(own["empty"]),
            )
    console.print(table)
    console.print(f"[dim]split[/dim]  {escape(report['split']['statement'])}")
    show_notes((*report["split"]["warnings"], *report["notes"]), console)
    files = f"{report['folder']}/ metrics.json, slices.csv, examples.png"
    console.print(f"[dim]files[/dim]  {escape(files)}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _span(values: Iterable[str]) -> str:
    """``least to greatest``, one of them where they are the same, unknown where there is none."""
    return " to ".join(dict.fromkeys(values)) or "unknown"
