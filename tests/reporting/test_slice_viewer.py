"""A slice shrunk for the report: sizes, values, and that its maps come back exactly."""

import base64
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from covid_jax.reporting.slice_viewer import SlicePage, display_arrays, packed


def shrunk(image=None, truth=None, probability=None, shape=(4, 4)) -> SlicePage:
    blank = np.zeros(shape)
    arrays = [blank if array is None else array for array in (image, truth, probability)]
    return SlicePage("a/1", "a.nii", "p1", shape, *display_arrays(*arrays), {"dice": 0.5})


@pytest.mark.parametrize(
    ("own", "shown"),
    [
        ((512, 512), (256, 256)),
        ((512, 384), (256, 192)),
        ((300, 900), (85, 256)),
        ((256, 256), (256, 256)),
        ((100, 31), (100, 31)),  # never enlarged
        ((1, 4000), (1, 256)),  # nor shrunk to nothing
    ],
)
def test_the_longer_side_has_at_most_256_pixels(own: tuple, shown: tuple) -> None:
    page = shrunk(shape=own)
    assert page.image.shape == page.truth.shape == page.probability.shape == shown


def test_a_small_slice_keeps_every_pixel() -> None:
    rng = np.random.default_rng(0)
    grey, ids = rng.integers(0, 256, (2, 30, 40))
    grey[0, :2] = 0, 255  # the whole range, so that grey values stay what they are
    page = shrunk(grey, ids % 3, np.arange(1200).reshape(30, 40) / 1199)
    np.testing.assert_array_equal(page.image, grey)
    np.testing.assert_array_equal(page.truth, ids % 3 > 0)
    np.testing.assert_array_equal(
        page.probability.ravel(), [round(255 * i / 1199) for i in range(1200)]
    )


def test_shrinking_averages_image_and_probability_but_not_truth() -> None:
    """Stripes one pixel wide at 512 are half of each away from the border at 256."""
    stripes = np.zeros((512, 512))
    stripes[:, ::2] = 1
    page = shrunk(1000 * stripes, stripes, stripes)
    assert set(page.image[:, 2:-2].ravel()) <= {127, 128}
    assert set(page.probability[:, 2:-2].ravel()) <= {127, 128}
    assert set(page.truth.ravel()) in ({0}, {1})


def test_half_a_probability_step_decides_as_the_threshold_does() -> None:
    """Above 0.5 is above 127 of 255, so that the slider's start is the library's threshold."""
    probability = np.array([[0.0, 0.498, 0.4979, 0.502, 0.51, 1.0]])
    page = shrunk(probability=probability, shape=(1, 6))
    np.testing.assert_array_equal(page.probability > 127, probability > 0.5)


@pytest.mark.usefixtures("unchecked_annotations")
def test_arrays_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\), truth \(4, 5\)"):
        shrunk(truth=np.zeros((4, 5)))


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 8)])
def test_packed_maps_come_back_exactly(shape: tuple) -> None:
    """Read with zlib and sums alone; the picture is a grey JPEG of that size."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, shape).astype(np.uint8)
    probability = rng.integers(0, 256, shape).astype(np.uint8)
    page = shrunk(shape=shape)._replace(truth=truth, probability=probability)
    picture, maps = (base64.b64decode(part, validate=True) for part in packed(page).split(","))
    plain = np.frombuffer(zlib.decompress(maps), np.uint8)
    steps = plain[: truth.size].reshape(shape).astype(int)
    np.testing.assert_array_equal(steps.cumsum(0).cumsum(1) % 256, probability)
    bits = "".join(f"{byte:08b}" for byte in plain[truth.size :])
    assert bits[: truth.size] == "".join(map(str, truth.ravel()))
    with Image.open(io.BytesIO(picture)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "L", shape[::-1])
