"""What is said of a run's settings before it starts, and where it goes."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from covid_jax.runs.config import TrainConfig, differences
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
    """A note on each setting that was changed and is not used, given the others."""
    preset = TrainConfig.named(config.preset)
    data, loss, optimizer = config.data, config.loss, config.optimizer
    uses = (
        ("loss", "alpha beta", loss.loss != "dice", "--loss ftl and --loss tversky"),
        ("loss", "gamma", loss.loss == "ftl", "--loss ftl"),
        ("data", "window", data.intensity == "window", "--intensity window"),
        ("data", "split split_seed", data.split_file is None, "runs without --split-file"),
        (
            "optimizer",
            "plateau_factor plateau_patience",
            optimizer.schedule == "plateau",
            "--schedule plateau",
        ),
    )
    for group, names, used, condition in uses:
        for name in names.split():
            value = getattr(getattr(config, group), name)
            if not used and value != getattr(getattr(preset, group), name):
                shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
                flag = name.replace("_", "-")
                yield f"--{flag} {shown} has no effect: it is for {condition}"


def data_name(folders: Sequence[Path]) -> str:
    """Of a run on these folders."""
    return "+".join(folder.resolve().name for folder in folders) or "phantom"


def run_folder(config: TrainConfig, *, study: bool) -> Path:
    """Where a run goes: ``--out``, else the first of runs/ct, runs/ct-2, ... that is free.

    With ``--resume`` the last that is not; a study goes on where it was, at runs/ct.
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
