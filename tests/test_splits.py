"""Splits by counts and sets, and the paper's 378 / 95."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covid_jax.config import SplitPolicy
from covid_jax.data import Slice, SliceDataset
from covid_jax.data.splits import Split, draw_split
from covid_jax.errors import ConfigError, RunError

Published = Literal["train", "test"] | None
RANDOM_POLICIES: tuple[SplitPolicy, ...] = ("patient", "slice", "paper")


def make_dataset(
    patients: Sequence[str | None], published: Sequence[Published] | None = None
) -> SliceDataset:
    """A 2 x 2 slice for each patient named; ids s00, s01, ..."""
    image, mask = np.zeros((2, 2), np.int16), np.ones((2, 2), np.uint8)
    subsets = [None] * len(patients) if published is None else published
    slices = tuple(
        Slice(f"s{i:02d}", "hand-made", patient, subset, image, mask)
        for i, (patient, subset) in enumerate(zip(patients, subsets, strict=True))
    )
    return SliceDataset("hand-made", slices, 16)


def one_each(count: int) -> list[str]:
    return [f"p{i}" for i in range(count)]


def patients_in(dataset: SliceDataset, names: Sequence[str]) -> set[str | None]:
    return {item.patient for item in dataset.slices if item.id in names}


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.train), len(split.val), len(split.test)


def everything(dataset: SliceDataset) -> list[str]:
    return [item.id for item in dataset.slices]


@pytest.mark.parametrize(
    ("policy", "count", "expected"),
    [
        ("slice", 100, (68, 12, 20)),  # 20 % test; of the other 80, 15 % validate
        ("patient", 100, (68, 12, 20)),
        ("paper", 473, (378, 95, 95)),  # the paper, section 4.1 of the paper
        ("paper", 100, (80, 20, 20)),
        ("slice", 3, (1, 1, 1)),
        ("patient", 3, (1, 1, 1)),
        ("paper", 2, (1, 1, 1)),
    ],
)
def test_fractions(policy: SplitPolicy, count: int, expected: tuple[int, int, int]) -> None:
    assert sizes(draw_split(make_dataset(one_each(count)), policy)) == expected


def test_by_patient_counts_patients_not_slices() -> None:
    """Ten patients of 1, 2, ... 10 slices: two test, one of the other eight validates."""
    dataset = make_dataset([f"p{i}" for i in range(10) for _ in range(i + 1)])
    split = draw_split(dataset, "patient", seed=3)
    counts = [len(patients_in(dataset, part)) for part in (split.train, split.val, split.test)]
    assert counts == [7, 1, 2]
    assert sum(sizes(split)) == 55


@given(
    patients=st.lists(st.sampled_from("abcdefgh"), min_size=3, max_size=40).filter(
        lambda names: len(set(names)) >= 3
    ),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_by_patient_never_splits_a_patient(patients: list[str], seed: int) -> None:
    dataset = make_dataset(patients)
    split = draw_split(dataset, "patient", seed)
    train, val, test = (patients_in(dataset, part) for part in (split.train, split.val, split.test))
    assert train
    assert val
    assert test
    assert not train & val
    assert not train & test
    assert not val & test
    assert sorted([*split.train, *split.val, *split.test]) == everything(dataset)
    assert split.warnings == ()


@given(count=st.integers(3, 40), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_by_slice_is_disjoint_and_complete(count: int, seed: int) -> None:
    dataset = make_dataset(["one"] * count)
    split = draw_split(dataset, "slice", seed)
    assert min(sizes(split)) >= 1
    assert sorted([*split.train, *split.val, *split.test]) == everything(dataset)


@given(count=st.integers(2, 40), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_papers_split_validates_and_tests_on_the_same_slices(count: int, seed: int) -> None:
    dataset = make_dataset(one_each(count))
    split = draw_split(dataset, "paper", seed)
    assert split.val == split.test
    assert sorted([*split.train, *split.test]) == everything(dataset)
    assert "leak" in split.statement


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_published_keeps_its_test_part(seed: int) -> None:
    """Of 20 unknown patients in the training part, 15 % are three."""
    subsets: list[Published] = ["test" if i % 3 == 0 else "train" for i in range(30)]
    dataset = make_dataset([None] * 30, subsets)
    split = draw_split(dataset, "published", seed)
    assert list(split.test) == [f"s{i:02d}" for i in range(0, 30, 3)]
    assert sizes(split) == (17, 3, 10)
    assert sorted([*split.train, *split.val, *split.test]) == everything(dataset)


def test_published_draws_its_validation_by_patient() -> None:
    dataset = make_dataset([*"aabbccdd", "x"], ["train"] * 8 + ["test"])
    for seed in range(4):
        split = draw_split(dataset, "published", seed)
        assert sizes(split) == (6, 2, 1)
        assert len(patients_in(dataset, split.val)) == 1


@pytest.mark.parametrize("policy", RANDOM_POLICIES)
def test_the_seed_decides_alone(policy: SplitPolicy) -> None:
    dataset = make_dataset(one_each(30))
    drawn = [draw_split(dataset, policy, seed).test for seed in range(5)]
    again = [draw_split(make_dataset(one_each(30)), policy, seed).test for seed in range(5)]
    assert drawn == again
    assert len(set(drawn)) == 5


@pytest.mark.parametrize("policy", RANDOM_POLICIES)
def test_every_slice_can_be_in_any_subset(policy: SplitPolicy) -> None:
    """Over 60 seeds, a fair draw leaves a given one of ten units out with chance 0.8^60 = 2e-6."""
    dataset = make_dataset(one_each(10))
    splits = [draw_split(dataset, policy, seed) for seed in range(60)]
    for subset in ("train", "val", "test"):
        assert {name for split in splits for name in getattr(split, subset)} == set(
            everything(dataset)
        )


def test_subsets_stay_in_the_datasets_order() -> None:
    split = draw_split(make_dataset(one_each(30)), "slice")
    for part in (split.train, split.val, split.test):
        assert list(part) == sorted(part)


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (["train"] * 6 + ["test"] * 2, "published"),
        ([None] * 8, "patient"),
        (["train"] * 4 + ["test"] * 3 + [None], "patient"),
    ],
)
def test_auto_takes_the_published_split_or_goes_by_patient(
    published: list[Published], expected: SplitPolicy
) -> None:
    dataset = make_dataset(one_each(8), published)
    assert draw_split(dataset).policy == expected
    assert draw_split(dataset) == draw_split(dataset, expected)


def numbers_in(warnings: Sequence[str]) -> list[int]:
    return [int(word) for text in warnings for word in text.split() if word.isdigit()]


def test_warns_of_unknown_patients() -> None:
    (warning,) = draw_split(make_dataset([*"abcdef", None, None]), "patient").warnings
    assert "unknown" in warning
    assert numbers_in([warning]) == [2]


@pytest.mark.parametrize("policy", ["slice", "paper"])
def test_warns_of_one_patient_on_both_sides(policy: SplitPolicy) -> None:
    (warning,) = draw_split(make_dataset(["one"] * 10), policy).warnings
    assert "both sides" in warning
    assert numbers_in([warning]) == [1]


@pytest.mark.parametrize("policy", ["slice", "paper"])
@pytest.mark.parametrize("seed", range(5))
def test_counts_the_patients_on_both_sides(policy: SplitPolicy, seed: int) -> None:
    dataset = make_dataset([*"aabbccddeeff", *one_each(6)])
    split = draw_split(dataset, policy, seed)
    train, val, test = (patients_in(dataset, part) for part in (split.train, split.val, split.test))
    shared = len(train & val | train & test | (val & test if policy == "slice" else set()))
    assert numbers_in(split.warnings) == ([shared] if shared else [])


def test_warns_of_patients_in_both_published_parts() -> None:
    """Five patients on each side of the publisher's line; the one that validates is tested too."""
    dataset = make_dataset([*"abcde", *"abcde"], ["train"] * 5 + ["test"] * 5)
    (warning,) = draw_split(dataset, "published").warnings
    assert numbers_in([warning]) == [5]


@pytest.mark.parametrize(
    ("patients", "published", "policy", "said"),
    [
        (["a", "a", "b"], None, "patient", "--split patient"),
        (["a"] * 9, None, "patient", "--split patient"),
        (["a", "b"], None, "slice", "--split slice"),
        (["a"], None, "paper", "--split paper"),
        (["a", "b"], ["train", "test"], "published", "--split published"),
        (["a", "b", "c"], ["train"] * 3, "published", "--split published"),
        (["a", "b", "c"], ["test"] * 3, "published", "--split published"),
        (["a", "b", "c"], None, "published", "hand-made"),
        (["a", "b", "c"], ["train", "test", None], "published", "hand-made"),
    ],
)
def test_refuses_what_leaves_a_subset_empty(
    patients: list[str], published: list[Published] | None, policy: SplitPolicy, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        draw_split(make_dataset(patients, published), policy)
    assert said in str(caught.value)


def test_indices_are_positions_in_the_dataset() -> None:
    dataset = make_dataset([*"abcde"])
    split = Split("slice", ("s00", "s03"), ("s01",), ("s04", "s02"), "by hand")
    assert split.indices(dataset, "train") == [0, 3]
    assert split.indices(dataset, "val") == [1]
    assert split.indices(dataset, "test") == [4, 2]
    assert split.indices(dataset, "all") == [0, 1, 2, 3, 4]
    assert split.indices(dataset.select([4, 3, 2, 1, 0]), "train") == [4, 1]


def test_indices_refuse_data_that_lacks_a_slice() -> None:
    dataset = make_dataset([*"abcde"])
    split = Split("slice", ("s00", "s07", "s08"), ("s01",), ("s02",), "by hand")
    with pytest.raises(RunError, match=r"lacks 2 slices.*train.*s07, s08"):
        split.indices(dataset, "train")
    assert split.indices(dataset, "val") == [1]


@pytest.mark.parametrize("policy", [*RANDOM_POLICIES, "published"])
def test_a_saved_split_loads_the_same(tmp_path: Path, policy: SplitPolicy) -> None:
    published: list[Published] | None = (
        ["train", "train", "test"] * 4 if policy == "published" else None
    )
    dataset = make_dataset([*"aabbccddee", None, None], published)
    split = draw_split(dataset, policy, seed=1)
    assert split.warnings
    split.save(tmp_path / "split.json", dataset)
    assert Split.load(tmp_path / "split.json") == split


def test_a_saved_split_names_patients_and_the_data(tmp_path: Path) -> None:
    dataset = make_dataset(["a", None, "b"])
    split = Split("slice", ("s00",), ("s01",), ("s02",), "by hand")
    split.save(tmp_path / "split.json", dataset)
    record = json.loads((tmp_path / "split.json").read_text())
    assert record["train"] == [{"slice": "s00", "patient": "a"}]
    assert record["val"] == [{"slice": "s01", "patient": None}]
    assert record["test"] == [{"slice": "s02", "patient": "b"}]
    assert record["policy"] == "slice"
    assert record["fingerprint"] == dataset.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"policy": "slice"}'])
def test_a_run_without_a_whole_split_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "split.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunError) as caught:
        Split.load(path)
    assert str(path) in str(caught.value)
