"""The synthetic phantom against what chest CT is known to look like, read back by nibabel."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from covid_jax.errors import ConfigError, DataError
from covid_jax.phantom.dataset import LABELS, phantom_slices, write_phantom

SMALL = {"num_patients": 2, "slices_per_patient": 1, "num_volumes": 1, "slices_per_volume": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default dataset, in smaller pictures."""
    return write_phantom(tmp_path_factory.mktemp("data") / "phantom", size=64)


def stack(path: Path) -> np.ndarray:
    """(slices, rows, columns) of a file whose array is (x, y, z)."""
    return np.asarray(nib.nifti1.load(path).dataobj).T


@pytest.fixture(scope="module")
def dataset(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks of every slice."""
    images = [folder / "tr_im.nii.gz", *sorted((folder / "rp_im").iterdir())]
    masks = [folder / "tr_mask.nii.gz", *sorted((folder / "rp_msk").iterdir())]
    return tuple(np.concatenate([stack(path) for path in paths]) for paths in (images, masks))


def lungs_of(image: np.ndarray) -> np.ndarray:
    """Air that the picture's edge does not reach, as lungs are found in real CT."""
    air, _ = ndimage.label(image < -500)
    edge = np.unique(np.concatenate([air[0], air[-1], air[:, 0], air[:, -1]]))
    return ~np.isin(air, edge) & (air > 0)


def dice(predicted: np.ndarray, true: np.ndarray) -> float:
    return 2 * np.count_nonzero(predicted & true) / (predicted.sum() + true.sum())


def test_same_arguments_give_the_same_bytes_and_others_do_not():
    images, masks = phantom_slices(3, 1, 2, 64)
    again = phantom_slices(3, 1, 2, 64)
    assert images.tobytes() == again[0].tobytes()
    assert masks.tobytes() == again[1].tobytes()
    for seed, patient in ((4, 1), (3, 2)):
        assert np.mean(images != phantom_slices(seed, patient, 2, 64)[0]) > 0.9


@pytest.mark.parametrize("size", [33, 64, 96])
def test_shapes_and_types(size: int):
    images, masks = phantom_slices(0, 5, 2, size)
    assert images.shape == masks.shape == (2, size, size)
    assert images.dtype == np.int16
    assert masks.dtype == np.uint8
    assert masks.any(axis=(1, 2)).all()


def test_a_patient_is_the_same_at_every_size():
    coarse, fine = (phantom_slices(0, 9, 2, size) for size in (64, 128))
    image, mask = (plane.reshape(2, 64, 2, 64, 2).mean(axis=(2, 4)) for plane in fine)
    assert np.corrcoef(coarse[0].ravel(), image.ravel())[0, 1] > 0.98
    assert dice(coarse[1] > 0, mask > 0.5) > 0.8


def test_labels_are_those_of_the_real_datasets(dataset: tuple[np.ndarray, np.ndarray]):
    _, masks = dataset
    assert np.unique(masks).tolist() == [0, 1, 2, 3]
    assert list(LABELS) == [
        1,
        2,
        3,
    ]  # ground-glass, consolidation, effusion: medicalsegmentation.com
    share = (masks > 0).mean(axis=(1, 2))
    assert np.mean((share[share > 0] > 0.005) & (share[share > 0] < 0.12)) > 0.8


def test_hounsfield_units_are_those_of_a_chest(dataset: tuple[np.ndarray, np.ndarray]):
    images, masks = dataset
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.abs(corners.mean() + 1000) < 20
    for image, mask in zip(images[::8], masks[::8], strict=True):
        lung = image[lungs_of(image) & (mask == 0)]
        assert lung.size > 0.05 * image.size
        assert -950 < np.median(lung) < -650
        assert image.max() > 200  # bone
    # Pixels of 5.6 mm mix thin consolidations and effusions with the lung beside them.
    for label, low, high in ((1, -700, -400), (2, -150, 60), (3, -150, 40)):
        assert low < np.median(images[masks == label]) < high, LABELS[label]


def test_no_threshold_finds_the_lesions(dataset: tuple[np.ndarray, np.ndarray]):
    images, masks = dataset
    for threshold in range(-1000, 400, 20):
        above = images > threshold
        assert dice(above, masks > 0) < 0.3
        assert dice(~above, masks > 0) < 0.3


def test_ground_glass_is_denser_than_the_lung_around_it(dataset: tuple[np.ndarray, np.ndarray]):
    differences = []
    for image, mask in zip(*dataset, strict=True):
        near = ndimage.binary_dilation(mask == 1, iterations=4) & ~ndimage.binary_dilation(mask > 0)
        around, inside = image[near & lungs_of(image)], image[mask == 1]
        if min(around.size, inside.size) > 20:
            differences.append(np.median(inside) - np.median(around))
    assert len(differences) > 50
    assert np.mean(np.array(differences) > 100) > 0.95


def test_effusions_lie_at_the_back_of_the_lungs(dataset: tuple[np.ndarray, np.ndarray]):
    images, masks = dataset
    slices = np.flatnonzero((masks == 3).any(axis=(1, 2)))
    assert slices.size > 0
    for i in slices:
        assert (
            np.argwhere(masks[i] == 3)[:, 0].mean() > np.argwhere(lungs_of(images[i]))[:, 0].mean()
        )


def test_neighbouring_slices_are_more_alike_than_patients():
    volumes = [phantom_slices(0, patient, 12, 64)[0].astype(float) for patient in (1, 2, 3)]
    within = max(np.abs(np.diff(volume, axis=0)).mean() for volume in volumes)
    between = min(np.abs(volumes[i] - volumes[i - 1]).mean() for i in range(3))
    assert within < 0.7 * between


def test_layout(folder: Path):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    numbers = range(1, 10)
    assert names == {
        *("tr_im.nii.gz", "tr_mask.nii.gz", "patients.csv", "phantom.json"),
        *(f"rp_im/{number}.nii.gz" for number in numbers),
        *(f"rp_msk/{number}.nii.gz" for number in numbers),
    }
    rows = list(csv.reader((folder / "patients.csv").read_text().splitlines()))
    assert rows[0] == ["volume", "slice", "patient"]
    assert rows[1:4] == [["tr_im", "0", "p01"], ["tr_im", "1", "p01"], ["tr_im", "2", "p02"]]
    assert rows[48:50] == [["tr_im", "47", "p24"], ["1", "", "p25"]]
    assert rows[-1] == ["9", "", "p33"]
    assert len(rows) == 1 + 48 + 9
    marker = json.loads((folder / "phantom.json").read_text())
    assert marker["kind"] == "synthetic phantom"
    assert (marker["seed"], marker["size"], marker["slices_per_volume"]) == (0, 64, 12)
    assert not list(folder.parent.glob(".*"))


def test_files_know_their_orientation_and_size(folder: Path):
    volume = nib.nifti1.load(folder / "rp_im" / "1.nii.gz")
    assert volume.shape == (64, 64, 12)
    assert volume.get_data_dtype() == np.int16
    assert nib.orientations.aff2axcodes(volume.affine) == ("L", "P", "S")
    assert volume.header.get_zooms() == pytest.approx((360 / 64, 360 / 64, 100 / 12))
    bone = np.argwhere(np.asarray(volume.dataobj)[28:36] > 300)
    assert np.median(bone[:, 1]) > 32  # the spine is at the back


def test_dataset_1_has_lesions_everywhere_and_dataset_2_has_not(folder: Path):
    assert stack(folder / "tr_mask.nii.gz").any(axis=(1, 2)).tolist() == [True] * 48
    for path in (folder / "rp_msk").iterdir():
        empty = ~stack(path).any(axis=(1, 2))
        assert 2 <= empty.sum() <= 5
        assert not empty[3:-3].any()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        write_phantom(tmp_path, size=32, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(DataError, match="not empty"):
        write_phantom(tmp_path / "mine.txt", size=32, **SMALL)


def test_an_empty_folder_is_filled(tmp_path: Path):
    write_phantom(tmp_path, size=32, **SMALL)
    assert nib.nifti1.load(tmp_path / "tr_im.nii.gz").shape == (32, 32, 2)
    assert [path.name for path in (tmp_path / "rp_im").iterdir()] == ["1.nii.gz"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_phantom(tmp_path / "file" / "phantom", size=32, **SMALL)


@pytest.mark.parametrize(("name", "value"), [("size", 31), ("seed", -1), ("num_volumes", 0)])
def test_impossible_numbers_are_named(tmp_path: Path, name: str, value: int):
    with pytest.raises(ConfigError, match=f"{name} = {value}"):
        write_phantom(tmp_path / "phantom", **{name: value})
