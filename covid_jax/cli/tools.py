"""Commands that load no network: settings, weights, caches, the phantom, shell completion."""

import shutil
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from covid_jax.cli.flags import CacheFlags, CompletionFlags, Flags, PhantomFlags, TrainFlags
from covid_jax.cli.parse import completion_script
from covid_jax.errors import DataError
from covid_jax.files import cache_folder, writing_to
from covid_jax.runs.settings_file import settings_to_yaml


def config(flags: TrainFlags, console: Console, command: Sequence[str]) -> None:
    """Prints the settings that train would use."""
    console.print(escape(settings_to_yaml(flags.settings)), end="")


def weights(flags: Flags, console: Console, command: Sequence[str]) -> None:
    """Prints training data, terms and scores of all installed weights."""
    from covid_jax.runs.provenance import NOTICE
    from covid_jax.runs.weights import HOW_TO_GET, PREFIX, installed_weights

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


def cache(flags: CacheFlags, console: Console, command: Sequence[str]) -> None:
    """Lists what is cached, or deletes it."""
    folder = cache_folder()
    kinds = {"slices": "decoded datasets", "compiled": "compiled steps"}
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    total = 0
    for path in entries:
        files = path.rglob("*") if path.is_dir() else [path]
        size = sum(file.stat().st_size for file in files if file.is_file())
        total += size
        kind = "the phantom" if path.name.startswith("phantom") else kinds.get(path.name, "other")
        console.print(escape(f"{size / 2**20:10,.1f} MiB  {kind}: {path}"))
        if flags.clear:
            with writing_to(path, "delete it by hand", DataError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    said = "deleted from" if flags.clear else "in"
    console.print(escape(f"{total / 2**20:10,.1f} MiB  {said} {folder}"))


def phantom(flags: PhantomFlags, console: Console, command: Sequence[str]) -> None:
    """Writes the phantom as a dataset folder."""
    from covid_jax.phantom.dataset import write_phantom

    with console.status("drawing the synthetic phantom"):
        folder = write_phantom(flags.out, seed=flags.seed, size=flags.size)
    console.print(escape(f"Synthetic phantom written to {folder}; train with --data {folder}"))


def completion(flags: CompletionFlags, console: Console, command: Sequence[str]) -> None:
    """Prints the script that makes a shell complete commands and flags."""
    from covid_jax.cli.main import COMMANDS

    abouts = {name: about for name, (_, about) in COMMANDS.items()}
    print(completion_script("covid-jax", flags.shell, abouts))
