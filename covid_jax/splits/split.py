"""A split as drawn, and split.json, which keeps it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from covid_jax.data.dataset import SliceDataset
from covid_jax.errors import RunError, plural, shorten
from covid_jax.files import replace_text
from covid_jax.runs.config import SplitPolicy
from covid_jax.splits.leakage import Crossing, Subset, is_blank, shared_patients

SUBSETS: tuple[Subset, ...] = get_args(Subset)


@dataclass(frozen=True)
class Split:
    """Slice ids of each subset, and what a reader of the scores must know of it.

    Attributes:
      policy: how it was drawn, never ``auto``.
      train, val, test: slice ids in the dataset's order. Under ``paper`` val and test are the same
        slices.
      statement: the protocol in one sentence.
      fingerprint: of the dataset it was drawn for.
      patients: of each slice; None where unknown.
      digests: of each slice's pixels.
      warnings: what weakens it (unknown patients, patients or near-duplicates on both sides).
      similar: copies and near-duplicates in different subsets.
    """

    policy: SplitPolicy
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    statement: str
    fingerprint: str
    patients: Mapping[str, str | None]
    digests: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    similar: tuple[Crossing, ...] = ()

    @property
    def sides(self) -> dict[Subset, tuple[str, ...]]:
        """The subsets that are to share nothing: under ``paper`` val and test are one."""
        if self.policy == "paper":
            return {"train": self.train, "test": self.test}
        return {"train": self.train, "val": self.val, "test": self.test}

    def indices(self, dataset: SliceDataset, subset: Subset | Literal["all"]) -> list[int]:
        """Positions of the subset's slices in the dataset.

        Raises:
          RunError: if the dataset lacks one of them.
        """
        if subset == "all":
            return list(range(len(dataset)))
        position = {item.id: i for i, item in enumerate(dataset.slices)}
        wanted = getattr(self, subset)
        missing = [name for name in wanted if name not in position]
        if missing:
            raise RunError(
                f"the data lacks {plural(len(missing), 'slice')} of the run's {subset} subset "
                f"({shorten(missing)}): give the data the run was trained on"
            )
        return [position[name] for name in wanted]

    def trained_on(self, dataset: SliceDataset) -> list[str]:
        """Slices of any dataset that trained or validated, recognised by their pixels alone.

        A blank slice is recognised nowhere: it looks like any other.
        """
        seen = {self.digests[name] for name in (*self.train, *self.val)}
        return [item.id for item in dataset.slices if item.digest in seen and not is_blank(item)]

    def save(self, path: Path) -> None:
        """Writes split.json, whole or not at all."""
        subsets = {
            subset: [
                {"slice": name, "patient": self.patients[name], "digest": self.digests[name]}
                for name in getattr(self, subset)
            ]
            for subset in SUBSETS
        }
        record = {
            "policy": self.policy,
            "statement": self.statement,
            "warnings": self.warnings,
            "similar": [pair._asdict() for pair in self.similar],
            "fingerprint": self.fingerprint,
            **subsets,
        }
        replace_text(path, json.dumps(record, indent=1))

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Reads what ``save`` wrote.

        Raises:
          RunError: if the file is missing or damaged, or lets a slice or (but under ``paper``) a
            patient stand in two subsets.
        """
        try:
            split = _parse(json.loads(path.read_text(encoding="utf-8")))
            _check(split)
        except (OSError, ValueError, RecursionError) as error:
            raise RunError(f"{path}: no usable split: {error}") from error
        return split


def _parse(record: object) -> Split:
    """From JSON to a split, every field of its type; ValueError if one is not."""
    policies = [policy for policy in get_args(SplitPolicy) if policy != "auto"]
    rows = {subset: _field(record, subset, list) for subset in SUBSETS}
    patients, digests = {}, {}
    for row in (row for subset in SUBSETS for row in rows[subset]):
        name = _field(row, "slice", str)
        known = _field(row, "patient", str, type(None)), _field(row, "digest", str)
        if known != (patients.setdefault(name, known[0]), digests.setdefault(name, known[1])):
            raise ValueError(f"slice {name!r} is described in two ways")
    warnings = _field(record, "warnings", list)
    if not all(isinstance(text, str) for text in warnings):
        raise ValueError("warnings: expected texts")
    statement, fingerprint = (_field(record, name, str) for name in ("statement", "fingerprint"))
    if not "".join((statement, fingerprint, *warnings)).isprintable():
        raise ValueError("statement, fingerprint, warnings: expected texts a terminal can show")
    return Split(
        policy=_choice(record, "policy", policies),
        train=tuple(row["slice"] for row in rows["train"]),
        val=tuple(row["slice"] for row in rows["val"]),
        test=tuple(row["slice"] for row in rows["test"]),
        statement=statement,
        fingerprint=fingerprint,
        patients=patients,
        digests=digests,
        warnings=tuple(warnings),
        similar=tuple(_crossing(row) for row in _field(record, "similar", list)),
    )


def _crossing(row: object) -> Crossing:
    correlation = _field(row, "correlation", float, int)
    if not -1 <= correlation <= 1:
        raise ValueError(f"correlation: expected -1 to 1, found {correlation}")
    return Crossing(
        first=_field(row, "first", str),
        second=_field(row, "second", str),
        correlation=correlation,
        first_subset=_choice(row, "first_subset", SUBSETS),
        second_subset=_choice(row, "second_subset", SUBSETS),
    )


def _field(record: object, name: str, *kinds: type) -> Any:
    if not isinstance(record, dict):
        raise ValueError(f"expected a record with {name!r}, found {record!r:.60}")
    if name not in record:
        raise ValueError(f"{name!r} is missing")
    value = record[name]
    if type(value) not in kinds:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name}: expected {expected}, found {value!r:.60}")
    return value


def _choice(record: object, name: str, choices: Sequence[Any]) -> Any:
    value = _field(record, name, str)
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, found {value!r:.60}")
    return value


def _check(split: Split) -> None:
    """ValueError where subsets share what they must not, or one is empty."""
    place: dict[str, Subset] = {}
    for subset, names in split.sides.items():
        if not names:
            raise ValueError(f"{subset} is empty")
        for name in names:
            if name in place:
                raise ValueError(f"slice {name!r} stands in {place[name]} and in {subset}")
            place[name] = subset
    if split.policy == "paper":
        if split.val != split.test:
            raise ValueError("policy paper: val and test must be the same slices")
    elif shared := shared_patients(split.patients, split.sides):
        raise ValueError(
            f"{plural(len(shared), 'patient')} in several subsets ({shorten(shared)}): "
            "only the policy paper permits that"
        )
    for pair in split.similar:
        stand = place.get(pair.first), place.get(pair.second)
        if stand != (pair.first_subset, pair.second_subset):
            raise ValueError(
                f"similar: {pair.first!r} and {pair.second!r} do not stand in "
                f"{pair.first_subset} and {pair.second_subset}"
            )
