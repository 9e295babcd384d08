"""What ``predict`` and ``predict_volume`` take from Python, and what they refuse."""

from pathlib import Path

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from covid_jax.errors import DataError
from covid_jax.io.read_scan import read_scan
from tests.support.bright_runs import HU, PICTURES, BrightRun, KindsRun
from tests.support.synthetic import SIZE, blob_dataset, tiny_config, write_nifti
from tests.support.tiny_runs import untrained_run


def ramp(shape: tuple[int, ...] = (SIZE, SIZE)) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


def test_a_tuple_is_a_list_of_slices() -> None:
    """Of equal shapes too: only an array is a stack."""
    slices = ramp(), ramp((20, 30))
    maps = BrightRun().predict(slices)
    assert isinstance(maps, list)
    assert [scores.shape for scores in maps] == [(SIZE, SIZE), (20, 30)]
    assert isinstance(BrightRun().predict((ramp(), ramp())), list)


@pytest.mark.parametrize("images", [ramp(), ramp((1, 20, 30)), ramp((3, 20, 30))])
def test_an_array_comes_back_in_its_shape(images: np.ndarray) -> None:
    assert BrightRun().predict(images).shape == images.shape
    np.testing.assert_array_equal(
        BrightRun().predict(jnp.asarray(images)), BrightRun().predict(images)
    )


def test_booleans_are_0_and_1() -> None:
    image = np.eye(SIZE, dtype=bool)
    np.testing.assert_array_equal(BrightRun().predict(image), image.astype(np.float32))


@pytest.mark.parametrize("scale", [1e-30, 1e30, 3e38])
def test_any_unit_that_float32_holds_will_do(scale: float) -> None:
    """From -scale to scale, a straight line: probabilities from 0 to 1."""
    image = np.linspace(-scale, scale, SIZE * SIZE).reshape(SIZE, SIZE)
    expected = np.linspace(0, 1, SIZE * SIZE).reshape(SIZE, SIZE)
    np.testing.assert_allclose(BrightRun().predict(image), expected, atol=2e-5)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "g", "i1", "u1", ">i2", "u8"])
def test_every_number_type_is_read(dtype: str) -> None:
    image = ramp((8, 8)).astype(dtype)
    found = BrightRun(size=8).predict(image)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ramp((8, 8)) / 63, atol=2e-5)


def test_scans_of_64_bits_are_held_in_32(tmp_path: Path) -> None:
    for name, dtype, held in (("whole", np.int64, np.int32), ("real", np.float64, np.float32)):
        write_nifti(tmp_path / f"{name}.nii", ramp((2, 3, 4)).astype(dtype))
        stack, _ = read_scan(tmp_path / f"{name}.nii")
        assert stack.dtype == held
        np.testing.assert_array_equal(stack, ramp((2, 3, 4)))
    write_nifti(tmp_path / "beyond.nii", np.full((2, 3, 4), 1e300))
    with pytest.raises(DataError, match="24 pixels are NaN or infinite"):
        read_scan(tmp_path / "beyond.nii")


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ((), "no image given"),
        (np.zeros((0, 8, 8)), "no image given"),
        (np.full((8, 8), 1e300), "image 0: .*beyond float32"),
        ((ramp(), np.full((8, 8), -1e39)), "image 1: .*beyond float32"),
        (ramp() * 1j, "images: expected real numbers, found complex128"),
        ([ramp(), ramp() * 1j], "image 1: expected real numbers, found complex128"),
        ([[[1.0, 2.0], [3.0]]], "image 0: no array"),
        ("scan.png", "images: expected real numbers"),
        (None, "images: expected real numbers, found object"),
        (3.0, r"image 0: expected a slice \(H, W\), found shape \(\)"),
        (np.zeros((8, 8), "M8[s]"), "expected real numbers, found datetime64"),
        (np.ma.masked_less(ramp(), 3), "images: [0-9]+ pixels are masked"),
        (ramp((2, 3, 4, 1)), r"found shape \(2, 3, 4, 1\)"),
    ],
)
def test_what_holds_no_slices_is_refused(images, said: str) -> None:
    run = BrightRun()
    with pytest.raises(DataError, match=said):
        run.predict(images)
    assert run.batches == []


def test_a_volume_of_several_classes_has_a_channel_for_each(tmp_path: Path) -> None:
    """0.2 and 0.7 b against 0.8 - 0.7 b: consolidation above b = 4/7."""
    stack = np.stack([ramp(), ramp() * 2]).astype(np.int16) - 1000
    write_nifti(tmp_path / "a.nii", stack)
    found = KindsRun().predict_volume(str(tmp_path / "a.nii"))
    bright = (stack + 1000) / (stack + 1000).max((1, 2), keepdims=True)
    np.testing.assert_allclose(found.probabilities[..., 0], 0.2, atol=1e-6)
    np.testing.assert_allclose(found.probabilities[..., 1], 0.7 * bright, atol=2e-5)
    np.testing.assert_array_equal(found.mask, np.where(bright > 4 / 7, 2, 0))


def test_a_volume_is_decided_at_the_threshold(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", ramp()[None].astype(np.int16) - 1000)
    found = BrightRun().predict_volume(tmp_path / "a.nii", threshold=0.25)
    np.testing.assert_array_equal(found.mask[0], ramp() > 0.25 * ramp().max())


def test_a_volume_in_other_units_than_trained_on_warns(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", (ramp()[None] - 1000).astype(np.int16))
    BrightRun([HU]).predict_volume(tmp_path / "a.nii")
    with pytest.warns(UserWarning, match=r"a\.nii: .*window the scan to 8 bits"):
        BrightRun([PICTURES]).predict_volume(tmp_path / "a.nii")


def test_an_image_in_memory_is_predicted_as_its_file(tmp_path: Path) -> None:
    stack = np.stack([ramp(), ramp() * 2]).astype(np.int16) - 1000
    write_nifti(tmp_path / "a.nii", stack, np.diag([0.7, -0.8, 2.5, 1.0]))
    image = nib.load(tmp_path / "a.nii")
    made = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    found, expected = map(BrightRun().predict_volume, (made, tmp_path / "a.nii"))
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_allclose(found.geometry.affine, image.affine)
    with pytest.warns(UserWarning, match="^image in memory: "):
        BrightRun([PICTURES]).predict_volume(made)


def test_a_picture_is_no_volume(tmp_path: Path) -> None:
    Image.fromarray(ramp((8, 8)).astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="a 2-D image, not a volume"):
        BrightRun().predict_volume(tmp_path / "a.png")


def test_a_batch_has_at_least_one_slice(tmp_path: Path) -> None:
    run = untrained_run(tiny_config(), blob_dataset(), tmp_path / "run")
    for size in (0, -1):
        with pytest.raises(ValueError, match="at least one slice"):
            run.predict(ramp(), batch_size=size)
