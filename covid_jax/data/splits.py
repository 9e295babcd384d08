"""Which slices train, which choose the weights, which judge; patients must not leak."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from covid_jax.config import SplitPolicy
from covid_jax.data.dataset import SliceDataset
from covid_jax.errors import ConfigError, RunError
from covid_jax.files import replace_text

Subset = Literal["train", "val", "test"]

TEST_FRACTION = 0.2
VAL_FRACTION = 0.15  # of what is not test


@dataclass(frozen=True)
class Split:
    """Slice ids of each subset, and what a reader of the scores must know of it.

    Attributes:
      policy: how it was drawn, never ``auto``.
      train, val, test: slice ids in the dataset's order. Under ``paper`` val and test are the same
        slices.
      statement: the protocol in one sentence.
      warnings: what weakens it (unknown patients, patients on both sides).
    """

    policy: SplitPolicy
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    statement: str
    warnings: tuple[str, ...] = ()

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
                f"the data lacks {len(missing)} slices of the run's {subset} subset "
                f"({', '.join(missing[:3])}, ...): give the data the run was trained on"
            )
        return [position[name] for name in wanted]

    def save(self, path: Path, dataset: SliceDataset) -> None:
        """Writes slice ids and patients of each subset as JSON."""
        patient = {item.id: item.patient for item in dataset.slices}
        subsets = {
            subset: [{"slice": name, "patient": patient[name]} for name in getattr(self, subset)]
            for subset in ("train", "val", "test")
        }
        record = {
            "policy": self.policy,
            "statement": self.statement,
            "warnings": self.warnings,
            "fingerprint": dataset.fingerprint(),
            **subsets,
        }
        replace_text(path, json.dumps(record, indent=1))

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Reads what ``save`` wrote.

        Raises:
          RunError: if the file is missing or damaged.
        """
        try:
            record = json.loads(path.read_text())
            subsets = {
                subset: tuple(row["slice"] for row in record[subset])
                for subset in ("train", "val", "test")
            }
            return cls(
                record["policy"],
                **subsets,
                statement=record["statement"],
                warnings=tuple(record["warnings"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: no readable split ({error!r})") from error


def draw_split(dataset: SliceDataset, policy: SplitPolicy = "auto", seed: int = 0) -> Split:
    """Draws a split; the same dataset, policy and seed give the same one.

    Args:
      dataset: all slices.
      policy: ``published``: the collection's own test part, validation taken from its training
        part; ``patient``: whole patients; ``slice``: single slices; ``paper``: 80/20 by slice, the
        20 % both validating and testing; ``auto``: the published split where there is one, else by
        patient.
      seed: of the draw.

    Raises:
      ConfigError: if the data cannot be split so.
    """
    published = all(item.published for item in dataset.slices)
    if policy == "auto":
        policy = "published" if published else "patient"
    if policy == "published" and not published:
        raise ConfigError(
            f"--split published: {dataset.layout} has no published split; use patient"
        )
    if policy not in get_args(SplitPolicy):
        raise ConfigError(f"--split {policy}: expected one of {get_args(SplitPolicy)}")
    rng = np.random.default_rng(seed)
    everything = range(len(dataset))
    by_slice, by_patient = _slice_of(dataset), _patient_of(dataset)
    if policy == "published":
        test = [i for i in everything if dataset.slices[i].published == "test"]
        rest = [i for i in everything if dataset.slices[i].published == "train"]
        val = _draw(rest, by_patient, VAL_FRACTION, rng)
        statement = "published split; validation drawn from its training part by patient"
    elif policy == "paper":
        val = test = _draw(everything, by_slice, TEST_FRACTION, rng)
        statement = (
            "the paper's split: 80/20 by slice, the same 20 % validates and tests; it leaks "
            "neighbouring slices and selects on the test part, so it flatters"
        )
    else:
        unit = by_patient if policy == "patient" else by_slice
        test = _draw(everything, unit, TEST_FRACTION, rng)
        val = _draw([i for i in everything if i not in set(test)], unit, VAL_FRACTION, rng)
        statement = f"random split by {policy}, seed {seed}"
    held_out = {*val, *test}
    train = [i for i in everything if i not in held_out]
    subsets = {"train": train, "val": val, "test": test}
    if empty := [name for name, members in subsets.items() if not members]:
        raise ConfigError(
            f"--split {policy}: {len(dataset)} slices of {len(set(map(by_patient, everything)))} "
            f"patients leave nothing for {' and '.join(empty)}"
        )
    sides = [train, test] if policy == "paper" else [train, val, test]
    warnings = _warnings(dataset, sides)
    ids = {name: tuple(dataset.slices[i].id for i in sorted(m)) for name, m in subsets.items()}
    return Split(policy, **ids, statement=statement, warnings=warnings)


def _slice_of(dataset: SliceDataset) -> Callable[[int], str]:
    return lambda i: dataset.slices[i].id


def _patient_of(dataset: SliceDataset) -> Callable[[int], str]:
    """The patient, or, where unknown, the slice itself."""
    return lambda i: dataset.slices[i].patient or dataset.slices[i].id


def _draw(
    members: Sequence[int], unit: Callable[[int], str], fraction: float, rng: np.random.Generator
) -> list[int]:
    """All members of a random fraction of the units: at least one, never all."""
    units = sorted({unit(i) for i in members})
    count = min(max(1, round(fraction * len(units))), len(units) - 1)
    chosen = {units[k] for k in rng.permutation(len(units))[:count]}
    return [i for i in members if unit(i) in chosen]


def _warnings(dataset: SliceDataset, sides: Sequence[Sequence[int]]) -> tuple[str, ...]:
    warnings = []
    unknown = sum(item.patient is None for item in dataset.slices)
    if unknown:
        warnings.append(
            f"patients of {unknown} slices are unknown: neighbours of one patient may stand on "
            "both sides"
        )
    present = [{dataset.slices[i].patient for i in side} - {None} for side in sides]
    shared = {a for one, other in itertools.combinations(present, 2) for a in one & other}
    if shared:
        warnings.append(f"{len(shared)} patients stand on both sides of the split")
    return tuple(warnings)
