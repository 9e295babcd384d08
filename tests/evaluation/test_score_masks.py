"""Masks of any origin: counted by hand, equal to a run's own scores, or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from covid_jax.data import SliceDataset
from covid_jax.data.open_dataset import list_folders, open_listing
from covid_jax.data.scan import Listing
from covid_jax.errors import ConfigError, CovidJaxError, DataError
from covid_jax.evaluation.evaluate import Evaluation
from covid_jax.evaluation.score_masks import list_truths, score_masks
from covid_jax.evaluation.slice_table import load_masks, read_rows, row_of
from covid_jax.io.nifti import write_stack
from covid_jax.metrics.covid_semiseg import semiseg_scores, summarize_semiseg
from covid_jax.runs.config import DataConfig, ScoreConfig
from tests.support.scored import maps_for, score_all
from tests.support.synthetic import write_nifti

SIDE = 12
TRUTH = np.zeros((2, SIDE, SIDE), np.uint8)
TRUTH[0, 2:6, 3:7] = 1  # 16 pixels; the second slice has no lesion


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def opened(
    listing: Listing, classes: tuple[str, ...] = (), *, lesion_slices_only: bool = False
) -> SliceDataset:
    return open_listing(listing, DataConfig((), SIDE, lesion_slices_only, classes))


def scored(folder: Path, listing: Listing, classes: tuple[str, ...] = (), **settings) -> Evaluation:
    dataset, data = opened(listing, classes), DataConfig(classes=classes)
    return score_masks(folder, listing, dataset, data, folder / "out", ScoreConfig(**settings))


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        write_stack(path, array, (5.0, 0.5, 2.0))
    else:
        Image.fromarray(array).save(path)
    return path


def test_two_cases_by_hand(tmp_path: Path) -> None:
    """a: 16 true pixels, 8 of them found, and 4 false on the other slice; b is right."""
    found = np.zeros_like(TRUTH)
    found[0, 2:4, 3:7], found[1, 0, :4] = 1, 1
    for name, mask in (("a", found), ("b", TRUTH)):
        save(tmp_path / f"truth/{name}.nii.gz", TRUTH)
        save(tmp_path / f"masks/{name}_mask.nii.gz", mask)
    (tmp_path / "truth/patients.csv").write_text("volume,patient\na,Doe\nb,Roe\n")
    report, slices, _ = scored(tmp_path / "masks", list_truths(tmp_path / "truth"))
    dices = [2 * 8 / (8 + 16), 0, 1, 1]
    assert [one.dice for one in slices] == dices
    dice = report.own_grid["dice"]
    assert dice["mean"] == pytest.approx(np.mean(dices))
    assert dice["pooled"] == pytest.approx(2 * (8 + 16) / (12 + 16 + 32))
    assert report.per_patient["Doe"]["dice"] == pytest.approx(16 / (12 + 16))
    assert (report.patients, report.slices, report.lesion_free["slices"]) == (2, 4, 2)
    assert "2 patients are too few" in report.intervals
    # Rows are 0.5 mm high: the mask's lower edge is two rows, 1 mm, above the truth's.
    assert slices[0].lesion.surface["mm"].hausdorff == pytest.approx(1.0)
    assert slices[0].lesion.surface["px"].hausdorff == pytest.approx(2.0)
    assert report.area == {
        **{"unit": "mm2", "truth": 8.0, "prediction": (8 + 4 + 16) / 4},
        **{"signed": -1.0, "absolute": (8 + 4) / 4},
    }
    found_lesions, false = (
        [row[k] for row in report.lesions["bins"]] for k in ("detected", "false")
    )
    assert (found_lesions, false) == ([2, 0, 0, 0], [1, 0, 0, 0])
    assert (report.network_size, report.epoch, report.image_size) == ({}, None, None)
    assert any("masks were scored, not probabilities" in note for note in report.notes)
    out = tmp_path / "masks/out"
    assert json.loads((out / "metrics.json").read_text())["own_grid"]["dice"] == dice
    rows = read_rows(out / "slices.csv")
    assert [row["slice"] for row in rows] == ["a:000", "a:001", "b:000", "b:001"]
    assert "dice_at_network_size" not in rows[0]
    np.testing.assert_array_equal(load_masks(out / "masks.npz")[0], found[0])


@pytest.mark.parametrize("kind", ["probabilities", "masks"])
def test_the_scores_are_those_of_a_network_that_gave_them(tmp_path: Path, kind: str) -> None:
    """To the last digit, for float maps and for masks; whatever way the files are turned."""
    rng = np.random.default_rng(3)
    for name in ("a", "b"):
        image = rng.integers(-1000, 300, (3, SIDE, SIDE)).astype(np.int16)
        affine = np.diag([-0.7, -0.8, 5.0, 1.0])  # as written by another program
        write_nifti(tmp_path / f"data/images/{name}.nii.gz", image, affine)
        mask = (rng.random(image.shape) < 0.3).astype(np.uint8)
        write_nifti(tmp_path / f"data/masks/{name}.nii.gz", mask, affine)
    listing = list_folders([tmp_path / "data"])
    dataset = opened(listing)
    maps = maps_for(dataset)
    if kind == "masks":
        maps = [(map_ > 0.5).astype(np.float32) for map_ in maps]
    for number, name in enumerate("ab"):
        stack = np.stack([map_[..., 0] for map_ in maps[3 * number : 3 * number + 3]])
        stack = stack if kind == "probabilities" else stack.astype(np.uint8)
        save(tmp_path / f"found/{name}.nii.gz", stack)  # columns the other way round
    _, slices, _ = scored(tmp_path / "found", listing)
    for one, expected in zip(slices, score_all(dataset, maps, tolerance=3.0), strict=True):
        cells = row_of(expected)
        del cells["dice_at_network_size"]
        np.testing.assert_equal(row_of(one), cells)
        np.testing.assert_equal(one.sweep, expected.sweep)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_grey_probabilities_are_compared_exactly(tmp_path: Path, depth: type) -> None:
    """COVID-SemiSeg's thresholds fall on grey values; half of the range is no lesion yet."""
    rng = np.random.default_rng(0)
    largest = np.iinfo(depth).max
    pairs = []
    for name in ("1", "2"):
        truth = rng.random((9, 11)) < 0.3
        greys = (rng.integers(0, 256, truth.shape) * (largest // 255)).astype(depth)
        greys[0, :2] = largest // 2, largest // 2 + 1
        save(tmp_path / f"truth/{name}.png", np.uint8(255) * truth)
        save(tmp_path / f"maps/{name}.png", greys)
        pairs.append((greys, truth))
    report, slices, _ = scored(
        tmp_path / "maps", list_truths(tmp_path / "truth"), probabilities=True
    )
    expected = summarize_semiseg([semiseg_scores(*pair) for pair in pairs])
    assert report.protocols["covid-semiseg"]["dice"] == expected.dice
    assert report.protocols["covid-semiseg"]["mae"] == expected.mae
    for one, (greys, _) in zip(slices, pairs, strict=True):
        np.testing.assert_array_equal(one.prediction, greys > largest // 2)
    assert not any("masks were scored" in note for note in report.notes)


def test_the_real_truths_are_perfect(tmp_path: Path, real_data: Path) -> None:
    """At every threshold above 0; at 0 all is lesion: 0.25772, by COVID-SemiSeg's own curves."""
    folder = real_data / "covid_semiseg/TestingSet/LungInfection-Test/GT"
    listing = list_truths(folder)
    config = ScoreConfig(suffix="", probabilities=True)
    found = score_masks(folder, listing, opened(listing), DataConfig(), tmp_path / "o", config)
    assert found.report.own_grid["dice"]["mean"] == 1
    theirs = found.report.protocols["covid-semiseg"]
    assert theirs["dice"] == pytest.approx((255 + 0.25772) / 256, abs=1e-6)


def test_pictures_of_another_size_are_resized_if_asked(tmp_path: Path) -> None:
    """A square, twice as large: its edges blur by a pixel, the rest is what it was."""
    truth = np.zeros((40, 48), bool)
    truth[10:30, 12:36] = True
    for name in "abc":
        save(tmp_path / f"truth/{name}.png", np.uint8(255) * truth)
    twice = np.ones((2, 2), np.uint8)
    save(tmp_path / "maps/a.png", np.kron(np.uint8(255) * truth, twice))
    save(tmp_path / "maps/b.png", np.uint8(255) * truth)
    save(tmp_path / "maps/c.tif", np.kron(truth.astype(np.float32), twice.astype(np.float32)))
    listing = list_truths(tmp_path / "truth")
    report, slices, _ = scored(tmp_path / "maps", listing, probabilities=True, resize=True)
    assert any(note.startswith("2 maps were not of their truth's size") for note in report.notes)
    for one in slices:
        assert one.dice == 1
        assert one.semiseg.mae < 88 / truth.size
    save(tmp_path / "maps/b.png", np.uint8(255) * truth.T)
    with pytest.raises(DataError, match=r"48 rows and 40 columns .* 40 and 48; .* transpose it"):
        scored(tmp_path / "maps", listing, probabilities=True, resize=True)


def test_labels_are_what_the_truth_calls_them(tmp_path: Path) -> None:
    """nnU-Net's numbers; as one lesion, and told apart."""
    labels = {"background": 0, "consolidation": 1, "ground_glass": 2}
    image = np.random.default_rng(0).integers(-900, 0, (1, SIDE, SIDE)).astype(np.int16)
    truth = np.zeros(image.shape, np.uint8)
    truth[0, 0], truth[0, 1] = 1, 2
    root = tmp_path / "data"
    write_nifti(root / "imagesTr/x_0000.nii.gz", image)
    write_nifti(root / "labelsTr/x.nii.gz", truth)
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
    write_nifti(tmp_path / "found/x.nii.gz", np.where(truth == 1, 2, truth))
    names = ("ground_glass", "consolidation")
    found = scored(tmp_path / "found", list_folders([root], names), names)
    assert found.report.own_grid["dice"]["mean"] == 1
    classes = found.report.classes
    assert classes["ground_glass"]["own_grid"]["precision"]["mean"] == 0.5
    assert classes["consolidation"]["own_grid"]["dice"]["mean"] == 0
    merged = scored(tmp_path / "found", list_folders([root]))
    assert (merged.report.own_grid["dice"]["mean"], merged.report.classes) == (1, {})
    own = scored(tmp_path / "found", list_truths(root / "labelsTr", names[::-1]), names)
    assert own.report.classes["ground_glass"]["own_grid"]["precision"]["mean"] == 0.5
    with pytest.raises(ConfigError, match="threshold: several classes are scored by their labels"):
        scored(tmp_path / "found", list_folders([root], names), names, threshold=0.9)
    write_nifti(tmp_path / "found/x.nii.gz", truth * np.float32(0.3))
    with pytest.raises(ConfigError, match="several classes are scored by their labels"):
        scored(tmp_path / "found", list_folders([root], names), names)


def _two(folder: Path) -> None:
    save(folder / "a.nii.gz", TRUTH)
    save(folder / "a_mask.nii.gz", TRUTH)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: None, r"no prediction for 1 of 1 cases \(a\); expected NAME\.nii\.gz"),
        (_two, r"a\.nii\.gz, a_mask\.nii\.gz are all of a; choose with --suffix"),
        (
            lambda f: save(f / "a.nii.gz", TRUTH[:, :9]),
            r"its shape \(2, 9, 12\) .* differs from its scan's, \(2, 12, 12\)",
        ),
        (lambda f: save(f / "a.nii.gz", 3 * TRUTH), "unknown labels 3; expected 0 background, 1"),
        (
            lambda f: save(f / "a.nii.gz", TRUTH * np.float32(2.5)),
            r"float32 from 0 to 2\.5; expected labels, or probabilities in \[0, 1\]",
        ),
    ],
    ids=["missing", "twice", "other grid", "labels", "logits"],
)
def test_refused(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    save(tmp_path / "truth/a.nii.gz", TRUTH)
    (tmp_path / "found").mkdir()
    spoil(tmp_path / "found")
    with pytest.raises(CovidJaxError, match=message):
        scored(tmp_path / "found", list_truths(tmp_path / "truth"))
    assert not (tmp_path / "found/out").exists()
