"""Averages over neighbouring slices of a volume, against the Gaussian written out by hand."""

import dataclasses
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from covid_jax.cli import flags
from covid_jax.cli.parse import parse
from covid_jax.errors import ConfigError
from covid_jax.prediction.options import PredictOptions
from covid_jax.transforms.preprocessing import QuantizedSlices
from tests.support.bright_runs import BrightRun, KindsRun, predicted, read_picture, write_picture
from tests.support.synthetic import SIZE, write_nifti

GAP = 5.0  # mm between slices
AFFINE = np.diag([-1.0, -1.0, GAP, 1.0])
CHANCES = (0.0, 0.9, 0.1, 0.3, 1.0, 0.8, 0.0)  # of slices 0, 1, ..., the same in every pixel


class ConstantRun(BrightRun):
    """Slices have the probabilities of CHANCES; a second member has their complements."""

    member_count = 1
    chances = CHANCES

    def predict_views(
        self, images: QuantizedSlices, batch_size: int | None = None, *, flips: bool = False
    ) -> np.ndarray:
        start = sum(count for count, _ in self.batches)
        self.batches.append((len(images.codes), batch_size or 1))
        chances = np.array(self.chances[start : start + len(images.codes)], np.float32)
        shape = (len(chances), self.member_count, 1 + 3 * flips, SIZE, SIZE, 1)
        views = np.broadcast_to(chances[:, None, None, None, None, None], shape).copy()
        if self.member_count > 1:
            views[:, 1] = 1 - views[:, 1]
        return views


def cropped(run: BrightRun, crop: str = "lungs") -> BrightRun:
    """The run as if it had been trained with ``--crop``."""
    data = dataclasses.replace(run.config.data, crop=crop)
    config = dataclasses.replace(run.record.config, data=data)
    run.record, run.config = dataclasses.replace(run.record, config=config), config
    return run


def averaged(deviation: float, gap: float = GAP) -> list[float]:
    """Each slice with those up to two deviations away, weighted and divided by the weights."""
    found = []
    for k in range(len(CHANCES)):
        near = [i for i in range(len(CHANCES)) if abs(i - k) * gap <= 2 * deviation]
        weights = [math.exp(-(((i - k) * gap) ** 2) / (2 * deviation**2)) for i in near]
        total = sum(w * CHANCES[i] for w, i in zip(weights, near, strict=True))
        found.append(total / sum(weights))
    return found


def probabilities(tmp_path: Path, affine: np.ndarray | None = AFFINE, **options) -> list[float]:
    """One value for each slice, as written; they must be the same in every pixel."""
    scan = np.random.default_rng(0).integers(-900, 300, (len(CHANCES), 20, 24)).astype(np.int16)
    write_nifti(tmp_path / "a.nii.gz", scan, affine)
    outcome, _ = predicted(
        ConstantRun(), tmp_path / "a.nii.gz", tmp_path / "out", probabilities=True, **options
    )
    assert outcome.failures == []
    values = nib.load(tmp_path / "out/a_probability.nii.gz").get_fdata()
    assert np.ptp(values, axis=(0, 1)).max() < 1e-6
    return values[0, 0].tolist()


@pytest.mark.parametrize("deviation", [2.4, 2.5, 3.0, 5.0, 6.0, 12.0, 1e9])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_average_is_the_gaussian_by_hand(
    tmp_path: Path, deviation: float, batch_size: int
) -> None:
    found = probabilities(tmp_path, smooth_slices=deviation, batch_size=batch_size)
    expected = CHANCES if deviation < 2.5 else averaged(deviation)  # no neighbour within 2 * 2.4
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_very_wide_average_is_the_mean_of_all(tmp_path: Path) -> None:
    found = probabilities(tmp_path, smooth_slices=1e300)
    np.testing.assert_allclose(found, np.mean(CHANCES), atol=1e-6)


@pytest.mark.parametrize("slices", [7, 30])
def test_the_average_of_certain_slices_is_certain(tmp_path: Path, slices: int) -> None:
    """Rounded weights sum to a little more than 1, of which the entropy would be infinite."""
    write_nifti(tmp_path / "a.nii.gz", np.zeros((slices, 20, 24), np.int16), AFFINE)
    for number in range(20):
        run, out = ConstantRun(), tmp_path / str(number)
        run.chances = (1.0,) * slices
        smooth = 5.0 + 0.7 * number
        outcome, _ = predicted(run, tmp_path / "a.nii.gz", out, smooth_slices=smooth)
        assert outcome.failures == []
        summary = json.loads((out / "a_summary.json").read_text())
        assert 0 <= summary["entropy"] < 1e-4
        assert 1 - 1e-5 < summary["probability"] <= 1


@pytest.mark.parametrize("smooth", [0.0, None, 1e-300])
def test_without_an_average_every_bit_stays(tmp_path: Path, smooth: float | None) -> None:
    found = probabilities(tmp_path, smooth_slices=smooth)
    assert found == np.array(CHANCES, np.float32).tolist()


def test_slices_at_unknown_distances_are_on_their_own(tmp_path: Path) -> None:
    assert probabilities(tmp_path, None, smooth_slices=6.0) == pytest.approx(CHANCES)


def test_a_few_slices_of_1_mm_are_stacked_pictures_and_said(tmp_path: Path) -> None:
    """nibabel's identity affine; with slices of 1.5 mm, or none to average, nothing is said."""
    unit, thick = np.diag([-1.0, -1.0, 1.0, 1.0]), np.diag([-1.0, -1.0, 1.5, 1.0])
    assert probabilities(tmp_path / "a", unit, smooth_slices=6.0) == pytest.approx(CHANCES)
    found = probabilities(tmp_path / "b", thick, smooth_slices=6.0)
    np.testing.assert_allclose(found, averaged(6.0, 1.5), atol=1e-6)
    probabilities(tmp_path / "c", unit, smooth_slices=0.0)
    said = [
        json.loads((tmp_path / name / "out/a_summary.json").read_text())["warnings"]
        for name in "abc"
    ]
    assert ["not averaged" in " ".join(texts) for texts in said] == [True, False, False]


@pytest.mark.parametrize("gap", [1.5, 2.4, 3.0, 6.0])
def test_rounding_of_an_oblique_affine_decides_no_neighbour(tmp_path: Path, gap: float) -> None:
    """The farthest neighbours are exactly two deviations away, but for the affine's rounding."""
    for number, degrees in enumerate(np.random.default_rng(0).uniform(-20, 20, 12)):
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turned = np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]])
        affine = (turned @ np.diag([-0.7, -0.7, gap, 1.0])).astype(np.float32)
        found = probabilities(tmp_path / str(number), affine, smooth_slices=gap)
        np.testing.assert_allclose(found, averaged(gap, gap), atol=1e-5)


@pytest.mark.parametrize(
    ("gap", "marked", "kept"),
    [(1.0, 7, False), (1.0, 9, True), (5.0, 1, False), (7.0, 1, False), (7.2, 1, True)],
)
def test_how_high_a_lesion_must_be_for_6_mm(
    tmp_path: Path, gap: float, marked: int, kept: bool
) -> None:
    """Of a Gaussian cut at two deviations, half lies within 0.64 deviations: 7.7 mm for 6 mm."""
    run, slices = ConstantRun(), 160
    run.chances = (0.0,) * 80 + (1.0,) * marked + (0.0,) * (slices - 80 - marked)
    write_nifti(
        tmp_path / "a.nii.gz",
        np.zeros((slices, 20, 24), np.int16),
        np.diag([-1.0, -1.0, gap, 1.0]),
    )
    predicted(run, tmp_path / "a.nii.gz", tmp_path / "out", smooth_slices=6.0)
    summary = json.loads((tmp_path / "out/a_summary.json").read_text())
    assert (summary["slices_with_lesion"] > 0) == kept


def test_masks_and_numbers_are_those_of_the_average(tmp_path: Path) -> None:
    """A lone slice at 0.9 goes; of 0.3, 1, 0.8 and 0 the middle two stay, at 0.68 and 0.62."""
    probabilities(tmp_path, smooth_slices=5.0)
    expected = [value > 0.5 for value in averaged(5.0)]
    assert [value > 0.5 for value in CHANCES] != expected
    mask = nib.load(tmp_path / "out/a_mask.nii.gz").get_fdata()
    assert mask.any((0, 1)).tolist() == mask.all((0, 1)).tolist() == expected
    summary = json.loads((tmp_path / "out/a_summary.json").read_text())
    assert summary["slices_with_lesion"] == sum(expected)
    assert summary["probability"] == pytest.approx(np.mean(averaged(5.0)), abs=1e-6)
    assert summary["options"]["smooth_slices"] == 5.0


def test_a_run_cropped_to_the_lungs_averages_by_default(tmp_path: Path) -> None:
    run = cropped(ConstantRun())
    body = np.random.default_rng(0).integers(0, 60, (len(CHANCES), 20, 24)).astype(np.int16)
    body[:, 0, 0] = -1000  # or it would be no HU
    write_nifti(tmp_path / "a.nii.gz", body, AFFINE)  # no lungs, so nothing is cropped
    predicted(run, tmp_path / "a.nii.gz", tmp_path / "out", probabilities=True)
    values = nib.load(tmp_path / "out/a_probability.nii.gz").get_fdata()
    np.testing.assert_allclose(values[5, 5], averaged(6.0), atol=1e-6)


def test_several_classes_and_flips_are_averaged_too(tmp_path: Path) -> None:
    """0.2, and 0.7 of the brightness b of a slice: averaged, the same of the average of b."""
    steps = np.linspace(0, 1, len(CHANCES))
    stack = np.zeros((len(CHANCES), SIZE, SIZE), np.int16)
    stack[:, :, SIZE // 2 :] = np.rint(1000 * steps).astype(np.int16)[:, None, None]
    stack[:, 0, 0], stack[:, 0, 1] = 0, 1000  # every slice has the range
    write_nifti(tmp_path / "a.nii.gz", stack, AFFINE)
    predicted(
        KindsRun(), tmp_path / "a.nii.gz", tmp_path, probabilities=True, tta=True, smooth_slices=5.0
    )
    soft = nib.load(tmp_path / "a_probability_consolidation.nii.gz").get_fdata()
    near = [[i for i in range(len(steps)) if abs(i - k) <= 2] for k in range(len(steps))]
    for k, part in enumerate(near):
        weights = np.exp(-0.5 * (np.array(part) - k) ** 2)
        expected = 0.7 * np.sum(weights * steps[part]) / np.sum(weights)
        np.testing.assert_allclose(soft[SIZE - 3, SIZE // 2, k], expected, atol=1e-3)
    assert (nib.load(tmp_path / "a_agreement.nii.gz").get_fdata() == 1).all()


def test_members_are_averaged_each_by_itself(tmp_path: Path) -> None:
    """p and 1 - p have the mean 0.5 and, averaged over slices to q, the deviation |q - 0.5|."""
    write_nifti(tmp_path / "a.nii.gz", np.zeros((len(CHANCES), 20, 24), np.int16), AFFINE)
    run = ConstantRun()
    run.member_count = 2
    predicted(run, tmp_path / "a.nii.gz", tmp_path / "out", tta=True, smooth_slices=6.0)
    summary = json.loads((tmp_path / "out/a_summary.json").read_text())
    apart = [row["disagreement"] for row in summary["per_slice"]]
    np.testing.assert_allclose(apart, np.abs(np.array(averaged(6.0)) - 0.5), atol=1e-6)


def test_pictures_have_no_neighbours(tmp_path: Path) -> None:
    write_picture(tmp_path / "in/a.png", seed=1)
    write_picture(tmp_path / "in/b.png", seed=2)
    for name, smooth in (("plain", 0.0), ("smooth", 50.0)):
        predicted(BrightRun(), tmp_path / "in", tmp_path / name, smooth_slices=smooth)
    for mask in ("a_mask.png", "b_mask.png"):
        plain, smooth = (read_picture(tmp_path / name / mask) for name in ("plain", "smooth"))
        np.testing.assert_array_equal(plain, smooth)


@pytest.mark.parametrize(("crop", "expected"), [("none", (False, 0.0)), ("lungs", (True, 6.0))])
def test_the_defaults_are_those_of_the_runs_crop(
    tmp_path: Path, crop: str, expected: tuple[bool, float]
) -> None:
    run = cropped(BrightRun(), crop)
    predicted(run, write_picture(tmp_path / "a.png"), tmp_path / "out")
    chosen = json.loads((tmp_path / "out/a_summary.json").read_text())["options"]
    assert (chosen["inside_lungs"], chosen["smooth_slices"]) == expected
    given = PredictOptions(inside_lungs=False, smooth_slices=1.5).completed(crop == "lungs")
    assert (given.inside_lungs, given.smooth_slices) == (False, 1.5)


def test_the_flag_is_a_length() -> None:
    def given(*words: str) -> float | None:
        argv = ["a.nii.gz", "-o", "out", *words]
        return parse(flags.PredictFlags, "covid-jax predict", argv).settings.smooth_slices

    assert given() is None
    assert given("--smooth-slices", "2.5") == 2.5
    with pytest.raises(ConfigError, match="smooth_slices -1"):
        PredictOptions(smooth_slices=-1.0)
