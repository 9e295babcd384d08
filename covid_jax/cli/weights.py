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
        default = " (default)" if each.default else ""
        console.print(f"[bold]{PREFIX}{escape(each.name)}[/bold]{default}")
        for name in ("pictures", "data", "scores", "false_alarms", "terms", "sha256"):
            value = getattr(each, name)
            if isinstance(value, dict):
                value = "; ".join(f"{k} {v}" for k, v in value.items()) or "none measured"
            console.print(f"  [dim]{name.replace('_', ' '):<12}[/dim]  {escape(value)}")
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
