"""Slices turned by a quarter, as they are opened afterwards, against numpy's own turn."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.experiments import rotate_dataset as turned
from covid_jax.io.nifti import read_stack, write_stack


def turn(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["turned.py", "one", "other", *arguments])
    turned.main()


@pytest.mark.parametrize(("flags", "quarters"), [(["--clockwise"], -1), ([], 1)])
def test_pictures_volumes_and_the_rest(
    flags: list[str], quarters: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one/deep").mkdir(parents=True)
    picture = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(picture).save("one/deep/a.png")
    stack = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write_stack(Path("one/1.nii.gz"), stack)
    Path("one/patients.csv").write_text("volume,patient\n")
    turn(monkeypatch, *flags)
    found = np.asarray(Image.open("other/deep/a.png"))
    np.testing.assert_array_equal(found, np.rot90(picture, quarters))
    shown, _ = read_stack(Path("other/1.nii.gz"))
    np.testing.assert_array_equal(shown, np.rot90(stack, quarters, axes=(1, 2)))
    assert Path("other/patients.csv").read_text() == "volume,patient\n"
