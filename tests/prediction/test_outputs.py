"""What is written of a scan: masks, probabilities, agreement, pictures, numbers."""

import csv
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from covid_jax.errors import DataError
from covid_jax.prediction.pipeline import agreement, clean, entropy
from covid_jax.prediction.summary import _count_lesions
from covid_jax.reporting.drawing import class_colour
from tests.support.bright_runs import BrightRun, KindsRun, LeftRun, predicted, read_picture
from tests.support.synthetic import SIZE, write_nifti

# Rows of a 32 x 32 slice: a ring of 6 x 6 with a hole of 2 x 2, a speck, and two pixels that touch
# by a corner.
DRAWN = np.zeros((SIZE, SIZE), bool)
DRAWN[4:10, 4:10] = True
DRAWN[6:8, 6:8] = False
DRAWN[20, 20] = DRAWN[25, 10] = DRAWN[26, 11] = True
RING, HOLE = 32, 4


def write_drawing(path: Path, mask: np.ndarray = DRAWN) -> np.ndarray:
    """Grey 200 where the mask is, else 100 but for one black and one white pixel."""
    image = np.where(mask, 200, 100).astype(np.uint8)
    image[0, 0], image[0, 1] = 0, 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return image


def numbers(out: Path, name: str) -> dict:
    return json.loads((out / f"{name}_summary.json").read_text())


def test_a_pictures_mask_is_black_and_white_and_its_probability_has_16_bits(tmp_path: Path) -> None:
    image = write_drawing(tmp_path / "a.png")
    predicted(BrightRun(), tmp_path / "a.png", tmp_path / "out", probabilities=True)
    mask, soft = (
        read_picture(tmp_path / "out" / f"a_{name}.png") for name in ("mask", "probability")
    )
    np.testing.assert_array_equal(mask, np.where(image > 127.5, 255, 0))
    assert (mask.dtype, soft.dtype) == (np.uint8, np.uint16)
    np.testing.assert_allclose(soft, image * 257.0, atol=1)


def test_several_classes_are_positions_in_a_palette(tmp_path: Path) -> None:
    """0.8 - 0.7 b against 0.2 and 0.7 b: background below b = 4/7, consolidation above."""
    image = write_drawing(tmp_path / "a.png")
    predicted(KindsRun(), tmp_path / "a.png", tmp_path / "out", probabilities=True)
    with Image.open(tmp_path / "out" / "a_mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask), np.where(image / 255 > 4 / 7, 2, 0))
        assert mask.convert("RGB").getpixel((4, 4)) == tuple(
            round(255 * part) for part in class_colour(2)
        )
    soft = {
        name: read_picture(tmp_path / "out" / f"a_probability{name}.png") / 65535
        for name in ("", "_ground_glass", "_consolidation")
    }
    bright = image / 255
    np.testing.assert_allclose(soft["_ground_glass"], 0.2, atol=1e-4)
    np.testing.assert_allclose(soft["_consolidation"], 0.7 * bright, atol=1e-4)
    np.testing.assert_allclose(soft[""], 0.2 + 0.7 * bright, atol=1e-4)
    summary = numbers(tmp_path / "out", "a")
    assert summary["classes"]["consolidation"]["voxels"] == summary["lesion_voxels"] > 0
    assert summary["classes"]["ground_glass"] == {"voxels": 0, "ml": None}


def test_flips_that_disagree_are_averaged_and_counted(tmp_path: Path) -> None:
    """Two of four flips mark each half with 0.9: 0.45 on average, no lesion, half of them agree."""
    write_drawing(tmp_path / "a.png")
    run = LeftRun()
    predicted(run, tmp_path / "a.png", tmp_path / "out", tta=True, probabilities=True)
    soft, agreed = (
        read_picture(tmp_path / "out" / f"a_{name}.png") / 65535
        for name in ("probability", "agreement")
    )
    np.testing.assert_allclose(soft, 0.45, atol=1e-4)
    np.testing.assert_allclose(agreed, 0.5, atol=1e-4)
    assert not read_picture(tmp_path / "out" / "a_mask.png").any()
    assert numbers(tmp_path / "out", "a")["agreement"] == 0.5
    assert run.batches == [(1, 1)] * 4


def test_flips_of_a_network_that_does_not_mind_change_nothing(tmp_path: Path) -> None:
    image = write_drawing(tmp_path / "a.png")
    predicted(BrightRun(), tmp_path / "a.png", tmp_path / "out", tta=True, probabilities=True)
    np.testing.assert_array_equal(read_picture(tmp_path / "out" / "a_mask.png") > 0, image > 127)
    np.testing.assert_allclose(
        read_picture(tmp_path / "out" / "a_probability.png"), image * 257.0, atol=1
    )
    assert (read_picture(tmp_path / "out" / "a_agreement.png") == 65535).all()


def test_agreement_is_with_the_decision_of_the_average() -> None:
    views = np.array([[0.6, 0.4], [0.6, 0.1], [0.9, 0.9], [0.1, 0.2]], np.float32)
    views = views.reshape(4, 1, 2, 1)
    decision = np.array([[1, 0]], np.uint8)  # means 0.55 and 0.4
    np.testing.assert_array_equal(agreement(views, decision, 0.5), [[0.75, 0.75]])


@pytest.mark.parametrize(
    ("min_pixels", "fill", "expected"),
    [
        (0, False, RING + 3),
        (1, False, RING + 3),
        (2, False, RING + 2),  # the two that touch by a corner are one lesion
        (3, False, RING),
        (33, False, 0),
        (33, True, RING + HOLE),  # filled before it is measured
        (0, True, RING + HOLE + 3),
    ],
)
def test_small_lesions_go_and_holes_are_filled(min_pixels: int, fill: bool, expected: int) -> None:
    scores = DRAWN[..., None].astype(np.float32)
    ids = clean(DRAWN.astype(np.uint8), scores, np.ones(DRAWN.shape, bool), min_pixels, fill)
    assert ids.dtype == np.uint8
    assert np.count_nonzero(ids) == expected


def test_a_hole_gets_its_most_probable_class() -> None:
    scores = np.zeros((SIZE, SIZE, 3), np.float32)
    scores[..., 0], scores[..., 2] = 0.9, 0.06
    scores[6, 6, 1] = 0.08
    ids = clean(2 * DRAWN.astype(np.uint8), scores, np.ones(DRAWN.shape, bool), 0, True)
    assert ids[6:8, 6:8].tolist() == [[1, 2], [2, 2]]


def test_what_the_lungs_cut_off_is_small_too() -> None:
    """A lesion of 4 x 4 pixels, of which two rows are inside: 8 pixels."""
    ids, inside = np.zeros((SIZE, SIZE), np.uint8), np.zeros((SIZE, SIZE), bool)
    ids[4:8, 4:8], inside[6:] = 1, True
    scores = ids[..., None].astype(np.float32)
    assert np.count_nonzero(clean(ids, scores, inside, 8, fill_holes=False)) == 8
    assert not clean(ids, scores, inside, 9, fill_holes=False).any()


def test_the_least_area_is_in_mm2_where_the_spacing_is_known(tmp_path: Path) -> None:
    """Pixels of 0.5 x 2 mm are 1 mm2; of 1 x 2 mm, 2 mm2: the pair of pixels has 2, then 4."""
    stack = np.where(DRAWN, 0, -900).astype(np.int16)[None].repeat(2, 0)
    for name, width in (("fine", 0.5), ("coarse", 1.0)):
        write_nifti(tmp_path / f"{name}.nii.gz", stack, np.diag([-width, -2.0, 5.0, 1.0]))
    write_nifti(tmp_path / "nowhere.nii.gz", stack, None)
    predicted(BrightRun(), tmp_path, tmp_path / "out", min_area=3.0)
    found = {name: numbers(tmp_path / "out", name) for name in ("fine", "coarse", "nowhere")}
    assert {name: one["min_area_unit"] for name, one in found.items()} == {
        "fine": "mm2",
        "coarse": "mm2",
        "nowhere": "px",
    }
    counts = {name: one["lesion_voxels"] for name, one in found.items()}
    assert counts == {"fine": 2 * RING, "coarse": 2 * (RING + 2), "nowhere": 2 * RING}


def test_numbers_of_a_volume_by_hand(tmp_path: Path) -> None:
    """0.5 x 2 x 5 mm: 5 mm3 a voxel. Of three slices one is dark, and the lung is the upper left
    quarter of each."""
    stack = np.full((3, SIZE, SIZE), -900, np.int16)
    stack[:2][:, DRAWN] = 0
    stack[2, 31, 31] = -899  # the brightest of the third slice
    affine = np.diag([-0.5, -2.0, 5.0, 1.0])
    write_nifti(tmp_path / "scans" / "a.nii.gz", stack, affine)
    lung = np.zeros(stack.shape, np.uint8)
    lung[:, :16, :16] = 2  # left and right lung have labels of their own in some masks
    write_nifti(tmp_path / "lungs" / "a.nii.gz", lung, affine)
    out = tmp_path / "out"
    predicted(BrightRun(), tmp_path / "scans", out, lungs=tmp_path / "lungs", tta=True)
    summary = numbers(out, "a")
    lesion = 2 * (RING + 3) + 1
    assert summary["lesion_voxels"] == lesion
    assert summary["lesion_ml"] == pytest.approx(lesion * 5 / 1000)
    assert summary["spacing_mm"] == pytest.approx([5.0, 2.0, 0.5])
    assert summary["slices_with_lesion"] == 3
    assert summary["lung_voxels"] == 3 * 256
    assert summary["share_of_lung"] == pytest.approx(2 * RING / (3 * 256))
    assert summary["lesion_outside_lung_voxels"] == 2 * 3 + 1
    assert summary["probability"] == pytest.approx(lesion / stack.size, rel=1e-3)
    assert summary["probability_in_lesion"] == pytest.approx(1, abs=1e-4)
    assert summary["entropy"] == pytest.approx(0, abs=1e-4)  # nothing but 0 and 1
    assert summary["agreement"] == 1
    assert "Research use only" in summary["notice"]
    with (out / "summary.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["name"], row["lesion_voxels"]) == ("a", str(lesion))
    assert float(row["lesion_ml"]) == pytest.approx(0.355)
    assert "Research use only" in row["notice"]
    with (out / "slices.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["lesion_pixels"] for row in rows] == [str(RING + 3), str(RING + 3), "1"]
    assert [row["lung_pixels"] for row in rows] == ["256"] * 3


def test_entropy_is_in_bits() -> None:
    """One class: 1 bit at a half, 0.8113 at a quarter. Three classes: log2(3) at a third each."""
    one = np.array([0.0, 0.5, 0.25, 1.0], np.float32).reshape(1, 4, 1)
    np.testing.assert_allclose(entropy(one), [[0, 1, 0.811278, 0]], atol=1e-6)
    three = np.full((1, 1, 3), 1 / 3, np.float32)
    np.testing.assert_allclose(entropy(three), np.log2(3), rtol=1e-6)


def test_a_volume_is_drawn_slice_by_slice_and_on_a_sheet(tmp_path: Path) -> None:
    """Slices 20 to 39 show a lesion; 0 to 19, all of one grey, none."""
    stack = np.where(DRAWN, 0, -900).astype(np.int16)[None].repeat(40, 0)
    stack[:20] = -900
    write_nifti(tmp_path / "a.nii.gz", stack)
    write_drawing(tmp_path / "b.png")
    predicted(BrightRun(), tmp_path, tmp_path / "out", overlay=True)
    drawn = sorted((tmp_path / "out" / "a_overlay").iterdir())
    assert [path.name for path in drawn][::39] == ["slice_000.png", "slice_039.png"]
    assert read_picture(drawn[7]).shape == (SIZE, SIZE, 3)
    sheet = read_picture(tmp_path / "out" / "a_overlay.png")
    colour = (np.array(class_colour(1)) * 255).astype(np.uint8)
    pink = (sheet == colour).all(-1)
    assert sheet.shape[:2] == (50 + 6 * 225 + 25, 6 * 208 + 8)  # 36 of 40 slices, enlarged
    cells = [
        pink[50 + 225 * y : 275 + 225 * y, 8 + 208 * x : 216 + 208 * x].any()
        for y in range(6)
        for x in range(6)
    ]
    assert cells == [False] * 18 + [True] * 18
    assert read_picture(tmp_path / "out" / "b_overlay.png").shape == (SIZE, SIZE, 3)
    assert not (tmp_path / "out" / "b_overlay").exists()


def test_a_picture_that_cannot_be_written_whole_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_drawing(tmp_path / "a.png")
    predicted(BrightRun(), tmp_path / "a.png", tmp_path / "out")
    before = (tmp_path / "out" / "a_mask.png").read_bytes()

    def cut_short(picture: Image.Image, path: Path) -> None:
        path.write_bytes(before[:20])
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", cut_short)
    with pytest.raises(DataError, match="cannot be written"):
        predicted(BrightRun(), tmp_path / "a.png", tmp_path / "out", threshold=0.3)
    assert (tmp_path / "out" / "a_mask.png").read_bytes() == before


def test_probabilities_of_a_volume_are_float32_in_its_grid(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stack = rng.integers(-1000, 400, (5, SIZE, SIZE)).astype(np.int16)
    write_nifti(tmp_path / "a.nii.gz", stack)
    predicted(BrightRun(), tmp_path, tmp_path / "out", probabilities=True, tta=True)
    low = stack.min((1, 2), keepdims=True).astype(float)
    expected = (stack - low) / (stack.max((1, 2), keepdims=True) - low)
    for name, values in (("probability", expected), ("agreement", np.ones(stack.shape))):
        image = nib.load(tmp_path / "out" / f"a_{name}.nii.gz")
        assert image.get_data_dtype() == np.float32
        found = np.asarray(image.dataobj).transpose(2, 1, 0)  # LPS
        np.testing.assert_allclose(found, values, atol=2e-5)


def two_lungs(stack: np.ndarray, right: int, left: int) -> np.ndarray:
    """The patient's right lung is the left half of a slice in display orientation."""
    half = stack.shape[2] // 2
    return np.concatenate(
        [np.full_like(stack[..., :half], right), np.full_like(stack[..., half:], left)], axis=2
    ).astype(np.uint8)


def hu_drawing() -> np.ndarray:
    """Three slices of HU: a lesion at -300 in two of them on the right, one pixel on the left."""
    stack = np.full((3, SIZE, SIZE), -900, np.int16)
    stack[:, 0, 0], stack[:, 31, 31] = -1000, 0
    stack[:2, 4:10, 4:10] = -300
    return stack


@pytest.mark.parametrize(("right", "left"), [(1, 2), (2, 1)])
def test_each_lung_has_its_numbers_whichever_label_it_bears(
    tmp_path: Path, right: int, left: int
) -> None:
    """Voxels of 1 mm3; the corner (31, 31) is the brightest pixel and so marked in each slice."""
    stack = hu_drawing()
    write_nifti(tmp_path / "a.nii", stack)
    write_nifti(tmp_path / "lungs.nii", two_lungs(stack, right, left))
    predicted(
        BrightRun(),
        tmp_path / "a.nii",
        tmp_path / "out",
        lungs=tmp_path / "lungs.nii",
        threshold=0.65,
    )
    summary = numbers(tmp_path / "out", "a")
    lungs = {row["side"]: row for row in summary["lungs"]}
    assert (lungs["right"]["label"], lungs["left"]["label"]) == (right, left)
    half = 3 * SIZE * SIZE // 2
    assert lungs["right"]["ml"] == lungs["left"]["ml"] == pytest.approx(half / 1000)
    assert (lungs["right"]["lesion_voxels"], lungs["left"]["lesion_voxels"]) == (72, 3)
    assert lungs["right"]["share_of_lung"] == pytest.approx(72 / half)
    assert lungs["left"]["lesion_ml"] == pytest.approx(3 / 1000)
    assert summary["share_of_lung"] == pytest.approx(75 / (2 * half))
    assert summary["lesions"] == 2
    assert summary["lesion_hu_mean"] == pytest.approx(72 * -300 / 75)
    assert summary["lesion_hu_sd"] == pytest.approx(300 * np.sqrt(72 * 3) / 75)
    with (tmp_path / "out" / "summary.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["lung_right_share_of_lung"]) == pytest.approx(72 / half)


def test_other_labels_are_listed_and_no_spacing_gives_shares_alone(tmp_path: Path) -> None:
    stack = hu_drawing()
    write_nifti(tmp_path / "a.nii", stack, None)
    lungs = two_lungs(stack, 10, 14)
    lungs[:, 16:] = 0
    write_nifti(tmp_path / "lungs.nii", lungs, None)
    predicted(BrightRun(), tmp_path / "a.nii", tmp_path / "out", lungs=tmp_path / "lungs.nii")
    summary = numbers(tmp_path / "out", "a")
    assert sorted(row["label"] for row in summary["lungs"]) == [10, 14]
    assert {row["side"] for row in summary["lungs"]} == {None}
    assert {row["ml"] for row in summary["lungs"]} == {None}
    assert sum(row["voxels"] for row in summary["lungs"]) == np.count_nonzero(lungs)
    assert summary["lesion_ml"] is None


def test_a_grey_pictures_lesion_has_no_hounsfield_units(tmp_path: Path) -> None:
    write_drawing(tmp_path / "a.png")
    predicted(BrightRun(), tmp_path / "a.png", tmp_path / "out")
    summary = numbers(tmp_path / "out", "a")
    assert summary["lesion_voxels"] > 0
    assert summary["lesion_hu_mean"] is None
    assert summary["lungs"] == []
    assert summary["disagreement"] is None


@pytest.mark.parametrize("slices", [1, 15, 16, 17, 31, 40])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.1])
def test_lesions_of_a_volume_are_scipys_parts(slices: int, density: float) -> None:
    masks = (np.random.default_rng(slices).random((slices, 9, 9)) < density).astype(np.uint8)
    assert _count_lesions(2 * masks) == ndimage.label(masks, np.ones((3, 3, 3)))[1]


def test_a_name_that_a_spreadsheet_would_compute_is_kept_as_text(tmp_path: Path) -> None:
    for name in ("=1+1", "+1", "-1", "@A1", "plain"):
        write_drawing(tmp_path / "in" / f"{name}.png")
    predicted(BrightRun(), tmp_path / "in", tmp_path / "out")
    for table in ("summary.csv", "slices.csv"):
        with (tmp_path / "out" / table).open(newline="") as file:
            names = {row["name"] for row in csv.DictReader(file)}
        assert names == {"'=1+1", "'+1", "'-1", "'@A1", "plain"}
    assert numbers(tmp_path / "out", "=1+1")["name"] == "=1+1"


def test_an_index_links_to_pages_of_any_name(tmp_path: Path) -> None:
    names = ["a b", "<i>#?%", "javascript:x", os.fsdecode(b"Lunge \xfc")]  # the last is no UTF-8
    for name in names:
        write_drawing(tmp_path / "in" / f"{name}.png")
    outcome, _ = predicted(BrightRun(), tmp_path / "in", tmp_path / "out", report=True)
    assert len(outcome.predicted) == len(names)
    text = (tmp_path / "out/index.html").read_text()
    links = [os.fsdecode(unquote_to_bytes(link)) for link in re.findall('href="([^"]+)"', text)]
    assert sorted(links) == sorted(f"{name}_report.html" for name in names)
    assert "&lt;i&gt;" in text
    assert "<i>#" not in text


def test_a_scans_page_counts_as_its_mask_does(tmp_path: Path) -> None:
    """The page's pixels above the threshold are the mask's; an index links to it."""
    stack = np.random.default_rng(0).integers(-1000, 400, (3, 20, 24)).astype(np.int16)
    write_nifti(tmp_path / "in/sub/a.nii.gz", stack)
    outcome, _ = predicted(BrightRun(), tmp_path / "in", tmp_path / "out", report=True)
    assert outcome.failures == []
    text = (tmp_path / "out/sub/a_report.html").read_text()
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert data["above"][127] == numbers(tmp_path / "out/sub", "a")["lesion_voxels"]
    assert data["voxel"] == pytest.approx(0.001)
    assert 'href="sub/a_report.html"' in (tmp_path / "out/index.html").read_text()
    again, _ = predicted(BrightRun(), tmp_path / "in", tmp_path / "out", report=True)
    assert len(again.complete) == 1
