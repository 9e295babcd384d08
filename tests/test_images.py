"""Pictures written by PIL itself, and grey values by the formula."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from covid_jax.data.images import read_picture
from covid_jax.errors import DataError

GREY = np.random.default_rng(0).integers(0, 256, (7, 11)).astype(np.uint8)


def encoded(array: np.ndarray, kind: str, mode: str | None = None) -> bytes:
    picture = Image.fromarray(array)
    buffer = io.BytesIO()
    (picture if mode is None else picture.convert(mode)).save(buffer, kind)
    return buffer.getvalue()


def read_or_refusal(path: Path) -> np.ndarray | DataError:
    try:
        return read_picture(path)
    except DataError as error:
        return error


def test_png_is_read_exactly(tmp_path: Path) -> None:
    path = tmp_path / "slice.png"
    path.write_bytes(encoded(GREY, "PNG"))
    picture = read_picture(path)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, GREY)


def test_jpeg_is_read_within_its_loss(tmp_path: Path) -> None:
    """JPEG keeps a smooth ramp within two grey levels, rows and columns in place."""
    ramp = np.add.outer(np.arange(24) * 3, np.arange(40) * 4).astype(np.uint8)
    path = tmp_path / "slice.jpg"
    Image.fromarray(ramp).save(path, quality=95)
    picture = read_picture(path)
    assert (picture.shape, picture.dtype) == ((24, 40), np.uint8)
    np.testing.assert_allclose(picture.astype(int), ramp, atol=2)


@pytest.mark.parametrize("opaque", [False, True])
def test_colours_become_grey_by_bt_601(tmp_path: Path, opaque: bool) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (7, 11, 3)).astype(np.uint8)
    expected = colours @ np.array([0.299, 0.587, 0.114])
    if opaque:
        colours = np.concatenate([colours, np.full((7, 11, 1), 255, np.uint8)], axis=-1)
    path = tmp_path / "colour.png"
    path.write_bytes(encoded(colours, "PNG"))
    picture = read_picture(path)
    assert (picture.shape, picture.dtype) == ((7, 11), np.uint8)
    np.testing.assert_allclose(picture, expected, atol=0.51)


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    deep = np.random.default_rng(2).integers(0, 65536, (7, 11)).astype(np.uint16)
    path = tmp_path / "deep.png"
    path.write_bytes(encoded(deep, "PNG"))
    np.testing.assert_array_equal(read_picture(path), deep)


@pytest.mark.parametrize("mode", ["1", "P"])
def test_two_level_pictures_are_0_and_255(tmp_path: Path, mode: str) -> None:
    """A mask saved with one bit, or through a palette, still reads as black and white."""
    mask = np.where(GREY > 128, 255, 0).astype(np.uint8)
    path = tmp_path / "mask.png"
    path.write_bytes(encoded(mask, "PNG", mode))
    assert Image.open(io.BytesIO(path.read_bytes())).mode == mode
    np.testing.assert_array_equal(read_picture(path), mask)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("empty.png", b"", id="empty"),
        pytest.param("text.jpg", b"this is a note\n" * 50, id="not a picture"),
        pytest.param("cut.png", encoded(GREY, "PNG")[:-40], id="truncated PNG"),
        pytest.param("cut.jpg", encoded(GREY, "JPEG")[:-40], id="truncated JPEG"),
        pytest.param("absent.png", None, id="missing"),
    ],
)
def test_refuses_with_the_files_name(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_picture(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_corrupt_picture_is_refused_or_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "corrupt"
    content = encoded(GREY, kind)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(content[: rng.integers(len(content) // 2, len(content) + 1)])
        for place in rng.integers(0, len(damaged), size=4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        outcome = read_or_refusal(path)
        if isinstance(outcome, DataError):
            assert str(path) in str(outcome)
            refused += 1
        else:
            assert outcome.ndim == 2
    assert refused > 0
