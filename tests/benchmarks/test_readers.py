"""What readers of scans are shown, on shares counted by hand."""

import csv

import numpy as np
import pytest

from benchmarks.experiments import readers

ROWS = {  # patient: true and predicted pixels of slices of 10 x 10 pixels, in order
    "a": ([10, 20, 30], [10, 30, 20]),
    "b": ([0, 10, 0], [0, 10, 20]),
    "unknown": ([50], [50]),
}


@pytest.fixture
def patients(tmp_path):
    with (tmp_path / "slices.csv").open("w", newline="") as file:
        names = ("slice", "patient", "height", "width", "lesion_pixels", "predicted_pixels", "dice")
        writer = csv.writer(file)
        writer.writerow(names)
        for patient, counts in ROWS.items():
            for k, (true, predicted) in reversed(list(enumerate(zip(*counts, strict=True)))):
                writer.writerow([f"{patient}{k}", patient, 10, 10, true, predicted, 0.5])
    return readers.patients_of(tmp_path / "slices.csv")


def test_shares_steps_and_limits_of_agreement(patients) -> None:
    a, b = patients  # unknown patients are left out
    assert a.ids == ["a0", "a1", "a2"]
    assert a.shares == pytest.approx((20, 20))
    assert b.shares == pytest.approx((10 / 3, 10))
    assert (a.steps(a.truth), a.steps(a.prediction)) == pytest.approx((10, 15))
    found = readers.summary(patients)
    assert found["bias"] == pytest.approx(10 / 3)  # differences 0 and 20/3
    spread = 1.96 * np.sqrt(2 * (10 / 3) ** 2)
    assert found["limits"] == pytest.approx([10 / 3 - spread, 10 / 3 + spread])
    assert found["patients"][0]["correlation"] == pytest.approx(0.5)
    readers.bland_altman(found)
