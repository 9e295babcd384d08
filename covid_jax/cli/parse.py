"""Parses the command line into flags; the only module that imports tyro."""

import argparse
import contextlib
import dataclasses
import functools
import io
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro import constructors

from covid_jax.cli import flags
from covid_jax.cli.flags import Start, TrainFlags
from covid_jax.errors import ConfigError
from covid_jax.runs.config import TrainConfig
from covid_jax.runs.settings_file import read_settings
from covid_jax.transforms.augment_config import AugmentConfig

T = TypeVar("T")
Shown = constructors.StructFieldSpec  # a field as tyro has it
RECIPES = Path(__file__).parents[1] / "recipes"
# Titles of groups in --help.
_TITLES = {"settings": "", "model": "network", "init": "fine-tuning", "hosts": "multi-host"}
_SHORT = {"out": "-o", "learning_rate": "--lr", "quiet": "-q", "verbose": "-v"}


def parse(kind: type[T], prog: str, argv: Sequence[str], about: str = "") -> T:
    """The flags of a command; ``--help`` and unparsable arguments end the process.

    Args:
      kind: one of the dataclasses of ``flags``.
      prog: the command as it was typed.
      argv: the words after it.
      about: the command's line in --help.

    Raises:
      ConfigError: if a flag is out of range, or ``--data`` is given without a folder.
    """
    if issubclass(kind, TrainFlags):
        return parse_train(prog, argv, about)  # pyright: ignore[reportReturnType]
    return _cli(kind, prog, argv, about)


def parse_train(prog: str, argv: Sequence[str], about: str = "") -> TrainFlags:
    """The flags of ``train``; the defaults are those of the preset, file and augmentation given.

    Raises:
      ConfigError: as ``parse`` does; and if the file is not one of settings.
    """
    argv = _gather(argv)
    start, _ = tyro.cli(Start, args=argv, add_help=False, return_unknown_args=True)
    if start.config:
        shipped = RECIPES / f"{start.config}.yaml"
        found = shipped if shipped.exists() and not start.config.exists() else start.config
        defaults = read_settings(found, start.preset)
    else:
        defaults = TrainConfig.named(start.preset or ("paper" if start.data else "quick"))
    if start.augment:
        defaults = dataclasses.replace(defaults, augmentation=AugmentConfig.named(start.augment))
    return _cli(TrainFlags, prog, argv, about, default=TrainFlags(settings=defaults))


def completion_script(prog: str, shell: str, abouts: dict[str, str]) -> str:
    """The script that makes a shell complete a program's commands and flags.

    Args:
      prog: name of the program.
      shell: bash, zsh or fish.
      abouts: each command's line in --help.
    """
    kinds = []
    for name, about in abouts.items():
        described = tyro.conf.subcommand(name, description=about)
        kinds.append(Annotated[getattr(flags, f"{name.title()}Flags"), described])
    program = typing.Union[tuple(kinds)]  # noqa: UP007
    with contextlib.redirect_stdout(io.StringIO()) as script, contextlib.suppress(SystemExit):
        _cli(program, prog, ["--tyro-print-completion", shell])
    return script.getvalue()


def _cli(kind: Any, prog: str, argv: Sequence[str], about: str = "", **default: Any) -> Any:
    ours: Any = {"config": (tyro.conf.OmitArgPrefixes,), "registry": _registry()}
    return tyro.cli(kind, prog=prog, description=about, args=_gather(argv), **ours, **default)


def _registry() -> constructors.ConstructorRegistry:
    """How tyro parses a dataclass: with our group titles, short flags and help texts."""
    registry, under_way = constructors.ConstructorRegistry(), []

    @registry.struct_rule
    def dressed(info: constructors.StructTypeInfo) -> constructors.StructConstructorSpec | None:
        if not dataclasses.is_dataclass(info.type) or info.type in under_way:
            return None  # tyro's own rule is the next
        under_way.append(info.type)
        spec = constructors.ConstructorRegistry.get_struct_spec(info)
        under_way.remove(info.type)
        if not isinstance(spec, constructors.StructConstructorSpec):
            return None
        known = {field.name: field for field in dataclasses.fields(info.type)}
        fields = [shown for item in spec.fields for shown in _shown(item, known[item.name])]

        def instantiate(**given: Any) -> Any:
            for name in [name for name in given if f"no_{name}" in given]:
                given[name] = given[name] if given.pop(f"no_{name}") or given[name] else None
            return spec.instantiate(**given)

        return constructors.StructConstructorSpec(instantiate, tuple(fields))

    return registry


def _shown(item: Shown, field: dataclasses.Field) -> list[Shown]:
    """A field as tyro shows it; a boolean that may be None becomes two flags."""
    item = dataclasses.replace(item, helptext=functools.partial(_flowing, item.helptext))
    if item.type != bool | None or item.default is not None:
        return [dataclasses.replace(item, type=_dressed(field, item.type))]
    about = f"The contrary of --{item.name.replace('_', '-')}."
    contrary = Shown(f"no_{item.name}", _SWITCH, False, about)
    return [dataclasses.replace(item, type=_SWITCH, default=False), contrary]


def _flowing(docstring: str | Callable[[], str | None] | None) -> str | None:
    """A field's docstring as one paragraph; tyro would keep the line breaks of the source."""
    text = docstring if isinstance(docstring, str | None) else docstring()
    return text and " ".join(text.split())


def _dressed(field: dataclasses.Field, kind: Any) -> Any:
    """The type of a field, annotated with its title or its short flag, metavar and default."""
    if dataclasses.is_dataclass(kind):
        title = _TITLES.get(field.name, field.name)
        return Annotated[kind, tyro.conf.arg(name=title, prefix_name=not title)]
    marker = field.metadata.get("marker")
    aliases = (_SHORT[field.name],) if field.name in _SHORT and marker != "Positional" else None
    shown = tyro.conf.arg(aliases=aliases, metavar=_metavar(kind), help_behavior_hint=_default)
    kind = Annotated[kind, shown]
    return getattr(tyro.conf, marker)[kind] if marker else kind


def _metavar(kind: Any) -> str | None:
    """What --help shows for a value that may be None, such as ``INT|{all}``; None: tyro's own."""
    kind = kind.__origin__ if typing.get_origin(kind) is Annotated else kind  # has a Range
    options = typing.get_args(kind)
    if types.NoneType not in options:
        return None
    names = {Path: "PATH", str: "STR", int: "INT", float: "FLOAT", types.NoneType: ""}
    shown = (
        "{" + ",".join(map(str, typing.get_args(option))) + "}"
        if typing.get_origin(option) is Literal
        else names[option]
        for option in options
    )
    return "|".join(filter(None, shown))


def _default(value: str) -> str:
    return "" if value in ("", "None", "False") else f"(default: {value})"


_PLAIN: Any = Annotated[bool, tyro.conf.arg(help_behavior_hint=_default)]
_SWITCH: Any = tyro.conf.FlagCreatePairsOff[_PLAIN]


def _gather(argv: Sequence[str]) -> list[str]:
    """``--data A --data B`` as ``--data A B``."""
    words = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    words.add_argument("--data", nargs="+", action="extend", default=[])
    try:
        given, rest = words.parse_known_args(argv)
    except argparse.ArgumentError as error:  # such as a variable that is not set
        raise ConfigError("--data: expected a folder after it") from error
    return [*rest, "--data", *given.data] if given.data else list(argv)
