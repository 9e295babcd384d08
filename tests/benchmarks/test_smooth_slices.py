"""The averages over a series' pictures, on series made by hand."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments.smooth_slices import Slice, averaged, positions, score

FULL, NONE = np.ones((4, 4), bool), np.zeros((4, 4), bool)


def a_slice(truth: np.ndarray, probability: int, shape: tuple[int, int] = (4, 4)) -> Slice:
    return Slice(truth, np.full(shape, probability, np.uint8))


def test_a_missing_neighbour_has_no_weight_and_another_size_is_resized() -> None:
    slices = {3: a_slice(FULL, 200), 4: a_slice(FULL, 100, (8, 6)), 6: a_slice(FULL, 40)}
    near, far = np.exp(-0.5), np.exp(-2.0)  # one and two slices away, of one slice's deviation
    np.testing.assert_allclose(averaged(slices, 3, 1.0), (200 + near * 100) / (1 + near))
    expected = (100 + near * 200 + far * 40) / (1 + near + far)
    np.testing.assert_allclose(averaged(slices, 4, 1.0), np.full((8, 6), expected))
    np.testing.assert_allclose(averaged(slices, 6, 0.0), 40)


def test_volumes_of_one_patient_are_no_neighbours_and_one_mean() -> None:
    """By itself volume a is found and b missed: Dice 1 and 0, and a mean of one half."""
    series = {
        ("p", "a"): {0: a_slice(FULL, 255), 1: a_slice(NONE, 0)},
        ("p", "b"): {0: a_slice(FULL, 0), 1: a_slice(NONE, 255)},
    }
    found = score(series, 0.0)
    assert found["patients"] == {"p": 0.5}
    assert found["lesion_free"] == {"slices": 2, "any_marked": 0.5, "marked_area": 0.5}
    wide = score(series, 5.0)  # nearly even weights: the nearer slice decides
    assert wide["patients_mean"] == pytest.approx(0.5)


def test_positions_are_of_a_volume(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/slices.csv").write_text("name,patient,position\nv1_000,p,0\nv2_000,p,0\n")
    assert positions(tmp_path) == {"v1_000": (("p", "v1"), 0), "v2_000": (("p", "v2"), 0)}
