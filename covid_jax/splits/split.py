"""A split as drawn, and split.json, which stores it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from covid_jax.data.dataset import SliceDataset
from covid_jax.errors import ConfigError, RunError, plural, shorten
from covid_jax.files import read_json, write_json, writing_to
from covid_jax.runs.config import DrawnPolicy, to_dict
from covid_jax.splits.leakage import Crossing, Subset, is_blank, shared_patients

SUBSETS: tuple[Subset, ...] = get_args(Subset)


@dataclass(frozen=True)
class SplitSlice:
    """A slice of a subset.

    Attributes:
      slice: its id.
      patient: None where unknown.
      digest: of its pixels.
    """

    slice: str
    patient: str | None
    digest: str


@dataclass(frozen=True)
class Split:
    """The slices of each subset, and the limitations that affect the scores.

    Attributes:
      policy: how it was drawn.
      train, val, test: slices in the dataset's order. Under ``paper`` val and test are the same.
      statement: the protocol in one sentence.
      fingerprint: of the dataset it was drawn for.
      warnings: limitations of the split (unknown patients, patients or near-duplicates in several
        subsets).
      similar: copies and near-duplicates in different subsets.
    """

    policy: DrawnPolicy
    train: tuple[SplitSlice, ...]
    val: tuple[SplitSlice, ...]
    test: tuple[SplitSlice, ...]
    statement: str
    fingerprint: str
    warnings: tuple[str, ...] = ()
    similar: tuple[Crossing, ...] = ()

    def ids(self, subset: Subset) -> tuple[str, ...]:
        """The ids of a subset's slices."""
        return tuple(row.slice for row in getattr(self, subset))

    @property
    def sides(self) -> dict[Subset, tuple[str, ...]]:
        """Slice ids of the subsets that must not overlap: under ``paper`` train and test only."""
        subsets = ("train", "test") if self.policy == "paper" else SUBSETS
        return {subset: self.ids(subset) for subset in subsets}

    @property
    def by_id(self) -> dict[str, SplitSlice]:
        """The slices of all subsets by their ids."""
        return {row.slice: row for row in (*self.train, *self.val, *self.test)}

    @property
    def patients(self) -> dict[str, str | None]:
        """The patient of each slice; None where unknown."""
        return {name: row.patient for name, row in self.by_id.items()}

    def indices(self, dataset: SliceDataset, subset: Subset | Literal["all"]) -> list[int]:
        """Positions of the subset's slices in the dataset.

        Raises:
          RunError: if the dataset lacks one of them.
        """
        if subset == "all":
            return list(range(len(dataset)))
        position = {item.id: i for i, item in enumerate(dataset.slices)}
        wanted = self.ids(subset)
        if missing := [name for name in wanted if name not in position]:
            lost = f"{plural(len(missing), 'slice')} of the {subset} subset ({shorten(missing)})"
            raise RunError(f"the data lacks {lost}: give the data the run was trained on")
        return [position[name] for name in wanted]

    def trained_on(self, dataset: SliceDataset) -> list[str]:
        """Slices of any dataset that were used to train or validate, matched by their pixels.

        Blank slices are not matched: all of them look the same.
        """
        seen = {row.digest for row in (*self.train, *self.val)}
        return [item.id for item in dataset.slices if item.digest in seen and not is_blank(item)]

    def save(self, path: Path) -> None:
        """Writes split.json, whole or not at all.

        Raises:
          RunError: if it cannot be written.
        """
        with writing_to(path):
            write_json(path, to_dict(self))

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Reads what ``save`` wrote.

        Raises:
          RunError: if the file is missing or damaged, or puts a slice or (except under ``paper``) a
            patient in two subsets.
        """
        split = read_json(path, cls, RunError)
        try:
            _check(split)
        except ConfigError as error:
            raise RunError(f"{path}: {error}") from error
        return split


def _check(split: Split) -> None:
    """ConfigError where subsets overlap in slices or patients, or one is empty."""
    if not "".join((split.statement, split.fingerprint, *split.warnings)).isprintable():
        raise ConfigError("statement, fingerprint or warnings: not printable")
    subset_of: dict[str, Subset] = {}
    for subset, names in split.sides.items():
        if not names:
            raise ConfigError(f"{subset} is empty")
        for name in names:
            if name in subset_of:
                raise ConfigError(f"slice {name!r} is in {subset_of[name]} and in {subset}")
            subset_of[name] = subset
    if split.policy == "paper" and split.val != split.test:
        raise ConfigError("policy paper: val and test must be the same slices")
    shared = shared_patients(split.patients, split.sides)
    if shared and split.policy != "paper":
        raise ConfigError(f"{plural(len(shared), 'patient')} in several subsets: {shorten(shared)}")
    for pair in split.similar:
        subsets = subset_of.get(pair.first), subset_of.get(pair.second)
        if subsets != (pair.first_subset, pair.second_subset):
            places = f"{pair.first_subset} and {pair.second_subset}"
            raise ConfigError(f"similar: {pair.first!r} and {pair.second!r} are not in {places}")
