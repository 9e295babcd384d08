"""Contact sheets: which slices they show, where, and what is outlined."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covid_jax.data import Slice, SliceDataset
from covid_jax.reporting import contact_sheet as module
from covid_jax.reporting.contact_sheet import (
    Tile,
    contact_sheet,
    dataset_sheet,
    volume_sheet,
)
from covid_jax.reporting.drawing import class_colour, to_bytes

CLASSES = ("ground_glass", "effusion")
GROUND = (17, 21, 26)


def make_dataset(count: int, shape: tuple[int, int] = (40, 60)) -> SliceDataset:
    """Slices s00, s01, ...: grey ramps with 6 x 6 pixels of class 1 and 3 x 12 of class 2."""
    slices = []
    for i in range(count):
        image = np.arange(shape[0] * shape[1], dtype=np.int16).reshape(shape) + 7 * i
        mask = np.zeros(shape, np.uint8)
        mask[5:11, 5:11], mask[20:23, 20:32] = 1, 2
        slices.append(Slice(f"s{i:02d}", "ramps", None, None, image, mask))
    return SliceDataset("hand-made", tuple(slices), 16, classes=CLASSES)


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Tile], str]]:
    """The thumbnails and titles of the sheets that are drawn."""
    drawn: list[tuple[list[Tile], str]] = []

    def note(tiles: list[Tile], title: str, classes: tuple[str, ...]) -> Image.Image:
        assert classes == CLASSES
        drawn.append((tiles, title))
        return contact_sheet(tiles, title, classes)

    monkeypatch.setattr(module, "contact_sheet", note)
    return drawn


def outlines(picture: np.ndarray) -> list[np.ndarray]:
    """The pixels in the colour of each class."""
    return [
        np.argwhere((np.abs(picture - np.array(to_bytes(class_colour(k)))) <= 1).all(-1))
        for k in (1, 2)
    ]


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [
        (1, 48, [0]),
        (5, 48, [0, 1, 2, 3, 4]),
        (9, 3, [0, 4, 8]),
        (11, 6, [0, 2, 4, 6, 8, 10]),
        (48, 48, list(range(48))),
    ],
)
def test_a_sheet_shows_slices_spread_evenly(
    tmp_path: Path,
    sheets: list[tuple[list[Tile], str]],
    count: int,
    most: int,
    expected: list[int],
) -> None:
    dataset_sheet(make_dataset(count), tmp_path / "new/folder/sheet.png", most)
    ((tiles, title),) = sheets
    # 72 of 2400 pixels
    assert [label for label, _ in tiles] == [f"s{i:02d}\n40 x 60, lesion 3 %" for i in expected]
    assert title == f"hand-made: {len(expected)} of {count} slices"
    with Image.open(tmp_path / "new/folder/sheet.png") as picture:
        assert picture.format == "PNG"


def test_lesions_are_outlined_on_the_slice_itself(
    tmp_path: Path, sheets: list[tuple[list[Tile], str]]
) -> None:
    """40 x 60 pixels are drawn as 133 x 200: 6 x 6 as 20 x 20, 3 x 12 as 10 x 40."""
    dataset_sheet(make_dataset(1), tmp_path / "sheet.png")
    (((_, picture),), _) = sheets[0]
    assert picture.shape == (133, 200, 3)
    found = outlines(picture)
    for pixels, (top, left, height, width) in zip(
        found, ((17, 17, 20, 20), (67, 67, 10, 40)), strict=True
    ):
        assert len(pixels) == pytest.approx(2 * height + 2 * width - 4, abs=4)
        np.testing.assert_allclose(pixels.min(0), [top, left], atol=1)
        np.testing.assert_allclose(pixels.max(0), [top + height - 1, left + width - 1], atol=1)
    grey = picture.astype(float).std(-1) == 0
    assert grey.sum() == 133 * 200 - sum(map(len, found))
    rows = picture[..., 0].mean(1)  # the ramp rises from row to row
    assert rows[-1] > rows[0] + 200


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((480, 240), (200, 100)), ((100, 300), (67, 200)), ((240, 240), (200, 200))],
)
def test_a_thumbnail_keeps_the_slices_aspect(
    tmp_path: Path,
    sheets: list[tuple[list[Tile], str]],
    shape: tuple[int, int],
    expected: tuple[int, int],
) -> None:
    dataset_sheet(make_dataset(1, shape), tmp_path / "sheet.png")
    (((_, picture),), _) = sheets[0]
    assert picture.shape == (*expected, 3)


def test_a_volume_shows_where_the_lesion_is(sheets: list[tuple[list[Tile], str]]) -> None:
    """Of every other of eight slices; the window is the scan's, not the slice's."""
    stack = np.full((8, 10, 20), 50, np.int16)
    masks = np.zeros(stack.shape, np.uint8)
    masks[4:, 2:4, 5:10] = 2  # 10 of 200 pixels
    volume_sheet(stack, masks, (0.0, 100.0), "a.nii", CLASSES, most=3)
    ((tiles, title),) = sheets
    assert [label for label, _ in tiles] == ["0: none", "4: 5 %", "7: 5 %"]
    assert title == "a.nii: 3 of 8 slices"
    for (_, picture), marked in zip(tiles, (False, True, True), strict=True):
        assert picture[0, 0].tolist() == [127] * 3
        assert [len(pixels) > 0 for pixels in outlines(picture)] == [False, marked]


def test_thumbnails_stand_in_rows_of_six() -> None:
    """Of eight the last two are in the second row; names of any length and script are written."""
    picture = np.full((200, 200, 3), 255, np.uint8)
    labels = ["short", "long " * 40, "no utf-8 \udce9", "字", "$1_$2", "", "g", "h"]
    tiles = [(label, picture) for label in labels]
    sheet = np.asarray(contact_sheet(tiles, "title \udce9", CLASSES))
    white = (sheet == 255).all(-1)
    columns, rows = white.sum(0), white.sum(1)
    assert np.isin([0, 200, 400], columns).all()  # none, one, and two thumbnails above each other
    assert (columns == 400).sum() == 2 * 200
    assert (columns == 200).sum() == 4 * 200
    assert (rows == 1200).sum() == (rows == 400).sum() == 200
    assert tuple(sheet[-1, -1]) == GROUND
