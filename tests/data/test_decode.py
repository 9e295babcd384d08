"""Files written by other libraries, decoded: labels, number types, spacing, what is refused."""

import dataclasses
import os
import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from covid_jax.data import decode as module
from covid_jax.data.cache import Plan
from covid_jax.data.decode import (
    WORKERS,
    Decoded,
    Reading,
    content_key,
    decode,
    decode_all,
    in_order,
    pixel_digest,
)
from covid_jax.data.scan import ScanFiles
from covid_jax.errors import DataError
from covid_jax.transforms.input_form import InputForm
from covid_jax.transforms.labels import LESION
from tests.support.synthetic import LPS, write_dicom_series, write_nifti

MEDSEG = {1: "ground_glass", 2: "consolidation", 3: "effusion"}
MERGED = Reading((LESION,))
IMAGES = np.random.default_rng(0).integers(-1000, 400, (3, 4, 5)).astype(np.int16)
MASKS = np.zeros((3, 4, 5), np.uint8)
MASKS[1, 0, :3] = 1  # the first and the last slice show no lesion


def make_scan(
    root: Path,
    images: np.ndarray = IMAGES,
    masks: np.ndarray = MASKS,
    *,
    name: str = "one",
    affine: np.ndarray | None = LPS,
    **fields: Any,
) -> ScanFiles:
    """A volume of NIfTI files."""
    image, mask = root / f"{name}.nii", root / f"{name}_mask.nii"
    write_nifti(image, images, affine)
    write_nifti(mask, masks, affine)
    scan = ScanFiles(name, "made", image, mask, volume=True)
    return dataclasses.replace(scan, **fields)


def make_picture(root: Path, image: np.ndarray, mask: np.ndarray, name: str = "seen") -> ScanFiles:
    paths = root / f"{name}.png", root / f"{name}_mask.png"
    for path, pixels in zip(paths, (image, mask), strict=True):
        Image.fromarray(pixels).save(path)
    return ScanFiles(name, "made", *paths, labels={1: LESION, 255: LESION})


def refused(scan: ScanFiles, reading: Reading = MERGED) -> str:
    with pytest.raises(DataError) as caught:
        decode(scan, reading)
    return str(caught.value)


def silent(done: int, total: int) -> None:
    """Progress that nobody looks at."""


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (MEDSEG, ("ground_glass", "consolidation", "effusion"), [0, 1, 2, 3]),
        (MEDSEG, ("effusion", LESION, "ground_glass", "consolidation"), [0, 3, 4, 1]),
        ({1: LESION, 2: LESION, 3: LESION}, (LESION,), [0, 1, 1, 1]),
        ({3: "x", 1: "y", 2: "z", 99: "unseen"}, ("unseen", "x", "y", "z"), [0, 3, 4, 2]),
    ],
)
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8"])
def test_a_masks_values_become_class_ids(
    tmp_path: Path, labels: Mapping[int, str], classes: tuple[str, ...], expected: list, dtype: str
) -> None:
    """Ids are positions in the classes of the whole dataset, from 1, whatever a file calls them."""
    masks = np.random.default_rng(1).integers(0, 4, IMAGES.shape)
    scan = make_scan(tmp_path, masks=masks.astype(dtype), labels=labels)
    decoded = decode(scan, Reading(classes)).masks
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, np.array(expected)[masks])


def test_1_beside_255_in_one_mask_is_refused(tmp_path: Path) -> None:
    """Either alone is lesion; together, 255 is what most programs call to be ignored."""
    mask = np.eye(4, dtype=np.uint8)
    mask[0, 3] = 255
    scan = make_picture(tmp_path, np.eye(4, dtype=np.uint8), mask)
    with pytest.raises(DataError, match=r"seen_mask\.png: labels 1 and 255 in one mask"):
        decode_all([scan], MERGED, tmp_path, silent)


@pytest.mark.parametrize("other", ["other folder", "NIfTI", "no 1", "refused"])
def test_masks_of_0_and_1_next_to_masks_of_0_and_255(tmp_path: Path, other: str) -> None:
    """Of one folder they are refused: the second kind may mark pixels to be ignored."""
    picture = np.eye(4, dtype=np.uint8)
    first = make_picture(tmp_path, picture, picture if other != "no 1" else 0 * picture, "a")
    second = make_picture(tmp_path, picture, 255 * picture, "b")
    if other == "other folder":
        second = dataclasses.replace(second, source="elsewhere")
    if other == "NIfTI":  # whose 1 is the only lesion
        first = make_scan(tmp_path, name="a")
    if other != "refused":
        decode_all([first, second], MERGED, tmp_path, silent)
        return
    for scans in ([first, second], [second, first]):
        with pytest.raises(DataError) as caught:
            decode_all(scans, MERGED, tmp_path, silent)
        assert f"{first.mask}: labels 1 and 255 in masks of one dataset" in str(caught.value)
        assert f"255 in {second.mask}" in str(caught.value)


def test_white_is_lesion_in_a_picture(tmp_path: Path) -> None:
    scan = make_picture(tmp_path, np.eye(4, dtype=np.uint8), 255 * np.eye(4, dtype=np.uint8))
    np.testing.assert_array_equal(decode(scan, MERGED).masks, np.eye(4)[None])


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [
        (7, np.uint8, "unknown labels 7"),
        (0.5, np.float32, "unknown labels 0.5"),
        (np.nan, np.float32, "unknown labels nan"),
        (-1, np.int16, "unknown labels -1"),
        (np.inf, np.float32, "unknown labels inf"),
        (257, np.int16, "unknown labels 257"),
        (3, np.uint8, "unknown labels 3"),
    ],
)
def test_unknown_labels_are_refused(tmp_path: Path, value: float, dtype: Any, said: str) -> None:
    masks = MASKS.astype(dtype)
    masks[2, 3, 4] = value
    scan = make_scan(tmp_path, masks=masks, labels={2: "consolidation", 1: "ground_glass"})
    message = refused(scan, Reading(("ground_glass", "consolidation")))
    assert str(scan.mask) in message
    assert said in message
    assert "expected 0 background, 1 ground_glass, 2 consolidation; renumber them" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_what_no_float32_can_hold_is_refused(tmp_path: Path, value: float) -> None:
    images = IMAGES.astype(np.float64)
    images[1, 2, 3] = images[0, 0, 0] = value
    scan = make_scan(tmp_path, images)
    message = refused(scan)
    assert str(scan.image) in message
    assert "2 pixels are NaN or infinite" in message


@pytest.mark.parametrize(
    "masks", [MASKS[:, :3], MASKS[:2], MASKS.transpose(0, 2, 1)], ids=["rows", "slices", "turned"]
)
def test_a_mask_of_another_shape_is_refused(tmp_path: Path, masks: np.ndarray) -> None:
    scan = make_scan(tmp_path, masks=masks)
    message = refused(scan)
    for expected in (scan.mask, scan.image, masks.shape, IMAGES.shape):
        assert str(expected) in message


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        *[(same, same) for same in ("u1", "i1", "i2", "u2", "i4", "u4", "f4")],
        *[("i8", "i4"), ("u8", "i4"), ("f8", "f4")],
    ],
)
def test_numbers_of_more_than_32_bits_are_kept_in_32(
    tmp_path: Path, stored: str, kept: str
) -> None:
    images = np.abs(IMAGES % 100).astype(stored)
    decoded = decode(make_scan(tmp_path, images), MERGED).images
    assert decoded.dtype == np.dtype(kept)
    np.testing.assert_array_equal(decoded, np.abs(IMAGES % 100))


@pytest.mark.parametrize(
    ("value", "dtype", "kept"),
    [
        (2**31 - 1, np.int64, np.int32),
        (-(2**31), np.int64, np.int32),
        (2**31, np.int64, np.float32),
        (-(2**31) - 1, np.int64, np.float32),
        (-(2**63), np.int64, np.float32),  # what casting NaN leaves; it has no absolute value
        (2**31, np.uint64, np.float32),
        (2**64 - 1, np.uint64, np.float32),
    ],
)
def test_no_integer_is_wrapped_round(tmp_path: Path, value: int, dtype: Any, kept: Any) -> None:
    images = np.zeros(IMAGES.shape, dtype)
    images[0, 0, 0] = value
    decoded = decode(make_scan(tmp_path, images), MERGED).images
    assert decoded.dtype == kept
    assert decoded[0, 0, 0] == kept(value)


def test_spacing_is_of_rows_and_columns(tmp_path: Path) -> None:
    """Where the file says how it lies; else nobody knows what its numbers mean."""
    affine = np.diag([-0.7, -0.8, 5.0, 1.0])  # x runs along columns, y along rows
    spacing = decode(make_scan(tmp_path, affine=affine), MERGED).spacing
    assert spacing == pytest.approx((0.8, 0.7))
    assert decode(make_scan(tmp_path, name="unsaid", affine=None), MERGED).spacing is None
    picture = make_picture(tmp_path, np.eye(4, dtype=np.uint8), np.eye(4, dtype=np.uint8))
    assert decode(picture, MERGED).spacing is None


def test_a_displaced_mask_is_warned_of(tmp_path: Path) -> None:
    """(3, 4, 12) mm away: 13 mm. Half a voxel is rounding."""
    scan = make_scan(tmp_path)
    assert decode(scan, MERGED).warnings == ()
    for shift, told in (((3, 4, 12), "13 mm"), ((0.4, 0, 0), None)):
        affine = LPS.copy()
        affine[:3, 3] = shift
        write_nifti(scan.mask, MASKS, affine)
        decoded = decode(scan, MERGED)
        np.testing.assert_array_equal(decoded.masks, MASKS)
        if told is None:
            assert decoded.warnings == ()
        else:
            (warning,) = decoded.warnings
            assert told in warning


def test_a_mask_without_orientation_lies_on_its_image(tmp_path: Path) -> None:
    scan = make_scan(tmp_path)
    write_nifti(scan.mask, MASKS, None)
    decoded = decode(scan, MERGED)
    np.testing.assert_array_equal(decoded.masks, MASKS)
    assert decoded.warnings == ()


def test_a_dicom_series_with_a_nifti_mask(tmp_path: Path) -> None:
    """Both as a radiologist sees them, whichever way the mask's file runs."""
    write_dicom_series(tmp_path / "series", IMAGES, (0.8, 0.7))
    mask = tmp_path / "mask.nii.gz"
    scan = ScanFiles("s", "made", tmp_path / "series", mask, volume=True)
    masks = MASKS.copy()
    masks[2, 3, 0] = 1
    affine = np.diag([-0.7, -0.8, 2.0, 1.0])
    write_nifti(mask, masks, affine)
    decoded = decode(scan, MERGED)
    assert decoded.images.dtype == np.int16
    np.testing.assert_array_equal(decoded.images, IMAGES)
    np.testing.assert_array_equal(decoded.masks, masks)
    assert decoded.spacing == pytest.approx((0.8, 0.7))
    assert decoded.warnings == ()

    turned = np.diag([0.7, -0.8, -2.0, 1.0])  # to the right and down, from the opposite corner
    turned[:3, 3] = [-0.7 * 4, 0, 2.0 * 2]
    write_nifti(mask, masks[::-1, :, ::-1], turned)
    again = decode(scan, MERGED)
    np.testing.assert_array_equal(again.masks, masks)
    assert again.warnings == ()


def decoded_slices(folder: Path, plan: Plan) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read with np.fromfile, each at its offset."""
    slices = []
    for row in plan.record["slices"]:
        shape, count = row["shape"], np.prod(row["shape"])
        image = np.fromfile(folder / "images.bin", row["dtype"], count, offset=row["image"])
        mask = np.fromfile(folder / "masks.bin", "u1", count, offset=row["mask"])
        assert row["image"] % np.dtype(row["dtype"]).itemsize == 0  # mapped as it stands
        slices.append((image.reshape(shape), mask.reshape(shape)))
    return slices


def make_mixture(root: Path) -> list[ScanFiles]:
    """A picture of an odd number of bytes before types of more: a volume, a stack, a picture."""
    black = np.zeros((5, 3), np.uint8)
    return [
        make_picture(root, black + 9, black, "healthy"),
        make_scan(root, IMAGES, name="volume"),
        make_scan(root, IMAGES / np.float32(3), name="stack", volume=False),
        make_picture(root, black + 7, black + 255, "sick"),
    ]


@pytest.mark.parametrize("everything", [False, True])
def test_slices_without_lesion_are_left_out_or_kept(tmp_path: Path, everything: bool) -> None:
    progress: list[tuple[int, int]] = []
    scans = make_mixture(tmp_path)
    reading = Reading((LESION,), lesion_slices_only=not everything)
    plan = decode_all(scans, reading, tmp_path, lambda *done: progress.append(done))
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]
    kept = [(row["scan"], row["index"]) for row in plan.record["slices"]]
    stack = [0, 1, 2] if everything else [1]
    assert kept == [
        *[(0, 0)] * everything,
        *((scan, i) for scan in (1, 2) for i in stack),
        (3, 0),
    ]
    assert [row["slices"] for row in plan.record["scans"]] == [1, 3, 3, 1]
    expected = [
        *[(np.full((5, 3), 9, np.uint8), np.zeros((5, 3)))] * everything,
        *((IMAGES[i], MASKS[i]) for i in stack),
        *((IMAGES[i] / np.float32(3), MASKS[i]) for i in stack),
        (np.full((5, 3), 7, np.uint8), np.ones((5, 3))),
    ]
    for (image, mask), (image_before, mask_before) in zip(
        decoded_slices(tmp_path, plan), expected, strict=True
    ):
        assert image.dtype == image_before.dtype
        np.testing.assert_array_equal(image, image_before)
        np.testing.assert_array_equal(mask, mask_before)
    sizes = {name: shape[0] for name, (_, shape) in plan.arrays.items()}
    assert sizes == {n: (tmp_path / f"{n}.bin").stat().st_size for n in ("images", "masks")}


def test_what_is_recorded_of_a_slice(tmp_path: Path) -> None:
    scan = make_scan(tmp_path, affine=np.diag([-0.5, -0.25, 1.0, 1.0]))
    (row,) = decode_all([scan], MERGED, tmp_path, silent).record["slices"]
    assert row["range"] == (IMAGES[1].min(), IMAGES[1].max())
    assert row["label_pixels"] == [17, 3]
    assert row["spacing"] == (0.25, 0.5)
    assert row["digest"] == pixel_digest(IMAGES[1])
    assert row["mask_digest"] == pixel_digest(MASKS[1])


def test_digests_are_of_values_and_shape() -> None:
    pixels = IMAGES[0]
    for same in (pixels.astype(np.float64), pixels.astype(">i4"), np.asfortranarray(pixels)):
        assert pixel_digest(same) == pixel_digest(pixels)
    other = pixels.copy()
    other[3, 4] += 1
    for changed in (other, pixels.T, pixels.reshape(5, 4), pixels[:, ::-1]):
        assert pixel_digest(changed) != pixel_digest(pixels)


def test_one_damaged_scan_of_many_is_named(tmp_path: Path) -> None:
    scans = [make_scan(tmp_path, name=f"s{i}") for i in range(9)]
    scans[6].image.write_bytes(scans[6].image.read_bytes()[:400])
    before = threading.active_count()
    with pytest.raises(DataError) as caught:
        decode_all(scans, MERGED, tmp_path, silent)
    assert str(scans[6].image) in str(caught.value)
    assert threading.active_count() == before


def change_image(scan: ScanFiles) -> ScanFiles:
    content = bytearray(scan.image.read_bytes())
    content[-1] ^= 1
    scan.image.write_bytes(content)
    return scan


def change_header(scan: ScanFiles) -> ScanFiles:
    """Its description, which no reader of pixels looks at."""
    content = bytearray(scan.image.read_bytes())
    content[150] ^= 1
    scan.image.write_bytes(content)
    return scan


def change_mask(scan: ScanFiles) -> ScanFiles:
    scan.mask.write_bytes(scan.mask.read_bytes() + b"\0")
    return scan


def swap(scan: ScanFiles) -> ScanFiles:
    return dataclasses.replace(scan, image=scan.mask, mask=scan.image)


def change_series(scan: ScanFiles) -> ScanFiles:
    (scan.image.parent / "series/2").write_bytes(b"tow")
    return scan


CHANGES: dict[str, Callable[[ScanFiles], ScanFiles]] = {
    "a byte of the image": change_image,
    "a byte of the header": change_header,
    "a byte of the mask": change_mask,
    "image for mask": swap,
    "a name": lambda scan: dataclasses.replace(scan, name="two"),
    "labels": lambda scan: dataclasses.replace(scan, labels={1: "ground_glass"}),
    "no mask": lambda scan: dataclasses.replace(scan, mask=None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_key_is_of_all_that_decides_what_is_decoded(tmp_path: Path, change: str) -> None:
    first, second = make_scan(tmp_path), make_scan(tmp_path, name="other")
    key = content_key([first, second], MERGED)
    assert len(key) == 32
    assert content_key([CHANGES[change](first), second], MERGED) != key


def test_the_key_is_of_the_scans_and_their_order(tmp_path: Path) -> None:
    first, second = make_scan(tmp_path), make_scan(tmp_path, IMAGES + 1, name="other")
    keys = {content_key(scans, MERGED) for scans in ([first], [first, second], [second, first])}
    assert len(keys) == 3


def test_the_key_is_of_how_the_scans_are_read(tmp_path: Path) -> None:
    scan = make_scan(tmp_path)
    readings = (
        MERGED,
        Reading((LESION,), lesion_slices_only=False),
        Reading((LESION, "effusion")),
        Reading((LESION,), series=("1.2.3",)),
    )
    assert len({content_key([scan], reading) for reading in readings}) == 4


def test_the_key_is_not_of_the_place_or_the_time(tmp_path: Path) -> None:
    here = make_scan(tmp_path / "here", patient="x")
    key = content_key([here], MERGED)
    for path in (here.image, here.mask):
        os.utime(path, (1, 1))
    assert content_key([here], MERGED) == key
    shutil.copytree(tmp_path / "here", tmp_path / "there/deep")
    there = make_scan(tmp_path / "there/deep", patient="y", published="train")
    assert content_key([there], MERGED) == key


@pytest.mark.parametrize("change", ["byte", "file", "name"])
def test_the_key_of_a_folder_is_of_all_its_files(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    for name in ("1", "2"):
        (folder / name).write_text(name)
    scan = dataclasses.replace(make_scan(tmp_path), image=folder)
    key = content_key([scan], MERGED)
    if change == "byte":
        (folder / "2").write_text("3")
    elif change == "file":
        (folder / "3").touch()
    else:
        (folder / "2").rename(folder / "3")
    assert content_key([scan], MERGED) != key


@pytest.mark.parametrize("where", ["opening", "listing"])
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(self: Path, *_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    scan = dataclasses.replace(make_scan(tmp_path / "a"), image=tmp_path / "a")
    monkeypatch.setattr(Path, "open" if where == "opening" else "iterdir", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)") as caught:
        content_key([scan], MERGED)
    assert str(tmp_path / "a") in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "loop", "pipe"])
def test_what_is_no_file_is_left_to_its_reader(tmp_path: Path, kind: str) -> None:
    """And never waited for."""
    scan = make_scan(tmp_path)
    scan.image.unlink()
    if kind == "loop":
        scan.image.symlink_to(scan.image)
    elif kind == "pipe":
        os.mkfifo(scan.image)
    content_key([scan], MERGED)
    assert str(scan.image) in refused(scan)


def test_results_come_in_order() -> None:
    """Though later ones are done earlier."""

    def work(number: int) -> int:
        time.sleep(0.01 * (3 - number % 4))
        return number**2

    assert list(in_order(work, range(20))) == [number**2 for number in range(20)]
    assert list(in_order(work, [])) == []


def test_work_is_done_in_several_threads_at_once() -> None:
    barrier = threading.Barrier(WORKERS)
    assert list(in_order(lambda _: barrier.wait(100) >= 0, range(WORKERS))) == [True] * WORKERS


def test_only_a_few_scans_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are and however slowly they are written."""
    begun: list[ScanFiles] = []
    most = 0

    def decode_at_once(scan: ScanFiles, reading: Reading) -> Decoded:
        begun.append(scan)
        return Decoded(IMAGES, MASKS, None, (), [InputForm()] * len(IMAGES))

    def slow(done: int, total: int) -> None:
        nonlocal most
        time.sleep(0.002)
        most = max(most, len(begun) - done)

    monkeypatch.setattr(module, "decode", decode_at_once)
    decode_all(
        [ScanFiles(str(i), "", tmp_path, tmp_path) for i in range(40)], MERGED, tmp_path, slow
    )
    assert len(begun) == 40
    assert 0 < most <= WORKERS


def test_a_scan_takes_a_few_times_its_own_memory(tmp_path: Path) -> None:
    """int16 and uint8 take 3 bytes a voxel; to look for NaN takes as much again and a bit."""
    images = np.zeros((16, 256, 256), np.int16)
    scan = make_scan(tmp_path, images, np.ones_like(images, np.uint8))
    decode(scan, MERGED)
    tracemalloc.start()
    decode(scan, MERGED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / images.size < 10
