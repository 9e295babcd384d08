"""A split as drawn, and split.json, which keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from covid_jax.data.dataset import SliceDataset
from covid_jax.errors import ConfigError, RunError, plural, shorten
from covid_jax.files import read_json, write_json, writing_to
from covid_jax.runs.config import DrawnPolicy, to_dict
from covid_jax.splits.leakage import Crossing, Subset, is_blank, shared_patients

SUBSETS: tuple[Subset, ...] = get_args(Subset)


@dataclass(frozen=True)
class Split:
    """Slice ids of each subset, and the limitations that affect the scores.

    Attributes:
      policy: how it was drawn.
      train, val, test: slice ids in the dataset's order. Under ``paper`` val and test are the same
        slices.
      statement: the protocol in one sentence.
      fingerprint: of the dataset it was drawn for.
      patients: of each slice; None where unknown.
      digests: of each slice's pixels.
      warnings: what weakens it (unknown patients, patients or near-duplicates on both sides).
      similar: copies and near-duplicates in different subsets.
    """

    policy: DrawnPolicy
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
        """The subsets that must share nothing; under ``paper`` val and test are the same."""
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
        """Slices of any dataset that were used to train or validate, matched by their pixels.

        Blank slices are not matched: all of them look the same.
        """
        seen = {self.digests[name] for name in (*self.train, *self.val)}
        return [item.id for item in dataset.slices if item.digest in seen and not is_blank(item)]

    def save(self, path: Path) -> None:
        """Writes split.json, whole or not at all.

        Raises:
          RunError: if it cannot be written.
        """
        shared = ("policy", "statement", "warnings", "similar", "fingerprint")
        record: dict[str, Any] = {name: getattr(self, name) for name in shared}
        for subset in SUBSETS:
            names = getattr(self, subset)
            record[subset] = [_Row(n, self.patients[n], self.digests[n]) for n in names]
        with writing_to(path):
            write_json(path, to_dict(record))

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Reads what ``save`` wrote.

        Raises:
          RunError: if the file is missing or damaged, or puts a slice or (except under ``paper``) a
            patient in two subsets.
        """
        return read_json(path, _Record, RunError).split


@dataclass(frozen=True)
class _Row:
    slice: str
    patient: str | None
    digest: str


@dataclass(frozen=True)
class _Record:
    """split.json: each slice with its patient and digest."""

    policy: DrawnPolicy
    statement: str
    warnings: tuple[str, ...]
    similar: tuple[Crossing, ...]
    fingerprint: str
    train: tuple[_Row, ...]
    val: tuple[_Row, ...]
    test: tuple[_Row, ...]

    def __post_init__(self) -> None:
        if not "".join((self.statement, self.fingerprint, *self.warnings)).isprintable():
            raise ConfigError("statement, fingerprint or warnings: not printable")
        rows = {row.slice: row for row in self.rows}
        if twice := [row.slice for row in self.rows if row != rows[row.slice]]:
            raise ConfigError(f"slice {twice[0]!r} is described in two ways")
        _check(self.split)

    @property
    def rows(self) -> tuple[_Row, ...]:
        """Of all subsets."""
        return (*self.train, *self.val, *self.test)

    @property
    def split(self) -> Split:
        """The split of this record."""
        return Split(
            policy=self.policy,
            train=tuple(row.slice for row in self.train),
            val=tuple(row.slice for row in self.val),
            test=tuple(row.slice for row in self.test),
            statement=self.statement,
            fingerprint=self.fingerprint,
            patients={row.slice: row.patient for row in self.rows},
            digests={row.slice: row.digest for row in self.rows},
            warnings=self.warnings,
            similar=self.similar,
        )


def _check(split: Split) -> None:
    """ConfigError where subsets overlap in slices or patients, or one is empty."""
    subset_of: dict[str, Subset] = {}
    for subset, names in split.sides.items():
        if not names:
            raise ConfigError(f"{subset} is empty")
        for name in names:
            if name in subset_of:
                raise ConfigError(f"slice {name!r} is in {subset_of[name]} and in {subset}")
            subset_of[name] = subset
    if split.policy == "paper":
        if split.val != split.test:
            raise ConfigError("policy paper: val and test must be the same slices")
    elif shared := shared_patients(split.patients, split.sides):
        raise ConfigError(
            f"{plural(len(shared), 'patient')} in several subsets ({shorten(shared)}): "
            "only the policy paper permits that"
        )
    for pair in split.similar:
        subsets = subset_of.get(pair.first), subset_of.get(pair.second)
        if subsets != (pair.first_subset, pair.second_subset):
            raise ConfigError(
                f"similar: {pair.first!r} and {pair.second!r} are not in "
                f"{pair.first_subset} and {pair.second_subset}"
            )
