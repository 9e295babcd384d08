"""Values against types: what is taken, and in what words the rest is refused."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest

from covid_jax.errors import ConfigError
from covid_jax.schema import parse


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner = Inner()
    path: Path | None = None


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (float, 3, 3.0),
        (int, 3, 3),
        (bool, True, True),
        (Path | None, "a/b", Path("a/b")),
        (Path | None, None, None),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (tuple[float, float], [1, 2.5], (1.0, 2.5)),
        (int | Literal["all"] | None, "all", "all"),
        (int | Literal["all"] | None, 2, 2),
        (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
        (Any, {"a": None}, {"a": None}),
    ],
)
def test_values_of_the_type_are_taken(kind: Any, value: Any, expected: Any) -> None:
    found = parse(kind, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (float, "much", "x much: expected a number"),
        (float, True, "x True: expected a number"),
        (float, 10**400, "expected a number"),
        (int, 1.0, "x 1.0: expected a whole number"),
        (int, 2**63, "expected a whole number"),
        (int | float, 10**400, "expected a whole number or a number"),
        (int, True, "x True: expected a whole number"),
        (bool, 1, "x 1: expected true or false"),
        (str, None, "x None: expected text"),
        (Path | None, 3, "x 3: expected a path or null"),
        (Literal["a", "b"], "c", "x c: expected one of a, b"),
        (Literal["a", "b"], ["a"], "expected one of a, b"),
        (tuple[int, ...], 3, "x 3: expected a list, each a whole number"),
        (tuple[int, ...], [1, "2"], "x[1] 2: expected a whole number"),
        (tuple[float, float], [1], "x [1]: expected a list of 2: a number, a number"),
        (dict[str, int], [], "x []: expected names with values"),
        (dict[str, int], {"a": None}, "x.a None: expected a whole number"),
        (str, 7 * ("x" * 20,), "...: expected text"),
    ],
)
def test_other_values_are_refused_by_name_value_and_type(kind: Any, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(kind, value, "x")
    assert said in str(caught.value)


def test_a_dataclass_takes_what_is_given_then_its_base_then_its_defaults() -> None:
    base = Outer("b", Inner(0.1, (7,)))
    given = {"name": "a", "inner": {"rate": 2}}
    assert parse(Outer, given) == Outer("a", Inner(2.0, (1, 2)))
    assert parse(Outer, given, base=base) == Outer("a", Inner(2.0, (7,)))
    assert parse(Outer, {}, base=base) == base


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "name: missing"),
        (
            {"name": "a", "inner": {"rates": 1}},
            "inner.rates: unknown field (did you mean inner.rate?)",
        ),
        ({"name": "a", "rate": 1}, "rate: unknown field (did you mean inner.rate?)"),
        ({"name": "a", "zzz": 1, 3: 1}, "zzz: unknown field, 3: unknown field"),
        ({"name": "a", "inner": 3}, "inner: expected the fields rate, sizes, found 3"),
        ([], "record: expected the fields name, inner, path, found []"),
    ],
)
def test_other_fields_are_refused_by_name(record: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Outer, record)
    assert str(caught.value) == said
