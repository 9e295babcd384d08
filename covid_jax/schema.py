"""Checks types, choices and ranges of records and settings; errors name the field.

Records are read from JSON or YAML and checked against the annotations of a dataclass. An invalid
file of the user or of another version is refused immediately, with the name of the field.
"""

import contextlib
import dataclasses
import difflib
import math
import numbers
import reprlib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from covid_jax.errors import ConfigError

_DESCRIPTIONS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_DESCRIPTIONS |= {Path: "a path", types.NoneType: "null"}
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 4, 20, 20, 20
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


@dataclass(frozen=True)
class Range:
    """The allowed range of a number, as metadata of an ``Annotated`` type.

    Attributes:
      low: the least value.
      high: the greatest value; infinity itself is refused.
      exclusive: whether ``low`` and ``high`` themselves are refused.
    """

    low: float
    high: float = math.inf
    exclusive: bool = False

    def check(self, name: str, value: Any) -> None:
        """Refuses numbers outside the range; values that are not numbers are accepted.

        Raises:
          ConfigError: naming the value and the range.
        """
        low, high = self.low, self.high
        if not issubclass(type(value), numbers.Real):
            return
        if low < value < high or (not self.exclusive and value in (low, high) and value < math.inf):
            return
        if value == high == math.inf:
            expected = "a finite number"
        elif high == math.inf:
            expected = f"{'more than' if self.exclusive else 'at least'} {low}"
        else:
            expected = f"a value in ({low}, {high})" if self.exclusive else f"{low} to {high}"
        raise ConfigError(f"{name} {_shown(value)}: expected {expected}", name)


class Settings:
    """A dataclass whose values are checked: Literals, and numbers with a Range.

    Raises:
      ConfigError: for the first invalid field, with its value and the expected ones.
    """

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            for limits in getattr(kind, "__metadata__", ()):
                limits.check(name, value)
            if typing.get_origin(kind) is Literal:
                parse(kind, value, name)


Count = Annotated[int, Range(1)]
Amount = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1, exclusive=True)]


def parse(kind: Any, value: Any, name: str = "", base: Any = None) -> Any:
    """Checks a value read from JSON or YAML against a type, and converts it.

    Args:
      kind: a dataclass, a TypedDict, ``bool``, ``int``, ``float``, ``str``, ``Path``, ``None``,
        ``Any``, a Literal, or a union, tuple, list or dict of these.
      value: what was read. Lists become tuples where ``kind`` is one, texts become paths.
      name: of the value, for messages; dots lead to a group's field.
      base: for a dataclass, an instance with the values of fields missing in ``value``; without it
        they take their defaults.

    Raises:
      ConfigError: naming the first field that is unknown, missing or of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _parse_fields(kind, value, name, base)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return parse(option, value, name)
            except ConfigError:
                continue
    elif origin is Literal and isinstance(value, str | int) and value in arguments:
        return value
    elif origin is tuple and isinstance(value, list | tuple):
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(kinds) == len(value):
            pairs = enumerate(zip(kinds, value, strict=True))
            return tuple(parse(one, item, f"{name}[{i}]") for i, (one, item) in pairs)
    elif origin is list and isinstance(value, list):
        return [parse(arguments[0], item, f"{name}[{i}]") for i, item in enumerate(value)]
    elif origin is dict and isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return {key: parse(arguments[1], item, _dotted(name, key)) for key, item in value.items()}
    elif typing.is_typeddict(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        if kind.__required_keys__ <= value.keys() <= hints.keys():
            return {key: parse(hints[key], item, _dotted(name, key)) for key, item in value.items()}
    elif kind is Path and isinstance(value, str | Path):
        return Path(value)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    elif kind is int and type(value) is int and abs(value) >= 2**63:
        pass  # nothing counts so far, and floats and arrays could not hold it
    elif type(value) is kind or (kind is types.NoneType and value is None):
        return value
    shown = value if isinstance(value, str) and value.isprintable() and value else _shown(value)
    raise ConfigError(f"{name} {shown}: expected {_describe(kind)}".strip(), name)


def _shown(value: Any) -> str:
    """At most 60 characters of a value, of which YAML's aliases may make gigabytes of text."""
    try:
        text = _SHORT.repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parse_fields(kind: Any, value: Any, name: str, base: Any) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{name or 'record'}: expected {_describe(kind)}, found {_shown(value)}")
    hints = typing.get_type_hints(kind)
    if unknown := [_shown(key).strip("'") for key in value if key not in hints]:
        leaves = {leaf.rpartition(".")[2]: leaf for leaf in reversed(_leaves(kind, name))}
        shown = [f"{_dotted(name, key)}: unknown field{_nearest(key, leaves)}" for key in unknown]
        raise ConfigError(", ".join(shown))
    values = {}
    for field in dataclasses.fields(kind):
        place, before = _dotted(name, field.name), getattr(base, field.name, None)
        if field.name in value:
            values[field.name] = parse(hints[field.name], value[field.name], place, before)
        elif base is not None:
            values[field.name] = before
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{place}: missing")
    return kind(**values)


def _nearest(key: str, leaves: dict[str, str]) -> str:
    """Suggests the most similar field name, also of another group."""
    near = difflib.get_close_matches(key, list(leaves), 1)
    return f" (did you mean {leaves[near[0]]}?)" if near else ""


def _leaves(kind: Any, name: str) -> list[str]:
    found = []
    for field, hint in typing.get_type_hints(kind).items():
        place = _dotted(name, field)
        found += [place, *(_leaves(hint, place) if dataclasses.is_dataclass(hint) else ())]
    return found


def _dotted(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _describe(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        return f"the fields {', '.join(typing.get_type_hints(kind))}"
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    if origin is tuple and arguments[1:] != (...,):
        return f"a list of {len(arguments)}: {', '.join(map(_describe, arguments))}"
    if origin in (tuple, list):
        return f"a list, each {_describe(arguments[0])}"
    return _DESCRIPTIONS.get(kind, "names with values")
