"""split.json there and back, and what a damaged or hand-edited one is told."""

import contextlib
import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covid_jax.errors import RunError
from covid_jax.splits.leakage import Crossing
from covid_jax.splits.split import Split, SplitSlice
from tests.support.hand_made import make_dataset

PATIENTS = {"s00": "a", "s01": "b", "s02": None, "s03": "a", "s04": "c"}


def make_split(**changes: Any) -> Split:
    """Five slices: two train, one validates, two test."""
    dataset = make_dataset(list(PATIENTS.values()))
    rows = [SplitSlice(item.id, item.patient, item.digest) for item in dataset.slices]
    fields = {
        "policy": "patient",
        "train": (rows[0], rows[3]),
        "val": (rows[1],),
        "test": (rows[2], rows[4]),
        "statement": "by hand",
        "fingerprint": dataset.fingerprint(),
        "warnings": ("patients of 1 slices are unknown",),
        "similar": (Crossing("s00", "s02", 0.96, "train", "test"),),
    }
    return Split(**(fields | changes))


def record(folder: Path, **changes: Any) -> dict[str, Any]:
    """What split.json holds."""
    make_split(**changes).save(folder / "split.json")
    return json.loads((folder / "split.json").read_text())


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with (
        mock.patch("covid_jax.files.os.open", full),
        pytest.raises(RunError, match=r"split\.json: cannot be written \(No space left on device"),
    ):
        make_split().save(tmp_path / "split.json")


def load(folder: Path, data: object) -> Split:
    (folder / "split.json").write_text(json.dumps(data))
    return Split.load(folder / "split.json")


@pytest.mark.parametrize(
    "changes", [{}, {"policy": "paper", "val": make_split().test, "similar": ()}]
)
def test_saved_and_loaded(tmp_path: Path, changes: dict[str, Any]) -> None:
    split = make_split(**changes)
    split.save(tmp_path / "split.json")
    assert Split.load(tmp_path / "split.json") == split
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]


def test_what_a_reader_finds(tmp_path: Path) -> None:
    found = record(tmp_path)
    digest = make_dataset(list(PATIENTS.values())).slices[1].digest
    assert found["val"] == [{"slice": "s01", "patient": "b", "digest": digest}]
    assert [row["slice"] for row in found["test"]] == ["s02", "s04"]
    assert found["test"][0]["patient"] is None
    assert found["policy"] == "patient"
    assert found["similar"] == [
        {
            "first": "s00",
            "second": "s02",
            "correlation": 0.96,
            "first_subset": "train",
            "second_subset": "test",
        }
    ]


def test_indices_are_positions_in_the_dataset() -> None:
    dataset = make_dataset(list(PATIENTS.values()))
    split = make_split()
    assert split.indices(dataset, "train") == [0, 3]
    assert split.indices(dataset, "val") == [1]
    assert split.indices(dataset, "test") == [2, 4]
    assert split.indices(dataset, "all") == [0, 1, 2, 3, 4]
    assert split.indices(dataset.select([4, 3, 2, 1, 0]), "train") == [4, 1]
    with pytest.raises(RunError, match=r"lacks 2 slices .* train .*s00, s03"):
        split.indices(dataset.select([1, 2, 4]), "train")


def test_sides() -> None:
    assert list(make_split().sides) == ["train", "val", "test"]
    assert list(make_split(policy="paper").sides) == ["train", "test"]


def test_slices_it_was_trained_on_are_known_by_their_pixels() -> None:
    """Other data, other names: its third and fifth slice are our s03 (train) and s01 (val)."""
    split = make_split()
    others = make_dataset([None] * 6, copies={0: 90, 1: 91, 2: 3, 3: 4, 4: 1, 5: 95})
    assert split.trained_on(others) == ["s02", "s04"]
    own = make_dataset(list(PATIENTS.values()))
    assert split.trained_on(own) == ["s00", "s01", "s03"]
    black = dataclasses.replace(own.slices[0], image=np.zeros((4, 4), np.int16))
    split = make_split(train=(SplitSlice("s00", "a", black.digest),))
    assert split.trained_on(dataclasses.replace(own, slices=(black,))) == []


ROW = {"slice": "s01", "patient": "b", "digest": "0"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"policy": "auto"}, "policy auto: expected one of published, patient, leave-one"),
        ({"policy": ["patient"]}, "policy ['patient']: expected one of published"),
        ({"statement": 3}, "statement 3: expected text"),
        ({"statement": "\ud800"}, "surrogates not allowed"),
        ({"warnings": ["\x1b[2J"]}, "warnings: not printable"),
        ({"warnings": [3]}, "warnings[0] 3: expected text"),
        ({"fingerprint": None}, "fingerprint None: expected text"),
        ({"train": []}, "train is empty"),
        ({"train": {}}, "train {}: expected a list"),
        ({"train": ["s00"]}, "train[0]: expected the fields slice, patient, digest, found 's00'"),
        (
            {"train": [{"slice": "s00", "patient": 3, "digest": ""}]},
            "train[0].patient 3: expected text or null",
        ),
        ({"train": [{"slice": "s00", "patient": "a"}]}, "train[0].digest: missing"),
        ({"test": [ROW]}, "slice 's01' is in val and in test"),
        ({"similar": [{}]}, "similar[0].first: missing"),
        ({"similar": 1}, "similar 1: expected a list"),
    ],
)
def test_a_damaged_field_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    data = record(tmp_path) | changes
    with pytest.raises(RunError) as caught:
        load(tmp_path, data)
    assert str(tmp_path / "split.json") in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("similar", "said"),
    [
        ({"correlation": float("nan")}, "NaN is not a finite number"),
        ({"correlation": True}, "correlation True: expected a number"),
        ({"correlation": 1.5}, "correlation 1.5: expected -1 to 1"),
        ({"first_subset": "val"}, "'s00' and 's02' are not in val and test"),
        ({"second": "s09"}, "'s00' and 's09' are not in"),
        ({"second_subset": "all"}, "second_subset all: expected one of train, val, test"),
    ],
)
def test_a_damaged_pair_is_named(tmp_path: Path, similar: dict[str, Any], said: str) -> None:
    data = record(tmp_path)
    data["similar"][0] |= similar
    with pytest.raises(RunError, match=said):
        load(tmp_path, data)


def test_a_slice_in_two_subsets_is_refused(tmp_path: Path) -> None:
    data = record(tmp_path)
    data["test"].append(data["train"][0])
    with pytest.raises(RunError, match="slice 's00' is in train and in test"):
        load(tmp_path, data)
    data = record(tmp_path)
    data["train"].append(data["train"][0])
    with pytest.raises(RunError, match="slice 's00' is in train and in train"):
        load(tmp_path, data)


def test_a_patient_in_two_subsets_is_refused_but_under_paper(tmp_path: Path) -> None:
    data = record(tmp_path, similar=())
    data["test"].append(data["train"].pop())  # s03 and s00 are patient a's
    with pytest.raises(RunError, match=r"1 patient in several subsets: a"):
        load(tmp_path, data)
    data |= {"policy": "paper", "val": data["test"]}
    assert load(tmp_path, data).ids("test") == ("s02", "s04", "s03")
    with pytest.raises(RunError, match="val and test must be the same"):
        load(tmp_path, data | {"val": data["test"][:1]})


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", '{"policy": "slice"}', "[" * 100000])
def test_what_is_no_split_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "split.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RunError) as caught:
        Split.load(path)
    assert str(path) in str(caught.value)


def test_a_folder_or_other_bytes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "split.json"):
        with pytest.raises(RunError, match=str(path)):
            Split.load(path)


texts = st.text(st.characters())  # halves of surrogate pairs among them
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)


def places(data: Any, path: tuple = ()) -> list[tuple]:
    """The way to every value inside."""
    inner = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    return [path] * bool(path) + [
        way for key, value in inner for way in places(value, (*path, key))
    ]


@given(data=st.data())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_fuzzed(tmp_path: Path, data: st.DataObject) -> None:
    """Values replaced, moved, left out, bytes cut: a RunError by name, or a split that is whole."""
    changed = record(tmp_path)
    for _ in range(data.draw(st.integers(0, 2))):
        *way, last = data.draw(st.sampled_from(places(changed)))
        holder = changed
        for key in way:
            holder = holder[key]
        what = data.draw(st.sampled_from(["replace", "move", "remove"]))
        if what == "remove":
            del holder[last]
        elif what == "move":
            other = data.draw(st.sampled_from(places(changed)))
            value: Any = changed
            for key in other:
                value = value[key]
            holder[last] = copy.deepcopy(value)
        else:
            holder[last] = data.draw(anything)
    path = tmp_path / "split.json"
    path.write_text(json.dumps(changed))
    if data.draw(st.booleans()):
        content = path.read_bytes()
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    split = None
    with contextlib.suppress(RunError):
        split = Split.load(path)
    if split is None:
        with pytest.raises(RunError, match=re.escape(str(path))) as caught:
            Split.load(path)
        str(caught.value).encode()  # can be printed
        return
    "".join(split.warnings).encode()
    names = [name for side in split.sides.values() for name in side]
    assert len(set(names)) == len(names)
    assert set(split.patients) == set(names)
    split.save(path)
    assert Split.load(path) == split
