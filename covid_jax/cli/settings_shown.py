"""Prints the settings of a run before it starts, and chooses its folder."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from covid_jax.runs.config import TrainConfig, differences, flatten, to_dict
from covid_jax.runs.settings_file import settings_to_yaml

_SHOWN_ELSEWHERE = ("data", "out", "resume", "preset")


def show_settings(config: TrainConfig, console: Console, *, whole: bool) -> None:
    """Prints what differs from the preset, or all settings as YAML."""
    if whole:
        console.print(escape(settings_to_yaml(config)), end="")
        return
    named = config.augmentation.augment
    changed = differences(TrainConfig.named(config.preset, named), config, _SHOWN_ELSEWHERE)
    if named != (usual := TrainConfig.named(config.preset).augmentation.augment):
        changed.append(f"augment: {usual} -> {named}")
    said = f"but {', '.join(changed)}" if changed else "unchanged"
    console.print(escape(f"settings: preset {config.preset}, {said}"))


def without_effect(config: TrainConfig) -> Iterator[str]:
    """A note on each changed setting that has no effect with the other settings."""
    now, usual = (flatten(to_dict(each)) for each in (config, TrainConfig.named(config.preset)))
    uses = {
        "alpha beta": (now["loss"] != "dice", "--loss ftl and --loss tversky"),
        "gamma": (now["loss"] == "ftl", "--loss ftl"),
        "window": (now["intensity"] == "window", "--intensity window"),
        "split split_seed": (now["split_file"] is None, "runs without --split-file"),
        "plateau_factor plateau_patience": (now["schedule"] == "plateau", "--schedule plateau"),
    }
    for names, (used, condition) in uses.items():
        for name in names.split():
            if not used and now[name] != usual[name]:
                shown = " ".join(map(str, now[name])) if name == "window" else now[name]
                yield f"--{name.replace('_', '-')} {shown} has no effect: it is for {condition}"


def data_name(folders: Sequence[Path]) -> str:
    """The default name of a run on these folders."""
    return "+".join(folder.resolve().name for folder in folders) or "phantom"


def run_folder(config: TrainConfig, *, study: bool) -> Path:
    """The run folder: ``--out``, else the first of runs/ct, runs/ct-2, ... that does not exist.

    With ``--resume`` the last one that exists. A study always uses runs/ct, where it is continued.
    """
    if config.out:
        return config.out
    first = Path("runs") / data_name(config.data.data)
    if study:
        return first
    more = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
    free, before = first, first
    while free.exists():
        before, free = free, next(more)
    return before if config.resume else free
