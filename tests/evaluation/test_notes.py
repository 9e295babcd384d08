"""What must be said beside a score, and near-duplicates of training slices kept apart."""

import dataclasses

import numpy as np
import pytest

from covid_jax.data import SliceDataset
from covid_jax.evaluation.evaluate import near_trained, notes
from covid_jax.evaluation.summary import near_duplicates
from covid_jax.splits.leakage import Crossing
from covid_jax.splits.split import Split, SplitSlice
from tests.support.scored import by_hand, random_slices, score_all

PATIENTS = list("abcdef")


def split_of(dataset: SliceDataset, *similar: Crossing) -> Split:
    """s0 to s2 train, s3 validates, s4 and s5 test."""
    rows = tuple(SplitSlice(item.id, item.patient, item.digest) for item in dataset.slices)
    return Split(
        "slice",
        train=rows[:3],
        val=rows[3:4],
        test=rows[4:],
        statement="by hand",
        fingerprint=dataset.fingerprint(),
        warnings=("a leak",),
        similar=similar,
    )


DATASET = random_slices(PATIENTS)
TRAINED = Crossing("s1", "s4", 0.9, "train", "test")
TURNED = Crossing("s4", "s1", 0.9, "test", "train")
VALIDATED = Crossing("s3", "s5", 0.9, "val", "test")


@pytest.mark.parametrize(
    ("similar", "expected"),
    [
        ((), {}),
        ((TRAINED,), {"s4": "s1"}),
        ((TURNED,), {"s4": "s1"}),
        ((VALIDATED,), {}),
        ((Crossing("s0", "s3", 1.0, "train", "val"), TURNED), {"s3": "s0", "s4": "s1"}),
    ],
)
def test_only_what_resembles_a_training_slice_is_set_apart(
    similar: tuple[Crossing, ...], expected: dict[str, str]
) -> None:
    assert near_trained(split_of(DATASET, *similar)) == expected


def own_dice(name: str) -> float:
    (one,) = (one for one in score_all(DATASET) if one.item.id == name)
    return by_hand(one.prediction > 0, one.truth > 0)["dice"]


def test_near_duplicates_and_the_rest_have_means_of_their_own() -> None:
    scores = score_all(DATASET)[3:]
    found = near_duplicates(scores, near_trained(split_of(DATASET, TURNED, VALIDATED)))
    assert found is not None
    assert found["slices"] == ["s4"]
    assert found["among_them"]["dice"]["mean"] == pytest.approx(own_dice("s4"))
    rest = np.mean([own_dice("s3"), own_dice("s5")])
    assert found["without_them"]["dice"]["mean"] == pytest.approx(rest)
    assert found["without_them"]["dice"]["slices"] == 2


def test_without_near_duplicates_nothing_is_set_apart() -> None:
    assert (
        near_duplicates(score_all(DATASET)[4:], near_trained(split_of(DATASET, VALIDATED))) is None
    )


def test_where_all_are_near_duplicates_nothing_is_left() -> None:
    both = TURNED, Crossing("s2", "s5", 0.8, "train", "test")
    found = near_duplicates(score_all(DATASET)[4:], near_trained(split_of(DATASET, *both)))
    assert found is not None
    assert found["without_them"] is None
    assert found["among_them"]["dice"]["slices"] == 2


@pytest.mark.parametrize(
    ("subset", "words"),
    [
        ("test", None),
        ("val", "weights were chosen by these slices"),
        ("train", "was trained on slices in this subset"),
        ("all", "was trained on slices in this subset"),
    ],
)
def test_a_subset_that_is_no_test_is_called_so(subset: str, words: str | None) -> None:
    found = notes(DATASET, split_of(DATASET), subset)
    assert [note for note in found if "no test of it" in note] == [
        note for note in found if words and words in note
    ]
    assert any("no test of it" in note for note in found) == (words is not None)


def test_data_without_clean_slices_says_what_is_not_measured() -> None:
    clean = dataclasses.replace(DATASET.slices[0], mask=np.zeros_like(DATASET.slices[0].mask))
    with_clean = SliceDataset("some", (clean, *DATASET.slices[1:]), 12, notes=("as opened",))
    split = split_of(DATASET)
    assert notes(DATASET, split, "test") == [
        "every slice evaluated shows a lesion: false alarms on others are not measured"
    ]
    assert notes(with_clean, split, "test") == ["as opened"]


def test_a_lesion_of_another_class_is_none() -> None:
    """Each slice shows classes a and b; without a, those asked for a alone show no lesion."""
    data = random_slices(PATIENTS, classes=2, targets=("a",))
    assert any("every slice evaluated shows a lesion" in note for note in notes(data, None))
    other = dataclasses.replace(data.slices[0], mask=np.uint8(2) * (data.slices[0].mask == 2))
    mixed = dataclasses.replace(data, slices=(other, *data.slices[1:]))
    assert not any("shows a lesion" in note for note in notes(mixed, None))


def test_other_data_is_named_and_searched_for_slices_that_trained() -> None:
    """s0 trained and s3 validated, under other names; s4 only tested."""
    seen = [dataclasses.replace(DATASET.slices[i], id=f"new{i}") for i in (0, 3, 4)]
    found = notes(SliceDataset("new", tuple(seen), 12), split_of(DATASET), "all", "blobs")
    assert "data the run was not trained on (blobs)" in found
    (known,) = (note for note in found if "pixel for pixel" in note)
    assert known.startswith("2 of these slices")
    assert "(new0, new3)" in known
    assert not any("no test of it" in note for note in found)
    strangers = notes(SliceDataset("new", (seen[2],), 12), split_of(DATASET), "all", "")
    assert not any("pixel for pixel" in note for note in strangers)
