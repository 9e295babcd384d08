"""Leaks planted in dataset folders are caught on the way from the files to the split."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covid_jax.cli import main as cli
from covid_jax.data import SliceDataset, open_dataset
from covid_jax.errors import DataError
from covid_jax.runs.config import DataConfig
from covid_jax.splits.near_duplicates import similar_pairs
from covid_jax.splits.policies import find_split
from covid_jax.splits.split import Split
from tests.support.synthetic import write_nifti

SIZE = 32
TRAIN, TEST = "TrainingSet/LungInfection-Train/Doctor-label", "TestingSet/LungInfection-Test"


@pytest.fixture
def semiseg(tmp_path: Path) -> Path:
    """COVID-SemiSeg with eight training and three test pictures of noise."""
    rng = np.random.default_rng(0)
    for part, names in ((TRAIN, range(1, 9)), (TEST, range(11, 14))):
        for name in names:
            write_picture(tmp_path / part / f"Imgs/{name}.png", rng.integers(0, 256, (48, 40)))
            write_picture(tmp_path / part / f"GT/{name}.png", 255 * (np.indices((48, 40))[0] < 9))
    return tmp_path


def write_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_patients(root: Path, **patients: str) -> None:
    rows = [
        f"{part}/{name},{patient}"
        for (part, _, name), patient in (
            (key.partition("_"), value) for key, value in patients.items()
        )
    ]
    (root / "patients.csv").write_text("\n".join(["volume,patient", *rows]))


def opened(*roots: Path) -> SliceDataset:
    return open_dataset(roots, SIZE)


def split_of(dataset: SliceDataset, **settings) -> Split:
    """As a training run does it."""
    similar = similar_pairs(dataset.network.images.codes)
    return find_split(dataset, DataConfig(image_size=SIZE, **settings), similar)


def subset_of(split: Split) -> dict[str, str]:
    return {name: subset for subset, names in split.sides.items() for name in names}


def test_without_a_leak_nothing_is_found(semiseg: Path) -> None:
    write_patients(semiseg, train_3="Doe", train_4="Doe", test_12="Roe")
    split = split_of(opened(semiseg))
    assert split.policy == "published"
    assert split.ids("test") == ("test/11", "test/12", "test/13")
    assert split.similar == ()
    said = "patients of 8 slices are unknown: one patient may be on both sides"
    assert split.warnings == (said,)


def test_a_patient_of_a_training_and_a_test_picture_is_refused(semiseg: Path) -> None:
    write_patients(semiseg, train_3="Doe", train_4="Roe", test_12="Doe")
    dataset = opened(semiseg)
    for policy in ("auto", "published"):
        with pytest.raises(DataError, match=r"1 patient would .* \(Doe in .* and test\)"):
            split_of(dataset, split=policy)
    for seed in range(10):
        subsets = subset_of(split_of(dataset, split="patient", split_seed=seed))
        assert subsets["train/3"] == subsets["test/12"]


def test_training_on_such_a_patient_does_not_start(
    semiseg: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_patients(semiseg, train_3="Doe", test_12="Doe")
    monkeypatch.chdir(semiseg)
    with pytest.raises(SystemExit) as ended:
        cli.train(["--data", ".", "--out", "run", "--image-size", "32", "--features", "4", "8"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --split published: 1 patient would be in several subsets")
    assert error.count("\n") == 1
    assert not (semiseg / "run").exists()


def copy_into_the_test_part(root: Path, kind: str) -> None:
    """Training picture 2 as test picture 20, its mask too."""
    shutil.copy(root / TRAIN / "GT/2.png", root / TEST / "GT/20.png")
    source, copy = root / TRAIN / "Imgs/2.png", root / TEST / "Imgs/20.png"
    if kind == "the same file":
        shutil.copy(source, copy)
        return
    with Image.open(source) as picture:
        if kind == "another format":
            picture.save(copy.with_suffix(".bmp"))
        elif kind == "JPEG":
            picture.save(copy.with_suffix(".jpg"), quality=90)
        else:
            assert kind == "brighter"
            picture.point(lambda value: value // 2 + 100).save(copy)


@pytest.mark.parametrize(
    ("kind", "least"),
    [("the same file", 1.0), ("another format", 1.0), ("JPEG", 0.99), ("brighter", 0.99)],
)
def test_a_copied_picture_is_listed(semiseg: Path, kind: str, least: float) -> None:
    copy_into_the_test_part(semiseg, kind)
    dataset = opened(semiseg)
    split = split_of(dataset)
    (pair,) = split.similar
    assert (pair.first, pair.second, pair.second_subset) == ("train/2", "test/20", "test")
    assert pair.first_subset == subset_of(split)["train/2"] != "test"
    assert least <= pair.correlation <= 1.0
    assert split.warnings[-1] == (
        "1 near-duplicate pair in different subsets: train/2 ~ test/20 (1.00)"
    )
    for seed in range(10):
        split = split_of(dataset, split="patient", split_seed=seed)
        assert subset_of(split)["train/2"] == subset_of(split)["test/20"]
        assert split.similar == ()


def test_a_copy_is_told_from_the_files_alone(semiseg: Path) -> None:
    """Even where nobody searched for near-duplicates, and two patients were named."""
    copy_into_the_test_part(semiseg, "the same file")
    write_patients(semiseg, train_2="Doe", test_20="Roe")
    split = find_split(opened(semiseg), DataConfig())
    assert [(pair.first, pair.second, pair.correlation) for pair in split.similar] == [
        ("train/2", "test/20", 1.0)
    ]


def write_volumes(root: Path, seed: int, patients: dict[str, str]) -> Path:
    """Dataset-2 with a volume of three slices each."""
    rng = np.random.default_rng(seed)
    for name in patients:
        write_nifti(root / f"rp_im/{name}.nii", rng.integers(-1000, 400, (3, 20, 20), np.int16))
        write_nifti(root / f"rp_msk/{name}.nii", np.ones((3, 20, 20), np.uint8))
    rows = [f"{name},{patient}" for name, patient in patients.items()]
    (root / "patients.csv").write_text("\n".join(["volume,patient", *rows]))
    return root


def test_one_patient_in_two_folders_stays_on_one_side(tmp_path: Path) -> None:
    """By the name that both folders' patients.csv gives."""
    here = write_volumes(tmp_path / "here", 0, {"1": "Doe", "2": "Roe", "3": "Poe"})
    there = write_volumes(tmp_path / "there", 1, {"1": "Loe", "2": "Doe", "3": "Noe"})
    dataset = opened(here, there)
    assert len(dataset) == 18
    for seed in range(10):
        subsets = subset_of(split_of(dataset, split="patient", split_seed=seed))
        sides = {
            subsets[f"{volume}:{i:03d}"]
            for volume in ("here/rp_im/1", "there/rp_im/2")
            for i in range(3)
        }
        assert len(sides) == 1
    with pytest.raises(DataError, match="would be in several subsets"):
        split_of(dataset, split="slice")


def test_a_volume_copied_under_another_name_stays_on_one_side(tmp_path: Path) -> None:
    """Though patients.csv calls its patient another; the paper's split lists every slice of it."""
    patients = {"1": "Doe", "2": "Roe", "3": "Poe", "4": "Loe", "5": "Noe"}
    root = write_volumes(tmp_path, 0, patients)
    shutil.copy(root / "rp_im/1.nii", root / "rp_im/5.nii")
    dataset = opened(root)
    for seed in range(10):
        subsets = subset_of(split_of(dataset, split="patient", split_seed=seed))
        assert len({subsets[f"rp_im/{name}:{i:03d}"] for name in "15" for i in range(3)}) == 1
    split = split_of(dataset, split="paper")
    subsets = subset_of(split)
    apart = [i for i in range(3) if subsets[f"rp_im/1:{i:03d}"] != subsets[f"rp_im/5:{i:03d}"]]
    assert [(pair.first, pair.second) for pair in split.similar] == [
        (f"rp_im/1:{i:03d}", f"rp_im/5:{i:03d}") for i in apart
    ]
    assert apart != []
