"""slices.csv and masks.npz: what was judged comes back, and what is broken is said to be."""

import csv
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from covid_jax.data import SliceDataset
from covid_jax.errors import RunError
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.evaluation.slice_table import load_masks, read_rows, save_masks, write_rows
from tests.support.scored import by_hand, maps_for, random_slices, score_all

ODD = ['a,"b"', "two\nlines", "'ü/1.nii", "=no utf-8 \udce9"]


def number(text: str) -> float:
    """Of a cell; NaN of an empty one."""
    return float(text or "nan")


@pytest.fixture(scope="module")
def scores() -> list[SliceScores]:
    """Of odd names; the second one's patient is unknown, the third's spacing known."""
    dataset = random_slices(["p", None, 'q"', "p"], [None, None, (2.0, 3.0), None])
    slices = [dataclasses.replace(i, id=n) for i, n in zip(dataset.slices, ODD, strict=True)]
    return score_all(SliceDataset("odd", tuple(slices), 12))


@pytest.fixture
def table(scores: list[SliceScores], tmp_path: Path) -> Path:
    write_rows(tmp_path / "slices.csv", scores)
    return tmp_path / "slices.csv"


@pytest.fixture
def masks(scores: list[SliceScores], tmp_path: Path) -> Path:
    save_masks(tmp_path / "masks.npz", scores)
    return tmp_path / "masks.npz"


def test_every_slice_has_a_row_with_its_own_numbers(scores: list[SliceScores], table: Path) -> None:
    rows = read_rows(table)
    assert [row["slice"] for row in rows] == ODD
    assert [row["patient"] for row in rows] == ["p", "unknown", 'q"', "p"]
    for row, one in zip(rows, scores, strict=True):
        found, there = one.prediction > 0, one.truth > 0
        for name, value in by_hand(found, there).items():
            assert number(row[name]) == pytest.approx(value, abs=1e-6)
        sizes = {"lesion_pixels": there, "predicted_pixels": found, "tp": found & there}
        sizes |= {"fp": found & ~there, "fn": there & ~found, "tn": ~found & ~there}
        assert {name: int(row[name]) for name in sizes} == {k: v.sum() for k, v in sizes.items()}
        assert (int(row["height"]), int(row["width"])) == found.shape
        assert number(row["dice_at_network_size"]) == number(row["dice"])  # one grid, one threshold
        assert number(row["assd_px"]) == pytest.approx(one.lesion.surface["px"].assd, abs=1e-6)
        assert number(row["brier"]) == pytest.approx(one.calibration.brier, abs=1e-6)
        mean = one.semiseg.dice.mean()
        assert number(row["covid_semiseg_dice"]) == pytest.approx(mean, abs=1e-6)


def test_no_name_is_a_formula_to_a_spreadsheet(table: Path) -> None:
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        names = [row["slice"] for row in csv.DictReader(file)]
    assert names == [*ODD[:2], f"'{ODD[2]}", f"'{ODD[3]}"]


def test_what_a_slice_does_not_have_is_an_empty_cell(table: Path) -> None:
    rows = read_rows(table)
    assert [row["hd95_mm"] != "" for row in rows] == [False, False, True, False]
    assert math.isnan(number(rows[0]["hd95_mm"]))


def test_lesions_are_counted_by_hand(tmp_path: Path) -> None:
    """Three lesions, one touched by the prediction, and a false one of two pixels."""
    truth = np.zeros((12, 12), np.uint8)
    truth[0, 0] = truth[5:7, 5:7] = truth[11, :4] = 1
    found = np.zeros((12, 12, 1), np.float32)
    found[6, 6] = found[2, 9:11] = 1
    item = dataclasses.replace(random_slices(["p"]).slices[0], mask=truth)
    write_rows(tmp_path / "t.csv", score_all(SliceDataset("hand", (item,), 12), [found]))
    (row,) = read_rows(tmp_path / "t.csv")
    assert (row["lesions"], row["lesions_found"], row["false_lesions"]) == ("3", "1", "1")


def test_an_undefined_value_is_nan(tmp_path: Path) -> None:
    item = random_slices(["p"]).slices[0]
    clean = dataclasses.replace(item, mask=np.zeros_like(item.mask))
    write_rows(tmp_path / "t.csv", score_all(SliceDataset("clean", (clean,), 12)))
    (row,) = read_rows(tmp_path / "t.csv")
    assert math.isnan(number(row["sensitivity"]))
    assert number(row["dice"]) == 0.0


def test_classes_have_columns_of_their_own(tmp_path: Path) -> None:
    dataset = random_slices(["p"], classes=2, targets=("b", "a"))
    (map_,) = maps_for(dataset)
    write_rows(tmp_path / "t.csv", score_all(dataset, [map_]))
    (row,) = read_rows(tmp_path / "t.csv")
    assert [name for name in row if name.startswith("dice_")][1:] == ["dice_b", "dice_a"]
    expected = by_hand(map_.argmax(-1) == 1, dataset.slices[0].mask == 2)["dice"]
    assert number(row["dice_b"]) == pytest.approx(expected, abs=1e-6)


def test_any_spreadsheet_reads_it(table: Path) -> None:
    """Plain UTF-8, but for bytes of names that are none."""
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 5
    assert {len(cells) for cells in rows} == {len(rows[0])}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data.splitlines(keepends=True)[0],
        lambda data: data[:-200],
        lambda data: data.replace(b"dice,", b"rice,", 1),
        lambda data: data.replace(b"slice,", b"s,", 1),
        lambda data: data[: len(data) // 2] + b",1,2,3,4\n" + data[len(data) // 2 :],
        lambda data: data.replace(b"0.", b"O.", 1),
        lambda data: bytes(range(256)) * 4,
    ],
)
def test_a_table_that_is_none_is_named(table: Path, spoil: Callable[[bytes], bytes]) -> None:
    table.write_bytes(spoil(table.read_bytes()))
    with pytest.raises(RunError, match=r"slices\.csv: no usable table .*; score the run again"):
        read_rows(table)


def test_masks_come_back_in_their_order(scores: list[SliceScores], masks: Path) -> None:
    found = load_masks(masks)
    assert len(found) == 4
    for mask, one in zip(found, scores, strict=True):
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, one.prediction)


def test_more_masks_than_ten_keep_their_order(tmp_path: Path) -> None:
    scores = score_all(random_slices(["p"] * 12))
    save_masks(tmp_path / "masks.npz", scores)
    for mask, one in zip(load_masks(tmp_path / "masks.npz"), scores, strict=True):
        np.testing.assert_array_equal(mask, one.prediction)


def test_masks_cut_short_anywhere_are_named(masks: Path) -> None:
    whole = masks.read_bytes()
    for end in range(0, len(whole), 31):
        masks.write_bytes(whole[:end])
        with pytest.raises(RunError, match=r"masks\.npz: no usable masks .*; score the run again"):
            load_masks(masks)


def test_a_flipped_bit_in_masks_is_named_or_harmless(
    scores: list[SliceScores], masks: Path
) -> None:
    """Zip keeps a checksum of each mask; some other bytes mean nothing."""
    whole = masks.read_bytes()
    refused = 0
    for place in range(0, len(whole), 3):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << place % 8
        masks.write_bytes(spoilt)
        try:
            found = load_masks(masks)
        except RunError:
            refused += 1
        else:
            for mask, one in zip(found, scores, strict=False):
                np.testing.assert_array_equal(mask, one.prediction)
    assert refused > len(whole) / 6


def test_masks_that_are_missing_or_something_else_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "other.npz", truth=np.zeros(3))
    (tmp_path / "text").write_text("no masks")
    for name in ("nowhere", "one.npy", "other.npz", "text", "."):
        with pytest.raises(RunError, match="no usable masks"):
            load_masks(tmp_path / name)
