"""Folders of the three layouts, made by hand, and the published facts of the real ones."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from covid_jax.data import SliceDataset, open_dataset
from covid_jax.errors import DataError

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SEMISEG = {
    "train": "TrainingSet/LungInfection-Train/Doctor-label",
    "test": "TestingSet/LungInfection-Test",
}


def write_stack(path: Path, stack: np.ndarray) -> None:
    """Writes slices as displayed with nibabel: x to the left, y to the back, z up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(stack.transpose(2, 1, 0), LPS), path)


def make_stack(slices: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 400, (slices, 4, 5)).astype(np.int16)


def make_masks(*lesion_pixels: int) -> np.ndarray:
    """One 4 x 5 mask for each count, its first so many pixels ground-glass."""
    flat = np.arange(20) < np.array(lesion_pixels)[:, None]
    return flat.reshape(-1, 4, 5).astype(np.uint8)


def write_first(root: Path, masks: np.ndarray) -> np.ndarray:
    images = make_stack(len(masks))
    write_stack(root / "tr_im.nii.gz", images)
    write_stack(root / "tr_mask.nii.gz", masks)
    return images


def write_second(root: Path, volumes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    images = {name: make_stack(len(m), seed) for seed, (name, m) in enumerate(volumes.items())}
    for name, masks in volumes.items():
        write_stack(root / "rp_im" / f"{name}.nii.gz", images[name])
        write_stack(root / "rp_msk" / f"{name}.nii.gz", masks)
    return images


def write_semiseg(root: Path, train: list[str], test: list[str]) -> None:
    """Flat grey pictures, the number in the name their grey level; lesion: the upper left pixel."""
    for subset, names in (("train", train), ("test", test)):
        folder = root / SEMISEG[subset]
        (folder / "Imgs").mkdir(parents=True)
        (folder / "GT").mkdir()
        for name in names:
            height = 8 + int(name)
            image = np.full((height, 16), int(name), np.uint8)
            Image.fromarray(image).save(folder / "Imgs" / f"{name}.jpg", quality=100)
            mask = np.zeros_like(image)
            mask[0, 0] = 255
            Image.fromarray(mask).save(folder / "GT" / f"{name}.png")


def ids(dataset: SliceDataset) -> list[str]:
    return [item.id for item in dataset.slices]


def refused(path: Path) -> str:
    """What the DataError says that opening the folder ends in."""
    with pytest.raises(DataError) as caught:
        open_dataset(path)
    return str(caught.value)


def test_dataset_1_keeps_its_empty_slices(tmp_path: Path) -> None:
    masks = make_masks(3, 0, 1)
    masks[2, 0, 0] = 3
    images = write_first(tmp_path, masks)
    dataset = open_dataset(tmp_path, 32)
    assert ids(dataset) == ["tr_im:000", "tr_im:001", "tr_im:002"]
    assert dataset.image_size == 32
    assert dataset.notes == ()
    assert "Dataset-1 (3 slices)" in dataset.layout
    for item, image, mask in zip(dataset.slices, images, masks, strict=True):
        assert (item.source, item.patient, item.published) == ("Dataset-1", None, None)
        np.testing.assert_array_equal(item.image, image)
        np.testing.assert_array_equal(item.mask, mask)
        assert item.mask.dtype == np.uint8


def test_dataset_2_orders_its_volumes_by_number(tmp_path: Path) -> None:
    volumes = {"10": make_masks(1), "2": make_masks(2, 5), "1": make_masks(4)}
    images = write_second(tmp_path, volumes)
    dataset = open_dataset(str(tmp_path))
    assert ids(dataset) == ["rp_im/1:000", "rp_im/2:000", "rp_im/2:001", "rp_im/10:000"]
    assert [int(item.mask.sum()) for item in dataset.slices] == [4, 2, 5, 1]
    np.testing.assert_array_equal(dataset.slices[2].image, images["2"][1])
    assert {item.source for item in dataset.slices} == {"Dataset-2"}
    assert dataset.image_size == 512


def test_both_datasets_open_as_one(tmp_path: Path) -> None:
    write_first(tmp_path, make_masks(1, 2))
    write_second(tmp_path, {"1": make_masks(3)})
    dataset = open_dataset(tmp_path)
    assert ids(dataset) == ["tr_im:000", "tr_im:001", "rp_im/1:000"]
    assert [item.source for item in dataset.slices] == ["Dataset-1", "Dataset-1", "Dataset-2"]
    assert "Dataset-1 (2 slices) + Dataset-2 (1 slices)" in dataset.layout


def test_dataset_2_leaves_out_slices_without_lesion_and_says_how_many(tmp_path: Path) -> None:
    write_first(tmp_path, make_masks(0, 1))
    write_second(tmp_path, {"1": make_masks(0, 2, 0), "2": make_masks(1, 0)})
    dataset = open_dataset(tmp_path)
    assert ids(dataset) == ["tr_im:000", "tr_im:001", "rp_im/1:001", "rp_im/2:000"]
    assert dataset.notes[-1].startswith("3 of 5 Dataset-2 slices have no lesion")

    everything = open_dataset(tmp_path, lesion_slices_only=False)
    assert len(everything) == 7
    assert not any("left out" in note for note in everything.notes)


def test_a_dataset_2_without_any_lesion_is_refused(tmp_path: Path) -> None:
    write_second(tmp_path, {"1": make_masks(0, 0)})
    assert "no slices" in refused(tmp_path)


def test_each_volume_is_a_patient_without_a_table(tmp_path: Path) -> None:
    write_second(tmp_path, {"1": make_masks(1, 1), "2": make_masks(1)})
    dataset = open_dataset(tmp_path)
    assert "each Dataset-2 volume counts as one patient" in dataset.notes[0]
    first, again, other = (item.patient for item in dataset.slices)
    assert first == again
    assert first is not None
    assert other not in (None, first)


@pytest.mark.parametrize(
    ("table", "patients"),
    [
        pytest.param(
            "volume,patient\n1,a\n2,a\n10,b\n", ["a", "a", "a", "b", None], id="whole volumes"
        ),
        pytest.param(
            "volume,patient,slice\n1,a,0\n1,b,1\n2,c,\n10,c,0\ntr_im,d,0\n",
            ["a", "b", "c", "c", "d"],
            id="single slices",
        ),
        pytest.param(
            "patient,source,slice,volume\na,x,,1\nb,y,1,1\nc,,,2\nd,,,10\ne,z,,tr_im\n",
            ["a", "b", "c", "d", "e"],
            id="columns in another order, a slice against its volume",
        ),
    ],
)
def test_patients_come_from_the_table(
    tmp_path: Path, table: str, patients: list[str | None]
) -> None:
    """In the order of rp_im/1 (two slices), 2 and 10 (one each), then Dataset-1's single slice."""
    write_first(tmp_path, make_masks(1))
    write_second(tmp_path, {"1": make_masks(1, 1), "2": make_masks(1), "10": make_masks(1)})
    (tmp_path / "patients.csv").write_text(table)
    dataset = open_dataset(tmp_path)
    assert [item.patient for item in dataset.slices] == [patients[-1], *patients[:-1]]


def test_an_empty_patient_is_unknown(tmp_path: Path) -> None:
    write_first(tmp_path, make_masks(1, 1))
    (tmp_path / "patients.csv").write_text("volume,patient,slice\ntr_im,,0\ntr_im,a,1\n")
    assert [item.patient for item in open_dataset(tmp_path).slices] == [None, "a"]


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(b"scan,person\n1,a\n", id="other columns"),
        pytest.param(b"volume;patient\n1;a\n", id="semicolons"),
        pytest.param(b"volume,patient,slice\n1,a,first\n", id="slice is no number"),
        pytest.param(b"volume,patient\n1\n", id="a row too short"),
        pytest.param(b"volume,patient\n1,M\xfcller\n", id="not UTF-8"),
    ],
)
def test_a_malformed_table_of_patients_is_refused(tmp_path: Path, table: bytes) -> None:
    write_second(tmp_path, {"1": make_masks(1)})
    (tmp_path / "patients.csv").write_bytes(table)
    assert str(tmp_path / "patients.csv") in refused(tmp_path)


def test_the_phantoms_marker_is_noted_first(tmp_path: Path) -> None:
    write_second(tmp_path, {"1": make_masks(1, 0)})
    (tmp_path / "phantom.json").write_text(json.dumps({"seed": 17}))
    synthetic, *_, dropped = open_dataset(tmp_path).notes
    assert "synthetic phantom" in synthetic
    assert "17" in synthetic
    assert "1 of 2" in dropped


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_malformed_phantom_marker_is_refused(tmp_path: Path, text: str) -> None:
    write_second(tmp_path, {"1": make_masks(1)})
    (tmp_path / "phantom.json").write_text(text)
    assert str(tmp_path / "phantom.json") in refused(tmp_path)


def test_semiseg_keeps_its_published_split(tmp_path: Path) -> None:
    write_semiseg(tmp_path, train=["10", "2", "1"], test=["12", "3"])
    dataset = open_dataset(tmp_path)
    assert ids(dataset) == ["train/1", "train/2", "train/10", "test/3", "test/12"]
    assert [item.published for item in dataset.slices] == ["train"] * 3 + ["test"] * 2
    assert [item.image.shape for item in dataset.slices] == [
        (height, 16) for height in (9, 10, 18, 11, 20)
    ]
    assert [int(item.image[4, 4]) for item in dataset.slices] == [1, 2, 10, 3, 12]
    for item in dataset.slices:
        assert (item.source, item.patient) == ("COVID-SemiSeg", None)
        assert np.argwhere(item.mask == 1).tolist() == [[0, 0]]
        assert item.mask.sum() == 1
    assert "3 training and 2 test slices" in dataset.layout


@pytest.mark.parametrize("gone", ["train", "test"])
def test_half_of_semiseg_is_refused(tmp_path: Path, gone: str) -> None:
    write_semiseg(tmp_path, train=["1"], test=["2"])
    half = tmp_path / SEMISEG[gone].split("/")[0]
    half.rename(tmp_path / "elsewhere")
    assert str(tmp_path / SEMISEG[gone]) in refused(tmp_path)


def test_stray_files_are_passed_over(tmp_path: Path) -> None:
    write_second(tmp_path, {"1": make_masks(1)})
    for name in ("notes.txt", "rp_im/readme.md", "rp_im/._1.nii.gz", "rp_im/.DS_Store"):
        (tmp_path / name).write_text("not data")
    assert ids(open_dataset(tmp_path)) == ["rp_im/1:000"]


def test_refuses_a_missing_folder(tmp_path: Path) -> None:
    assert f"{tmp_path / 'absent'}: no such folder" in refused(tmp_path / "absent")


def test_refuses_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_text("")
    assert str(tmp_path / "data.zip") in refused(tmp_path / "data.zip")


@pytest.mark.parametrize("found", [(), ("scans", "masks.zip")])
def test_an_unknown_layout_says_what_was_looked_for_and_found(
    tmp_path: Path, found: tuple[str, ...]
) -> None:
    for name in found:
        (tmp_path / name).mkdir()
    message = refused(tmp_path)
    for expected in (str(tmp_path), "tr_im.nii.gz", "rp_im/N.nii.gz", "LungInfection", *found):
        assert expected in message


def break_mask_missing(root: Path) -> Path:
    (root / "rp_msk" / "2.nii.gz").unlink()
    return root / "rp_msk" / "2.nii.gz"


def break_shape(root: Path) -> Path:
    write_stack(root / "rp_msk" / "2.nii.gz", make_masks(1, 1)[:, :3])
    return root / "rp_msk" / "2.nii.gz"


def break_turn(root: Path) -> Path:
    """As many pixels, but rows for columns."""
    write_stack(root / "rp_msk" / "2.nii.gz", make_masks(1, 1).transpose(0, 2, 1))
    return root / "rp_msk" / "2.nii.gz"


def break_slice_count(root: Path) -> Path:
    write_stack(root / "rp_msk" / "2.nii.gz", make_masks(1))
    return root / "rp_msk" / "2.nii.gz"


def break_label(root: Path) -> Path:
    write_stack(root / "rp_msk" / "2.nii.gz", make_masks(1, 1) * np.uint8(7))
    return root / "rp_msk" / "2.nii.gz"


def break_fraction(root: Path) -> Path:
    write_stack(root / "rp_msk" / "2.nii.gz", make_masks(1, 1) * np.float32(0.5))
    return root / "rp_msk" / "2.nii.gz"


def break_nan_label(root: Path) -> Path:
    masks = make_masks(1, 1).astype(np.float32)
    masks[0, 0, 0] = np.nan
    write_stack(root / "rp_msk" / "2.nii.gz", masks)
    return root / "rp_msk" / "2.nii.gz"


def break_nan(root: Path) -> Path:
    images = make_stack(2).astype(np.float32)
    images[1, 2, 3] = np.nan
    write_stack(root / "rp_im" / "2.nii.gz", images)
    return root / "rp_im" / "2.nii.gz"


def break_infinite(root: Path) -> Path:
    images = make_stack(2).astype(np.float32)
    images[1, 2, 3] = -np.inf
    write_stack(root / "rp_im" / "2.nii.gz", images)
    return root / "rp_im" / "2.nii.gz"


def break_folder(root: Path) -> Path:
    for path in (root / "rp_im").iterdir():
        path.unlink()
    return root / "rp_im"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (break_mask_missing, "no mask"),
        (break_shape, "(2, 3, 5)"),
        (break_turn, "(2, 5, 4)"),
        (break_slice_count, "(1, 4, 5)"),
        (break_label, "labels 7"),
        (break_fraction, "labels 0.5"),
        (break_nan_label, "labels nan"),
        (break_nan, "1 pixels"),
        (break_infinite, "1 pixels"),
        (break_folder, "no *.nii.gz"),
    ],
)
def test_refuses_what_cannot_be_used_and_names_the_file(
    tmp_path: Path, damage: Callable[[Path], Path], said: str
) -> None:
    write_second(tmp_path, {"1": make_masks(1), "2": make_masks(1, 1)})
    assert len(open_dataset(tmp_path)) == 3
    culprit = damage(tmp_path)
    message = refused(tmp_path)
    assert str(culprit) in message
    assert said in message


@pytest.mark.parametrize(
    ("height", "label", "said"), [(9, 128, "labels 128"), (8, 255, "(8, 16)"), (9, 1, "labels 1")]
)
def test_semiseg_masks_are_black_and_white_and_fit(
    tmp_path: Path, height: int, label: int, said: str
) -> None:
    write_semiseg(tmp_path, train=["1"], test=["2"])
    path = tmp_path / SEMISEG["train"] / "GT" / "1.png"
    mask = np.zeros((height, 16), np.uint8)
    mask[0, 0] = label
    Image.fromarray(mask).save(path)
    message = refused(tmp_path)
    assert str(path) in message
    assert said in message


def test_real_covid_semiseg(real_data: Path) -> None:
    """An all-positive prediction's Dice is 2 n / (n + pixels): 0.25772 in the mean (Fan et al.)."""
    dataset = open_dataset(real_data / "covid_semiseg")
    published = [item.published for item in dataset.slices]
    assert (published.count("train"), published.count("test")) == (50, 48)
    masks = [item.mask for item in dataset.slices if item.published == "test"]
    assert all(set(np.unique(mask)) <= {0, 1} for mask in masks)
    dice = [2 * mask.sum() / (mask.sum() + mask.size) for mask in masks]
    assert round(float(np.mean(dice)), 5) == 0.25772
    assert {item.patient for item in dataset.slices} == {None}


def test_real_radiopaedia(real_data: Path) -> None:
    """Slices, lesion pixels and patients as its README counts them."""
    dataset = open_dataset(real_data / "radiopaedia")
    slices, pixels = [0] * 10, [0] * 10
    for item in dataset.slices:
        volume = int(item.id.removeprefix("rp_im/").split(":")[0]) - 1
        slices[volume] += 1
        pixels[volume] += int(item.mask.sum())
    assert slices == [11, 118, 66, 33, 2, 9, 24, 55, 22, 27]
    assert pixels == [8824, 88728, 270248, 46227, 29, 3028, 9830, 246296, 67117, 46350]
    assert len({item.patient for item in dataset.slices}) == 8
    assert None not in {item.patient for item in dataset.slices}
    assert {item.image.shape for item in dataset.slices} == {(256, 256)}
    assert dataset.notes == ()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("volume,patient\n01,a\n", "'01', which is not among the files"),
        ("volume,patient\n1,a\n1,b\n", "given twice"),
        ("volume,patient\n1\n", "another length"),
    ],
)
def test_a_table_that_would_leak_in_silence_is_refused(
    tmp_path: Path, table: str, said: str
) -> None:
    write_second(tmp_path, {"1": make_masks(1)})
    (tmp_path / "patients.csv").write_text(table)
    assert said in refused(tmp_path)


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    write_second(tmp_path, {"1": make_masks(1), "2": make_masks(1)})
    (tmp_path / "patients.csv").write_text("\ufeffvolume, patient\n1, a\n2, a\n", "utf-8")
    assert [item.patient for item in open_dataset(tmp_path).slices] == ["a", "a"]
