"""Installed weights on the command line: their list, and their terms at each use."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from covid_jax.cli.flags import Flags
from covid_jax.runs.provenance import NOTICE
from covid_jax.runs.weights import HOW_TO_GET, PREFIX, find_weights, installed_weights


def weights(flags: Flags, console: Console, command: Sequence[str]) -> None:
    """Prints training data, terms and scores of all installed weights."""
    installed = installed_weights()
    for each in installed:
        rows = {
            "pictures": each.pictures,
            "data": each.data,
            "scores": _listed(each.scores),
            "false alarms": _listed(each.false_alarms),
            "terms": each.terms,
            "SHA-256": each.sha256,
        }
        default = " (default)" if each.default else ""
        console.print(f"[bold]{PREFIX}{escape(each.name)}[/bold]{default}")
        for name, text in rows.items():
            console.print(f"  [dim]{name:<12}[/dim]  {escape(text)}")
    console.print(NOTICE if installed else HOW_TO_GET)


def runs_to_use(runs: tuple[Path, ...], console: Console) -> tuple[Path, ...]:
    """The given runs, or the default weights; prints the terms of installed ones."""
    runs = runs or (Path(PREFIX + find_weights().name),)
    show_terms(runs, console)
    return runs


def show_terms(runs: Iterable[Path], console: Console) -> None:
    """Prints the terms of each run that is a set of installed weights."""
    for run in runs:
        if str(run).startswith(PREFIX):
            weights = find_weights(str(run).removeprefix(PREFIX))
            for text in (f"{run}: {weights.pictures}", f"Terms: {weights.terms}", NOTICE):
                console.print(escape(text))


def _listed(values: dict[str, float | str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in values.items()) or "none measured"
