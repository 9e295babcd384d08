"""Splits into training, validation and test slices: drawn, or taken from a file."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from covid_jax.data.dataset import SliceDataset
from covid_jax.errors import ConfigError, DataError, RunError, plural, shorten
from covid_jax.runs.config import DataConfig, DrawnPolicy, SplitPolicy
from covid_jax.splits import leakage
from covid_jax.splits.leakage import SimilarPairs, Subset
from covid_jax.splits.split import SUBSETS, Split, SplitSlice
from covid_jax.splits.stratify import partition, strata

TEST_FRACTION = 0.2
VAL_FRACTION = 0.15  # of what is not test
_FROM_FILE = " (taken from a split file)"
Parts = Mapping[Subset, Iterable[int]]  # positions of each subset's slices
Positions = Int[np.ndarray, "_"]  # of slices in the dataset


def find_split(dataset: SliceDataset, config: DataConfig, similar: SimilarPairs = ()) -> Split:
    """Draws the split that the settings describe, or reads it from ``split_file``.

    The same arguments give the same split.

    Subsets are balanced in source and lesion size, except under ``paper``. If the numbers of slices
    per patient differ greatly, few splits are balanced, and different seeds may give the same
    split.

    Args:
      dataset: all slices.
      config: the following fields are used:

        - ``split``. ``published``: the collection's own test part, validation taken from its
          training part; ``patient``: whole patients, and where they are unknown near-duplicates
          together; ``leave-one-source-out``: one source tests, validation taken from the others
          by patient; ``slice``: single slices; ``paper``: 80/20 by slice, the 20 % both validating
          and testing; ``auto``: the published split where there is one, else by patient.
        - ``split_seed``: random seed.
        - ``folds``: number of parts of equal size, which do not depend on ``fold``; for
          ``leave-one-source-out`` the number of sources, or None.
        - ``fold``: which part is the test part (``published``: which part of the training part is
          for validation; ``leave-one-source-out``: which source is the test part), from 1.
        - ``split_file``: a split.json to use instead (see ``use_split``).
      similar: positions of near-duplicate slices, in pairs with their correlation.

    Raises:
      ConfigError: if the data cannot be split in this way.
      DataError: if a known patient would be in two subsets (``paper`` counts them instead), or no
        slice of the training part shows a lesion.
      RunError: as ``use_split``.
    """
    if config.split_file is not None:
        return use_split(config.split_file, dataset, similar)
    if config.fold == "all":
        raise ConfigError("--fold all means several splits; ask for them one by one")
    policy = _resolve(config.split, dataset)
    folds = count_folds(dataset, policy, config.folds)
    if config.fold and folds and config.fold > folds:
        raise ConfigError(f"--fold {config.fold}: expected 1 to {folds}, the sources of this data")
    cut = _cutter(dataset, policy, config.split_seed, similar)
    val, test = _held_out(dataset, policy, cut, folds, (config.fold or 1) - 1)
    train = np.setdiff1d(np.arange(len(dataset)), np.concatenate([val, test]))
    if not any(dataset.slices[i].lesion_share for i in train):
        problem = "no slice of the training part shows a lesion; are these the right masks?"
        raise DataError(f"{dataset.layout}: {problem} Add data with lesions")
    statement = _statement(dataset, policy, config.split_seed, folds, config.fold)
    return _split(dataset, policy, statement, {"train": train, "val": val, "test": test}, similar)


def count_folds(dataset: SliceDataset, policy: SplitPolicy, folds: int | None) -> int | None:
    """The number of folds: as given, and for ``leave-one-source-out`` one for each source.

    Raises:
      ConfigError: if that policy is given another number, or data of one source.
    """
    if policy != "leave-one-source-out":
        return folds
    if len(sources := source_names(dataset)) < 2:
        advice = "give several --data folders, or use --split patient"
        raise ConfigError(f"--split {policy}: all slices come from {sources[0]}; {advice}")
    if folds not in (None, len(sources)):
        each = f"a fold for each of the {len(sources)} sources ({shorten(sources)})"
        raise ConfigError(f"--folds {folds}: --split {policy} has {each}; leave out --folds")
    return len(sources)


def source_names(dataset: SliceDataset) -> list[str]:
    """The dataset's sources in order of appearance."""
    return list(dict.fromkeys(item.source for item in dataset.slices))


def use_split(path: Path, dataset: SliceDataset, similar: SimilarPairs = ()) -> Split:
    """Reads a split that was written for the same data, and recomputes its warnings and pairs.

    Args:
      path: a run's split.json.
      dataset: all slices; the file must name a subset for each of them.
      similar: near-duplicates (see ``find_split``).

    Raises:
      RunError: if the file is damaged, or was written for other data.
    """
    split = Split.load(path)
    if split.fingerprint != dataset.fingerprint():
        found = f"{split.fingerprint}, this data has {dataset.fingerprint()}"
        advice = "open the same data in the same way, or draw a new split"
        raise RunError(f"{path}: was drawn for data with the fingerprint {found}; {advice}")
    here = {item.id: (item.patient, item.digest) for item in dataset.slices}
    there = {name: (row.patient, row.digest) for name, row in split.by_id.items()}
    names = sorted(here.keys() | there.keys())
    if differing := [name for name in names if here.get(name) != there.get(name)]:
        found = f"{plural(len(differing), 'slice')} ({shorten(differing)})"
        raise RunError(f"{path}: names other slices, patients or digests than the data: {found}")
    subsets: dict[Subset, list[int]] = {name: split.indices(dataset, name) for name in SUBSETS}
    statement = split.statement.removesuffix(_FROM_FILE) + _FROM_FILE
    return _split(dataset, split.policy, statement, subsets, similar)


def _resolve(policy: SplitPolicy, dataset: SliceDataset) -> DrawnPolicy:
    """The policy that ``auto`` stands for; refuses ``published`` without a published split."""
    published = {item.published for item in dataset.slices} == {"train", "test"}
    if policy == "auto":
        return "published" if published else "patient"
    if policy == "published" and not published:
        part = "no published training and test part that every slice belongs to"
        raise ConfigError(f"--split published: {dataset.layout} has {part}; use --split patient")
    return policy


def _cutter(
    dataset: SliceDataset, policy: DrawnPolicy, seed: int, similar: SimilarPairs
) -> Callable[[Positions, Sequence[float]], list[Positions]]:
    """A function that divides positions of slices into parts of given fractions."""
    by_slice = policy in ("slice", "paper")
    unit = np.arange(len(dataset)) if by_slice else leakage.split_groups(dataset, similar)
    stratum = np.zeros_like(unit) if policy == "paper" else strata(dataset)
    rng = np.random.default_rng(seed)

    def cut(members: Positions, fractions: Sequence[float]) -> list[Positions]:
        try:
            part = partition(unit[members], stratum[members], fractions, rng)
        except ValueError as error:
            advice = "more data is needed"
            unknown = {i for i, item in enumerate(dataset.slices) if item.patient is None}
            if not by_slice and any(unknown & {i, j} for i, j, _ in similar):
                cause = "slices of unknown patients that look alike count as one patient's"
                advice = f"{cause}: name the patients in patients.csv, or add data"
            raise ConfigError(f"--split {policy}: {error}; {advice}") from error
        return [members[part == k] for k in range(len(fractions))]

    return cut


def _held_out(
    dataset: SliceDataset, policy: DrawnPolicy, cut: Callable, folds: int | None, part: int
) -> tuple[Positions, Positions]:
    """Positions of the validation and of the test slices; ``part`` is the fold held out."""
    everything = np.arange(len(dataset))
    fractions = [1 / folds] * folds if folds else None
    validates, tests = [VAL_FRACTION, 1 - VAL_FRACTION], [TEST_FRACTION, 1 - TEST_FRACTION]
    if policy == "paper":
        both = cut(everything, fractions or tests)[part]
        return both, both
    if policy == "published":
        test = np.flatnonzero([item.published == "test" for item in dataset.slices])
        return cut(np.setdiff1d(everything, test), fractions or validates)[part], test
    if policy == "leave-one-source-out":
        name = source_names(dataset)[part]
        test = np.flatnonzero([item.source == name for item in dataset.slices])
    elif fractions:
        test = cut(everything, fractions)[part]
    else:
        test, val, _ = cut(everything, [TEST_FRACTION, *(tests[1] * v for v in validates)])
        return val, test
    return cut(np.setdiff1d(everything, test), validates)[0], test


def _split(
    dataset: SliceDataset, policy: DrawnPolicy, statement: str, parts: Parts, similar: SimilarPairs
) -> Split:
    """The split of these positions; refused if a known patient is in several subsets."""
    rows = [SplitSlice(item.id, item.patient, item.digest) for item in dataset.slices]
    train, val, test = (tuple(rows[i] for i in sorted(parts[name])) for name in SUBSETS)
    split = Split(policy, train, val, test, statement, dataset.fingerprint())
    shared = leakage.shared_patients(split.patients, split.sides)
    if shared and policy != "paper":
        where = shorten(f"{patient} in {' and '.join(sides)}" for patient, sides in shared.items())
        found = f"{plural(len(shared), 'patient')} would be in several subsets ({where})"
        advice = "use --split patient, or --split paper for the paper's protocol"
        raise DataError(f"--split {policy}: {found}; {advice}")
    pairs = leakage.crossings(dataset, split.sides, similar)
    warnings = tuple(_warnings(split, len(shared), pairs))
    return dataclasses.replace(split, warnings=warnings, similar=pairs)


def _warnings(split: Split, shared: int, pairs: Sequence[leakage.Crossing]) -> Iterator[str]:
    if unknown := sum(patient is None for patient in split.patients.values()):
        yield f"patients of {unknown} slices are unknown: one patient may be on both sides"
    alike = plural(len(pairs), "near-duplicate pair")
    leaks = f"{alike} in different subsets"
    if split.policy == "paper":
        leaks = f"{plural(shared, 'patient')} and {alike} are on both sides of the split"
    shown = shorten(f"{pair.first} ~ {pair.second} ({pair.correlation:.2f})" for pair in pairs)
    if shared or pairs:
        yield f"{leaks}: {shown}" if pairs else leaks


def _statement(
    dataset: SliceDataset, policy: DrawnPolicy, seed: int, folds: int | None, fold: int | None
) -> str:
    part = f"fold {fold} of {folds}"
    if policy == "leave-one-source-out" and fold is not None:
        name = shorten(source_names(dataset)[fold - 1 : fold])
        rest = f"validation drawn from the other sources by patient, seed {seed}"
        return f"{name} tests ({part}, a source each), {rest}"
    if policy == "published":
        drawn = "validation drawn from" if folds is None else f"{part} validates, drawn from"
        return f"published test part; {drawn} the published training part by patient, seed {seed}"
    if policy == "paper":
        share = "80/20" if folds is None else part
        flaw = "it leaks neighbouring slices and selects on the test part, so it flatters"
        return f"the paper's split: {share} by slice, the same slices validate and test; {flaw}"
    test = "random split" if folds is None else f"{part} tests, validation drawn from the rest;"
    return f"{test} by {policy}, balanced in source and lesion size, seed {seed}"
