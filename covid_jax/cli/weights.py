"""Installed weights on the command line: their list, and their terms at each use."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from covid_jax.runs.provenance import NOTICE
from covid_jax.runs.weights import HOW_TO_GET, PREFIX, find_weights, installed_weights


def list_weights(console: Console) -> None:
    """Prints what must be known of all installed weights."""
    installed = installed_weights()
    for weights in installed:
        rows = {
            "pictures": weights.pictures,
            "data": weights.data,
            "scores": _listed(weights.scores),
            "false alarms": _listed(weights.false_alarms),
            "terms": weights.terms,
            "SHA-256": weights.sha256,
        }
        default = " (default)" if weights.default else ""
        console.print(f"[bold]{PREFIX}{escape(weights.name)}[/bold]{default}")
        for name, text in rows.items():
            console.print(f"  [dim]{name:<12}[/dim]  {escape(text)}")
    console.print(NOTICE if installed else HOW_TO_GET)


def runs_to_use(runs: tuple[Path, ...], console: Console) -> tuple[Path, ...]:
    """The given runs, or the default weights; prints the terms of installed ones."""
    runs = runs or (Path(PREFIX + find_weights().name),)
    show_terms(runs, console)
    return runs


def show_terms(runs: Iterable[Path], console: Console) -> None:
    """Prints the terms of those that are installed weights."""
    for run in runs:
        if str(run).startswith(PREFIX):
            weights = find_weights(str(run).removeprefix(PREFIX))
            for text in (f"{run}: {weights.pictures}", f"Terms: {weights.terms}", NOTICE):
                console.print(escape(text))


def _listed(values: dict[str, float | str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in values.items()) or "none measured"
