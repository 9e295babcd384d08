"""Commands that load no network: settings, caches, the phantom, a shell's completion."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from covid_jax.cli.flags import CacheFlags, CompletionFlags, PhantomFlags, TrainFlags
from covid_jax.cli.parse import completion_script
from covid_jax.errors import DataError
from covid_jax.files import cache_folder, writing_to
from covid_jax.runs.settings_file import settings_to_yaml


def config(flags: TrainFlags, console: Console, command: Sequence[str]) -> None:
    """Prints the settings that train would use."""
    console.print(escape(settings_to_yaml(flags.settings)), end="")


def cache(flags: CacheFlags, console: Console, command: Sequence[str]) -> None:
    """Lists what is cached, or deletes it."""
    folder = cache_folder()
    kinds = {"slices": "decoded datasets", "compiled": "compiled steps"}
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    total = 0
    for path in entries:
        size = _size(path)
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


def _size(path: Path) -> int:
    """Size in bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
