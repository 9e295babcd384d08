"""Splits by counts and sets, the paper's 378 / 95, and leaks planted to be caught."""

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covid_jax.data import SliceDataset, open_dataset
from covid_jax.errors import ConfigError, DataError, RunError
from covid_jax.runs.config import DataConfig, SplitPolicy
from covid_jax.splits.leakage import Crossing, SimilarPairs
from covid_jax.splits.policies import Split, find_split, use_split
from tests.support.hand_made import Published, make_dataset, one_each

RANDOM_POLICIES: tuple[SplitPolicy, ...] = ("patient", "slice", "paper")


def draw_split(
    dataset: SliceDataset,
    policy: SplitPolicy = "auto",
    seed: int = 0,
    similar: SimilarPairs = (),
    **folds: int | None,
) -> Split:
    config = DataConfig(split=policy, split_seed=seed, **folds)  # type: ignore[arg-type]
    return find_split(dataset, config, similar)


def patients_in(split: Split, names: Sequence[str]) -> set[str | None]:
    return {split.patients[name] for name in names}


def sizes(split: Split) -> tuple[int, int, int]:
    return len(split.ids("train")), len(split.ids("val")), len(split.ids("test"))


def everything(dataset: SliceDataset) -> list[str]:
    return [item.id for item in dataset.slices]


def in_subsets(split: Split) -> list[str]:
    """Ids of all subsets, sorted; the paper's val and test count once."""
    return sorted(name for names in split.sides.values() for name in names)


@pytest.mark.parametrize(
    ("policy", "count", "expected"),
    [
        ("slice", 100, (68, 12, 20)),  # 20 % test; of the other 80, 15 % validate
        ("patient", 100, (68, 12, 20)),
        ("paper", 473, (378, 95, 95)),  # the paper, section 4.1
        ("paper", 100, (80, 20, 20)),
        ("slice", 3, (1, 1, 1)),
        ("patient", 3, (1, 1, 1)),
        ("paper", 2, (1, 1, 1)),
    ],
)
def test_fractions(policy: SplitPolicy, count: int, expected: tuple[int, int, int]) -> None:
    assert sizes(draw_split(make_dataset(one_each(count)), policy)) == expected


def test_by_patient_counts_slices_not_patients() -> None:
    """Ten patients of 1, 2, ... 10 slices: 11, 6.6 and 37.4 of 55 are meant to be in each."""
    dataset = make_dataset([f"p{i}" for i in range(10) for _ in range(i + 1)])
    for seed in range(3):
        np.testing.assert_allclose(
            sizes(draw_split(dataset, "patient", seed)), (37.4, 6.6, 11), atol=2
        )


slices = st.tuples(  # patient, source, lesion pixels
    st.none() | st.sampled_from("abcdefghijkl"), st.sampled_from("AB"), st.integers(0, 16)
)


@given(
    rows=st.lists(slices, min_size=8, max_size=60).filter(
        lambda rows: len({patient for patient, _, _ in rows} - {None}) >= 3
    ),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
@settings(max_examples=15, deadline=None)
def test_by_patient(
    rows: list[tuple[str | None, str, int]], seed: int, data: st.DataObject
) -> None:
    """No patient is cut, nor a pair of near-duplicates of an unknown one; everyone has a place."""
    patients, sources, lesions = (list(column) for column in zip(*rows, strict=True))
    dataset = make_dataset(patients, sources=sources, lesions=lesions)
    unknown = [i for i, patient in enumerate(patients) if patient is None]
    similar: list[tuple[int, int, float]] = []
    if len(unknown) > 1:
        i, j, *_ = sorted(data.draw(st.permutations(unknown))[:2])
        similar = [(i, j, 0.97)]
    split = draw_split(dataset, "patient", seed, similar=similar)
    assert split == draw_split(dataset, "patient", seed, similar=similar)
    assert in_subsets(split) == everything(dataset)
    known = [patients_in(split, names) - {None} for names in split.sides.values()]
    assert not any(one & other for one, other in itertools.combinations(known, 2))
    assert split.similar == ()
    largest = max([patients.count(name) for name in set(patients) - {None}] + [2])
    for names, fraction in zip(
        (split.ids("train"), split.ids("val"), split.ids("test")), (0.68, 0.12, 0.2), strict=True
    ):
        assert names
        if 0.12 * len(rows) >= largest + 1:
            assert abs(len(names) - fraction * len(rows)) < largest


@given(count=st.integers(3, 40), seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_by_slice_is_disjoint_and_complete(count: int, seed: int) -> None:
    dataset = make_dataset([None] * count)
    split = draw_split(dataset, "slice", seed)
    assert min(sizes(split)) >= 1
    assert in_subsets(split) == everything(dataset)


@given(count=st.integers(2, 40), seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
def test_the_papers_split_validates_and_tests_on_the_same_slices(count: int, seed: int) -> None:
    dataset = make_dataset(one_each(count))
    split = draw_split(dataset, "paper", seed)
    assert split.ids("val") == split.ids("test")
    assert in_subsets(split) == everything(dataset)
    assert "leak" in split.statement


def test_sources_and_lesion_sizes_are_shared_out() -> None:
    """Of 10 slices of every source and lesion size, 2 test and 1 or 2 (1.2) validate."""
    kinds = [(source, lesion) for source in "AB" for lesion in (0, 3, 6, 9)] * 10
    dataset = make_dataset(
        one_each(80), sources=[kind[0] for kind in kinds], lesions=[kind[1] for kind in kinds]
    )
    kind_of = dict(zip(everything(dataset), kinds, strict=True))
    for policy in ("patient", "slice"):
        split = draw_split(dataset, policy, seed=2)
        tested = [kind_of[name] for name in split.ids("test")]
        validated = [kind_of[name] for name in split.ids("val")]
        assert {tested.count(kind) for kind in set(kinds)} == {2}
        assert {validated.count(kind) for kind in set(kinds)} <= {1, 2}


@pytest.mark.parametrize("policy", RANDOM_POLICIES)
def test_folds_cover_everything_once(policy: SplitPolicy) -> None:
    """Eleven patients of two slices (known ones cannot be cut by slice) in three folds."""
    patients = [None] * 22 if policy == "slice" else [f"p{i // 2}" for i in range(22)]
    dataset = make_dataset(patients)
    splits = [draw_split(dataset, policy, 5, folds=3, fold=k) for k in (1, 2, 3)]
    assert sorted(name for split in splits for name in split.ids("test")) == everything(dataset)
    for k, split in enumerate(splits, start=1):
        assert len(split.ids("test")) in (6, 7, 8)
        assert in_subsets(split) == everything(dataset)
        assert (split.ids("val") == split.ids("test")) == (policy == "paper")
        assert f"fold {k} of 3" in split.statement
    others = [draw_split(dataset, policy, 6, folds=3, fold=k) for k in (1, 2, 3)]
    assert [split.ids("test") for split in others] != [split.ids("test") for split in splits]


def test_folds_of_the_published_training_part_validate() -> None:
    dataset = make_dataset([None] * 16, ["test"] * 4 + ["train"] * 12)
    splits = [draw_split(dataset, folds=4, fold=k) for k in (1, 2, 3, 4)]
    assert {split.ids("test") for split in splits} == {("s00", "s01", "s02", "s03")}
    assert sorted(name for split in splits for name in split.ids("val")) == everything(dataset)[4:]
    assert {len(split.ids("val")) for split in splits} == {3}
    assert "fold 2 of 4 validates" in splits[1].statement


def of_three_sources(patients: Sequence[str | None] = one_each(12)) -> SliceDataset:
    """Sources C, A and B of 4, 3 and 5 slices."""
    return make_dataset(patients, sources=[*"CCCCAAABBBBB"])


def test_each_source_tests_once_and_whole() -> None:
    dataset = of_three_sources()
    splits = [draw_split(dataset, "leave-one-source-out", 3, fold=k) for k in (1, 2, 3)]
    names = everything(dataset)
    assert [list(split.ids("test")) for split in splits] == [names[:4], names[4:7], names[7:]]
    for split in splits:
        assert in_subsets(split) == names
    assert [len(split.ids("val")) for split in splits] == [1, 1, 1]  # 15 % of 8, 9 and 7
    assert splits[1].statement == (
        "A tests (fold 2 of 3, a source each), validation drawn from the other sources by patient, "
        "seed 3"
    )
    assert draw_split(dataset, "leave-one-source-out", 3, folds=3, fold=2) == splits[1]


def test_within_the_other_sources_patients_and_near_duplicates_stay_whole() -> None:
    """Patients p and q of A and B, near-duplicates of unknown patients; C tests whatever it is."""
    patients = [None, None, "c", "c", "p", "p", "p", *["q"] * 3, None, None]
    dataset = of_three_sources(patients)
    similar = [(10, 11, 0.9), (0, 10, 0.8)]
    for seed in range(8):
        split = draw_split(dataset, "leave-one-source-out", seed, fold=1, similar=similar)
        assert split.ids("test") == tuple(everything(dataset)[:4])
        assert len(patients_in(split, split.ids("val")) & {"p", "q"}) in (0, 1)
        assert ("s10" in split.ids("val")) == ("s11" in split.ids("val"))
        assert [(pair.first, pair.second) for pair in split.similar] == [("s00", "s10")]


def test_a_patient_in_two_sources_is_refused() -> None:
    with pytest.raises(DataError, match=r"leave-one-source-out: 1 patient would .*twice in "):
        draw_split(
            of_three_sources(["twice", *one_each(10), "twice"]), "leave-one-source-out", fold=3
        )


def test_sources_that_cannot_be_left_out() -> None:
    one, three = make_dataset(one_each(9)), of_three_sources()
    for dataset, folds, fold, said in (
        (one, None, 1, "all slices come from hand-made"),
        (three, None, 4, "--fold 4: expected 1 to 3"),
        (three, 2, 1, r"--folds 2: .* each of the 3 sources \(C, A, B\)"),
        (three, None, None, "needs fold"),
    ):
        with pytest.raises(ConfigError, match=said):
            draw_split(dataset, "leave-one-source-out", folds=folds, fold=fold)


@pytest.mark.parametrize("policy", [*RANDOM_POLICIES])
def test_a_training_part_without_lesions_is_refused(policy: SplitPolicy) -> None:
    bare = make_dataset(one_each(9), lesions=[0] * 9)
    with pytest.raises(DataError, match="hand-made: no slice of the training part shows a lesion"):
        draw_split(bare, policy)


@pytest.mark.parametrize(("folds", "fold"), [(3, None), (None, 1), (1, 1), (3, 0), (3, 4)])
def test_folds_that_cannot_be(folds: int | None, fold: int | None) -> None:
    with pytest.raises(ConfigError, match="fold"):
        draw_split(make_dataset(one_each(9)), folds=folds, fold=fold)


@pytest.mark.usefixtures("unchecked_annotations")
def test_a_policy_that_is_none() -> None:
    with pytest.raises(ConfigError, match="split fair: expected one of auto, published"):
        draw_split(make_dataset(one_each(9)), "fair")  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_published_keeps_its_test_part(seed: int) -> None:
    """Of 20 unknown patients in the training part, 15 % are three."""
    subsets: list[Published] = ["test" if i % 3 == 0 else "train" for i in range(30)]
    dataset = make_dataset([None] * 30, subsets)
    split = draw_split(dataset, "published", seed)
    assert list(split.ids("test")) == [f"s{i:02d}" for i in range(0, 30, 3)]
    assert sizes(split) == (17, 3, 10)
    assert in_subsets(split) == everything(dataset)


def test_published_draws_its_validation_by_patient_and_look() -> None:
    dataset = make_dataset([*"aabbccdd", "x"], ["train"] * 8 + ["test"])
    unknown = make_dataset([None] * 9, ["train"] * 8 + ["test"], copies={1: 0})
    alike = [(2, 3, 0.9), (4, 5, 0.9), (6, 7, 0.9)]
    for seed in range(4):
        split = draw_split(dataset, "published", seed)
        assert sizes(split) == (6, 2, 1)
        assert len(patients_in(split, split.ids("val"))) == 1
        split = draw_split(unknown, "published", seed, similar=alike)
        assert split.ids("val") in [("s00", "s01"), ("s02", "s03"), ("s04", "s05"), ("s06", "s07")]


@pytest.mark.parametrize("policy", RANDOM_POLICIES)
def test_the_seed_decides_alone(policy: SplitPolicy) -> None:
    dataset = make_dataset(one_each(30))
    drawn = [draw_split(dataset, policy, seed).ids("test") for seed in range(5)]
    again = [draw_split(make_dataset(one_each(30)), policy, seed).ids("test") for seed in range(5)]
    assert drawn == again
    assert len(set(drawn)) == 5


@pytest.mark.parametrize("policy", RANDOM_POLICIES)
def test_every_slice_can_be_in_any_subset(policy: SplitPolicy) -> None:
    """Over 60 seeds, a fair draw leaves a given one of ten units out with chance 0.9^60 = 2e-3."""
    dataset = make_dataset(one_each(10))
    splits = [draw_split(dataset, policy, seed) for seed in range(60)]
    for subset in ("train", "val", "test"):
        assert {name for split in splits for name in split.ids(subset)} == set(everything(dataset))


def test_subsets_stay_in_the_datasets_order() -> None:
    split = draw_split(make_dataset(one_each(30)), "slice")
    for part in (split.ids("train"), split.ids("val"), split.ids("test")):
        assert list(part) == sorted(part)


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (["train"] * 6 + ["test"] * 2, "published"),
        ([None] * 8, "patient"),
        (["train"] * 4 + ["test"] * 3 + [None], "patient"),
        (["train"] * 8, "patient"),
    ],
)
def test_auto_takes_the_published_split_or_goes_by_patient(
    published: list[Published], expected: SplitPolicy
) -> None:
    dataset = make_dataset(one_each(8), published)
    assert draw_split(dataset).policy == expected
    assert draw_split(dataset) == draw_split(dataset, expected)


@pytest.mark.parametrize(
    ("patients", "published", "policy", "said"),
    [
        (
            ["a", "a", "b"],
            None,
            "patient",
            "in 2 groups that stay whole cannot make 3 parts; more data",
        ),
        (["a"] * 9, None, "patient", "--split patient"),
        (["a", "b"], None, "slice", "--split slice"),
        (["a"], None, "paper", "--split paper"),
        (["a", "b"], ["train", "test"], "published", "--split published: 1 slices in 1 groups"),
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


def test_too_few_groups_say_why_slices_stay_together() -> None:
    """Twelve slices of one scan as pictures: patients.csv settles whose they are."""
    pairs = [(i, i + 1, 0.97) for i in range(11)]
    said = r"12 slices in 1 groups .* cannot make 3 parts; .* look alike .* in patients\.csv"
    with pytest.raises(ConfigError, match=said):
        draw_split(make_dataset([None] * 12), similar=pairs)
    with pytest.raises(ConfigError, match="more data is needed"):
        draw_split(make_dataset(["p"] * 12), similar=pairs)


def test_a_source_whose_folder_is_no_utf_8_can_be_left_out(tmp_path: Path) -> None:
    dataset = make_dataset(one_each(9), sources=["Daten \udcfc"] * 4 + ["B"] * 5)
    drawn = draw_split(dataset, "leave-one-source-out", fold=1)
    drawn.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == drawn
    assert drawn.statement.isascii()


@pytest.mark.parametrize("fold", [1, 9])
def test_refuses_more_folds_than_patients_whichever_is_asked_for(fold: int) -> None:
    with pytest.raises(ConfigError, match="16 slices in 8 groups that stay whole cannot make 9"):
        draw_split(make_dataset(one_each(8) * 2), "patient", folds=9, fold=fold)


# Leaks, planted.


def test_a_patient_on_both_sides_of_the_published_split_is_refused() -> None:
    dataset = make_dataset([*"abcde", *"xyzec"], ["train"] * 5 + ["test"] * 5)
    for policy in ("auto", "published"):
        with pytest.raises(DataError) as caught:
            draw_split(dataset, policy)
        message = str(caught.value)
        assert "--split published: 2 patients" in message
        assert "--split patient, or --split paper" in message
        for patient in "ce":
            assert f"{patient} in " in message
    assert draw_split(dataset, "patient").warnings == ()


def test_a_patient_cut_by_slice_is_refused() -> None:
    with pytest.raises(DataError, match=r"--split slice: 1 patient .*in train and val and test"):
        draw_split(make_dataset(["one"] * 10), "slice")


@pytest.mark.parametrize("seed", range(5))
def test_paper_counts_the_patients_and_pairs_on_both_sides(seed: int) -> None:
    dataset = make_dataset([*"aabbccddeeff", *one_each(6)])
    pairs = [(i, i + 1, 0.95) for i in range(0, 12, 2)]  # the two slices of each of six patients
    split = draw_split(dataset, "paper", seed, similar=pairs)
    shared = len(patients_in(split, split.ids("train")) & patients_in(split, split.ids("test")))
    assert len(split.similar) == shared
    assert shared > 0
    (warning,) = split.warnings
    plural = "s" * (shared > 1)
    assert f"{shared} patient{plural} and {shared} near-duplicate pair{plural} are on" in warning
    (warning,) = draw_split(dataset, "paper", seed).warnings
    assert (
        warning
        == f"{shared} patient{plural} and 0 near-duplicate pairs are on both sides of the split"
    )


@pytest.mark.parametrize("policy", ["published", "slice", "paper"])
def test_a_copied_slice_across_subsets_is_named(policy: SplitPolicy) -> None:
    """The last of 30 slices, in the published test part, has the pixels of the first."""
    dataset = make_dataset([None] * 30, ["train"] * 20 + ["test"] * 10, copies={29: 0})
    for seed in range(20):
        split = draw_split(dataset, policy, seed)
        place = {name: side for side, names in split.sides.items() for name in names}
        if place["s00"] != place["s29"]:
            break
    assert split.similar == (Crossing("s00", "s29", 1.0, place["s00"], place["s29"]),)
    assert "1 near-duplicate pair " in split.warnings[1]
    assert split.warnings[1].endswith(": s00 ~ s29 (1.00)")
    for seed in range(5):
        assert draw_split(dataset, "patient", seed).similar == ()


def test_near_duplicates_across_subsets_are_listed() -> None:
    """The published parts hold neighbours of one another: five pairs, the first three named."""
    dataset = make_dataset([None] * 10, ["train"] * 5 + ["test"] * 5)
    split = draw_split(dataset, similar=[(i, i + 5, 0.91 + 0.01 * i) for i in range(5)])
    assert [pair.correlation for pair in split.similar] == [0.95, 0.94, 0.93, 0.92, 0.91]
    assert (split.similar[0].first, split.similar[0].second) == ("s04", "s09")
    _, warning = split.warnings
    assert warning == (
        "5 near-duplicate pairs in different subsets: "
        "s04 ~ s09 (0.95), s03 ~ s08 (0.94), s02 ~ s07 (0.93), ..."
    )


def test_warns_of_unknown_patients() -> None:
    (warning,) = draw_split(make_dataset([*"abcdef", None, None]), "patient").warnings
    assert warning.startswith("patients of 2 slices are unknown")


# A split given back.


@pytest.mark.parametrize("policy", [*RANDOM_POLICIES, "published"])
def test_a_split_is_taken_from_a_file(tmp_path: Path, policy: SplitPolicy) -> None:
    published: list[Published] = ["train", "train", "test"] * 4
    dataset = make_dataset([None] * 12, published, copies={5: 0})
    drawn = draw_split(dataset, policy, seed=1)
    drawn.save(tmp_path / "split.json")
    taken = use_split(tmp_path / "split.json", dataset)
    assert taken == dataclasses.replace(
        drawn, statement=drawn.statement + " (taken from a split file)"
    )
    taken.save(tmp_path / "again.json")
    assert use_split(tmp_path / "again.json", dataset) == taken


def test_a_file_of_other_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    dataset, other = make_dataset(one_each(9)), make_dataset(one_each(9), lesions=[7] * 9)
    draw_split(dataset).save(path)
    with pytest.raises(RunError) as caught:
        use_split(path, other)
    for said in (str(path), dataset.fingerprint(), other.fingerprint()):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slice": "s99"}, "2 slices"),  # one too many, one missing
        ({"patient": "someone"}, "1 slice "),
        ({"digest": "0"}, "1 slice "),
    ],
)
def test_an_edited_file_must_fit_the_data(
    tmp_path: Path, change: dict[str, str], said: str
) -> None:
    path = tmp_path / "split.json"
    dataset = make_dataset(one_each(9))
    draw_split(dataset).save(path)
    record = json.loads(path.read_text())
    record["test"][0] |= change
    path.write_text(json.dumps(record))
    with pytest.raises(
        RunError, match=f"names other slices, patients or digests than the data: {said}"
    ):
        use_split(path, dataset)


def test_an_edited_file_is_warned_of_what_it_does(tmp_path: Path) -> None:
    """A slice moved by hand from its copy's side to the other."""
    path = tmp_path / "split.json"
    dataset = make_dataset([None] * 9, copies={8: 0})
    draw_split(dataset, "patient").save(path)
    record = json.loads(path.read_text())
    (side,) = (s for s in ("train", "val", "test") if "s08" in {r["slice"] for r in record[s]})
    (row,) = (row for row in record[side] if row["slice"] == "s08")
    record[side].remove(row)
    record["test" if side == "train" else "train"].insert(0, row)
    path.write_text(json.dumps(record))
    split = use_split(path, dataset)
    assert [(pair.first, pair.second) for pair in split.similar] == [("s00", "s08")]
    assert "s00 ~ s08" in split.warnings[1]
    for names in split.sides.values():
        assert list(names) == sorted(names)


def test_the_settings_decide(tmp_path: Path) -> None:
    dataset = make_dataset([None] * 12)
    pairs = [(i, i + 1, 0.97) for i in range(11)]
    config = DataConfig(split="slice", split_seed=7, folds=3, fold=2)
    drawn = draw_split(dataset, "slice", 7, folds=3, fold=2, similar=pairs)
    assert find_split(dataset, config, pairs) == drawn
    drawn.save(tmp_path / "split.json")
    given = DataConfig(split_file=tmp_path / "split.json")
    taken = find_split(dataset, given, pairs)
    assert taken.ids("test") == drawn.ids("test")
    assert taken.similar == drawn.similar != ()


def test_real_patients_stay_whole(real_data: Path) -> None:
    """Volumes 1 and 2 are one study, 5 and 6 one case (the collection's patients.csv)."""
    dataset = open_dataset(real_data / "radiopaedia", 64)
    for fold in (1, 2, 3):
        split = draw_split(dataset, folds=3, fold=fold)
        for names in (split.ids("train"), split.ids("val"), split.ids("test")):
            volumes = {name.split("/")[-1].split(":")[0] for name in names}
            assert ("1" in volumes) == ("2" in volumes)
            assert ("5" in volumes) == ("6" in volumes)
