"""Pictures written by PIL itself, and grey values by the formula."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from covid_jax.errors import DataError
from covid_jax.io.image_files import read_labels, read_picture

IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0]  # of COVID-SemiSeg's multi-class masks: black, red, green
GREY = np.random.default_rng(0).integers(0, 256, (7, 11)).astype(np.uint8)


def encoded(array: np.ndarray, kind: str, mode: str | None = None) -> bytes:
    picture = Image.fromarray(array)
    buffer = io.BytesIO()
    (picture if mode is None else picture.convert(mode)).save(buffer, kind)
    return buffer.getvalue()


def read_or_refusal(
    path: Path, read: Callable[[Path], np.ndarray] = read_picture
) -> np.ndarray | DataError:
    try:
        return read(path)
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


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["i1", "u2", "i2", "i4", "f4"])
def test_tiff_keeps_deep_values(tmp_path: Path, kind: str, order: Literal["<", ">"]) -> None:
    """Hounsfield units among them, whatever the file's byte order; arrays come in the machine's."""
    deep = np.random.default_rng(2).integers(-1000, 3000, (7, 11))
    deep = (deep // 30 if kind == "i1" else deep + 1000 * (kind == "u2")).astype(kind)
    path = tmp_path / "deep.tif"
    path.write_bytes(tiff(deep, order))
    picture = read_picture(path)
    np.testing.assert_array_equal(picture, deep)
    assert picture.dtype.isnative


def test_unsigned_32_bits_are_not_negative(tmp_path: Path) -> None:
    deep = np.array([[0, 1, 2**31 - 1], [2**31, 3_000_000_000, 2**32 - 1]], np.uint32)
    path = tmp_path / "deep.tif"
    path.write_bytes(tiff(deep, "<"))
    np.testing.assert_array_equal(read_picture(path), deep)
    np.testing.assert_array_equal(read_labels(path), deep)


def tiff(array: np.ndarray, order: Literal["<", ">"] = "<", zero_is_white: bool = False) -> bytes:
    """An uncompressed grey picture, by the TIFF 6.0 specification's baseline fields."""
    data = array.astype(array.dtype.newbyteorder(order)).tobytes()
    height, width = array.shape
    sample = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    fields = [
        (256, width),
        (257, height),
        (258, 8 * array.itemsize),
        (259, 1),
        (262, int(not zero_is_white)),
    ]
    fields += [(273, 8), (277, 1), (278, height), (279, len(data)), (339, sample)]
    directory = struct.pack(f"{order}H", len(fields))
    for tag, value in fields:
        directory += struct.pack(f"{order}HHII", tag, 4, 1, value)
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    return head + data + directory + bytes(4)


@pytest.mark.parametrize("kind", ["u2", "f4"])
@pytest.mark.parametrize("read", [read_picture, read_labels])
def test_deep_pictures_with_white_at_0_are_refused(
    tmp_path: Path, kind: str, read: Callable[[Path], np.ndarray]
) -> None:
    """Viewers show them inverted, Pillow does not."""
    path = tmp_path / "inverted.tif"
    path.write_bytes(tiff(GREY.astype(kind), zero_is_white=True))
    with pytest.raises(DataError, match=r"inverted\.tif: .*0 means white"):
        read(path)


@pytest.mark.parametrize("read", [read_picture, read_labels])
@pytest.mark.parametrize("colour", [2, 4], ids=["colour", "transparency"])
def test_sixteen_bits_of_several_channels_are_refused(
    tmp_path: Path, colour: int, read: Callable[[Path], np.ndarray]
) -> None:
    """Of which Pillow keeps the upper eight: every class id would be 0."""
    channels = 3 if colour == 2 else 2
    rows = np.repeat(IDS.astype(">u2")[..., None], channels, axis=-1)
    path = tmp_path / "deep.png"
    path.write_bytes(png(3, 2, 16, colour, b"".join(b"\0" + row.tobytes() for row in rows)))
    with Image.open(path) as picture:
        assert not np.asarray(picture).any()
    with pytest.raises(DataError, match=r"deep\.png: .*16 bits of colour or transparency"):
        read(path)


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """By the specification: IHDR, IDAT and IEND."""
    head = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # by the EXIF specification, 4.6.4 A
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", TURNS)
def test_pictures_and_masks_are_turned_as_viewers_turn_them(
    tmp_path: Path, orientation: int, kind: str
) -> None:
    blocks = np.kron(np.array([[0, 80, 160], [240, 40, 120]]), np.ones((16, 16))).astype(np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "turned"
    Image.fromarray(blocks).save(path, kind, exif=exif)
    expected = TURNS[orientation](blocks)
    np.testing.assert_allclose(read_picture(path).astype(int), expected, atol=3 * (kind == "JPEG"))
    if kind != "JPEG":
        np.testing.assert_array_equal(read_labels(path), expected)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_damaged_exif_data_is_passed_over(tmp_path: Path, kind: str) -> None:
    """As viewers do: it says nothing of the pixels."""
    grey = np.full((16, 24), 80, np.uint8)
    Image.fromarray(grey).save(tmp_path / "a", kind, exif=b"Exif\0\0" + b"\xff" * 40)
    np.testing.assert_array_equal(read_picture(tmp_path / "a"), grey)


def save_palette(path: Path, positions: np.ndarray, palette: list[int]) -> Path:
    picture = Image.fromarray(positions)
    picture.putpalette(palette)  # from here on of mode P
    picture.save(path)
    return path


def test_labels_of_a_coloured_palette_are_its_positions(tmp_path: Path) -> None:
    """As grey the red of label 1 would be 38, the green of label 2 75."""
    path = save_palette(tmp_path / "mask.png", IDS, PALETTE)
    with Image.open(path) as picture:
        assert picture.mode == "P"
    np.testing.assert_array_equal(read_labels(path), IDS)
    np.testing.assert_array_equal(np.unique(read_picture(path)), [0, 38, 75])


@pytest.mark.parametrize("used", [[0], [2], [1, 2]])
def test_a_coloured_palette_is_one_whichever_of_it_is_used(tmp_path: Path, used: list) -> None:
    """Black, white and red: of black and white alone, white is still class 1."""
    positions = np.resize(used, (2, 3)).astype(np.uint8)
    path = save_palette(tmp_path / "mask.png", positions, [0, 0, 0, 255, 255, 255, 128, 0, 0])
    np.testing.assert_array_equal(read_labels(path), positions)


@pytest.mark.parametrize("white_first", [True, False])
def test_black_and_white_palettes_are_0_and_1_in_any_order(
    tmp_path: Path, white_first: bool
) -> None:
    lesion = IDS == 2
    palette = [255, 255, 255, 0, 0, 0] if white_first else [0, 0, 0, 255, 255, 255]
    path = save_palette(tmp_path / "mask.png", (lesion != white_first).astype(np.uint8), palette)
    np.testing.assert_array_equal(read_labels(path), lesion)
    np.testing.assert_array_equal(read_picture(path), 255 * lesion)


def test_a_quantized_mask_keeps_its_meaning(tmp_path: Path) -> None:
    """Pillow itself puts white first."""
    colours = np.repeat(255 * (IDS > 0)[..., None].astype(np.uint8), 3, axis=-1)
    Image.fromarray(colours).quantize(2).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as picture:
        assert picture.getpalette()[:3] == [255, 255, 255]
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.png"), IDS > 0)


def test_grey_palettes_in_any_order_are_their_greys(tmp_path: Path) -> None:
    """Class ids as greys 0, 1 and 2, stored in the order 2, 0, 1."""
    positions = np.array([1, 2, 0], np.uint8)[IDS]
    path = save_palette(tmp_path / "mask.png", positions, [2, 2, 2, 0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(read_labels(path), IDS)


def test_a_palette_that_begins_with_a_colour_is_refused(tmp_path: Path) -> None:
    path = save_palette(tmp_path / "mask.png", IDS, [0, 128, 0, 0, 0, 0, 128, 0, 0])
    with pytest.raises(DataError, match=r"mask\.png: .*palette begins with a colour"):
        read_labels(path)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_labels_are_the_numbers_as_stored(tmp_path: Path, mode: str, kind: str) -> None:
    path = tmp_path / "mask"
    path.write_bytes(encoded(IDS, kind, mode))
    labels = read_labels(path)
    assert labels.dtype == np.uint8
    assert labels.flags.c_contiguous
    np.testing.assert_array_equal(labels, IDS)


def test_labels_of_one_bit_are_0_and_1(tmp_path: Path) -> None:
    mask = GREY > 128
    path = tmp_path / "mask.png"
    path.write_bytes(encoded(255 * mask.astype(np.uint8), "PNG", "1"))
    labels = read_labels(path)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, mask)


def test_labels_of_sixteen_bits_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(encoded(IDS.astype(np.uint16) * 300, "PNG"))
    np.testing.assert_array_equal(read_labels(path), IDS.astype(int) * 300)


@pytest.mark.parametrize(
    ("pixel", "mode", "said"),
    [
        ((128, 0, 0), "RGB", "coloured"),
        ((1, 1, 1, 127), "RGBA", "transparent"),
        ((0, 0, 0, 1), "CMYK", "mode CMYK"),
    ],
)
def test_a_colour_is_no_label(tmp_path: Path, pixel: tuple, mode: str, said: str) -> None:
    picture = Image.new(mode, (3, 2), (0, 0, 0, 255)[: len(mode)])
    picture.putpixel((1, 1), pixel)
    path = tmp_path / "mask.tif"
    picture.save(path)
    with pytest.raises(DataError, match=said) as caught:
        read_labels(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [read_picture, read_labels])
def test_several_pages_are_refused(tmp_path: Path, read: Callable[[Path], np.ndarray]) -> None:
    path = tmp_path / "stack.tif"
    page = Image.fromarray(GREY)
    page.save(path, save_all=True, append_images=[page, page])
    with pytest.raises(DataError, match="3 pages") as caught:
        read(path)
    assert str(path) in str(caught.value)


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


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_000, 13_000])
def test_a_small_file_cannot_claim_a_large_picture(tmp_path: Path, side: int) -> None:
    """Which Pillow alone would ask memory for: it refuses 178,956,970 pixels and more."""
    content = bytearray(encoded(GREY, "PNG"))
    struct.pack_into(">2I", content, 16, side, side)
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    path = tmp_path / "claim.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"claim\.png: .* claims {side} x {side} pixels"):
        read_picture(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow has more to say of damage
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("read", [read_picture, read_labels])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_a_corrupt_picture_is_refused_or_read(
    tmp_path: Path, kind: str, read: Callable[[Path], np.ndarray]
) -> None:
    path = tmp_path / "corrupt"
    content = encoded(GREY, kind)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(120):
        damaged = bytearray(content[: rng.integers(len(content) // 2, len(content) + 1)])
        for place in rng.integers(0, len(damaged), size=4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        outcome = read_or_refusal(path, read)
        if isinstance(outcome, DataError):
            assert str(path) in str(outcome)
            refused += 1
        else:
            assert outcome.ndim == 2
    assert refused > 0


def test_real_multi_class_masks(real_data: Path) -> None:
    """Ids 0, 1, 2; the lesion is where the binary mask of the same slice is white."""
    for half in ("Train", "Test"):
        folder = real_data / "covid_semiseg" / f"{half}ingSet"
        binary = next(folder.glob("LungInfection-*/**/GT"))
        for path in sorted((folder / f"MultiClassInfection-{half}" / "GT").iterdir())[:5]:
            labels = read_labels(path)
            assert set(np.unique(labels)) <= {0, 1, 2}
            np.testing.assert_array_equal(labels > 0, read_labels(binary / path.name) == 255)
