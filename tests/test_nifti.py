"""NIfTI reading and writing against nibabel and against affines written by hand."""

import gzip
import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from covid_jax.data.nifti import read_stack, write_stack
from covid_jax.errors import DataError

# nibabel's convention: world x grows to the patient's right, y to the front, z to the head.
WORLD_AXIS = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
GROWS_WITH_WORLD = "RAS"
ALL_CODES = [
    "".join(codes)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*axes)
]
EXTENT = (5, 4, 3)  # voxels right-left, front-back, feet-head
ZOOMS = (1.5, 2.0, 3.0)  # mm, likewise


def affine_of(codes: str) -> np.ndarray:
    """The affine of an array whose axes grow towards these three directions."""
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, code in enumerate(codes):
        world = WORLD_AXIS[code]
        affine[world, axis] = ZOOMS[world] * (1 if code in GROWS_WITH_WORLD else -1)
    affine[:3, 3] = (-80.0, 12.0, 300.0)
    return affine


def array_of(codes: str) -> np.ndarray:
    """A shuffled array without two equal voxels; -999 marks the right, front, lowest corner."""
    shape = tuple(EXTENT[WORLD_AXIS[code]] for code in codes)
    array = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape).astype(np.int16)
    array[tuple(-1 if code in "RAI" else 0 for code in codes)] = -999
    return array


def save(path: Path, array: np.ndarray, affine: np.ndarray | None, form: str = "sform") -> Path:
    """Writes with nibabel; without an affine both orientation codes are 0."""
    image = nib.Nifti1Image(array, affine)
    if affine is not None:
        image.set_sform(affine if form == "sform" else None, code=1 if form == "sform" else 0)
        image.set_qform(affine if form == "qform" else None, code=1 if form == "qform" else 0)
    nib.save(image, path)
    return path


def small_file(path: Path) -> bytes:
    save(path, array_of("LPS"), affine_of("LPS"))
    return path.read_bytes()


def displayed(path: Path) -> np.ndarray:
    """What a radiologist sees, by nibabel alone: (right, front, head) axes, turned by hand."""
    canonical = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)
    return canonical[::-1, ::-1].transpose(2, 1, 0)


def read_or_refusal(path: Path) -> np.ndarray | DataError:
    try:
        return read_stack(path)[0]
    except DataError as error:
        return error


@pytest.mark.parametrize("form", ["sform", "qform"])
@pytest.mark.parametrize("codes", ALL_CODES)
def test_every_axis_order_gives_the_same_display(tmp_path: Path, codes: str, form: str) -> None:
    path = save(tmp_path / "volume.nii", array_of(codes), affine_of(codes), form)
    stack, geometry = read_stack(path)
    assert stack.shape == (3, 4, 5)
    assert stack[0, 0, 0] == -999
    np.testing.assert_array_equal(stack, displayed(path))
    assert geometry.oriented
    np.testing.assert_allclose(geometry.spacing, (3.0, 2.0, 1.5), rtol=1e-6)


def test_all_48_axis_orders_are_tried() -> None:
    assert len(set(ALL_CODES)) == 48
    assert {"".join(nib.aff2axcodes(affine_of(codes))) for codes in ALL_CODES} == set(ALL_CODES)


def test_an_oblique_scan_takes_its_nearest_axes(tmp_path: Path) -> None:
    tilt = np.deg2rad(20.0)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    path = save(tmp_path / "tilted.nii", array_of("LAS"), turn @ affine_of("LAS"))
    stack, _ = read_stack(path)
    assert stack[0, 0, 0] == -999
    np.testing.assert_array_equal(stack, displayed(path))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_without_orientation_a_slices_transpose_is_the_picture(tmp_path: Path, suffix: str) -> None:
    array = array_of("LPS")
    path = save(tmp_path / f"volume{suffix}", array, None)
    header = nib.load(path).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)
    stack, geometry = read_stack(path)
    assert not geometry.oriented
    np.testing.assert_array_equal(stack, np.stack([array[:, :, z].T for z in range(3)]))


def test_without_orientation_spacing_is_the_files_zooms(tmp_path: Path) -> None:
    image = nib.Nifti1Image(array_of("LPS"), None)
    image.header.set_zooms((0.5, 0.75, 4.0))
    nib.save(image, tmp_path / "volume.nii")
    _, geometry = read_stack(tmp_path / "volume.nii")
    assert geometry.spacing == (4.0, 0.75, 0.5)


@pytest.mark.parametrize(
    ("slope", "intercept", "factor", "offset"),
    [(0.5, -1024.0, 0.5, -1024.0), (1.0, -1024.0, 1.0, -1024.0), (0.0, 7.0, 1.0, 0.0)],
)
def test_slope_and_intercept_are_applied(
    tmp_path: Path, slope: float, intercept: float, factor: float, offset: float
) -> None:
    """scl_slope and scl_inter stand at byte 112; by the NIfTI standard a slope of 0 scales nothing.

    All values are exact in binary.
    """
    path = tmp_path / "scaled.nii"
    content = bytearray(small_file(path))
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(content)
    stack, _ = read_stack(path)
    np.testing.assert_array_equal(stack, array_of("LPS").transpose(2, 1, 0) * factor + offset)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64, ">i2"])
def test_number_type_and_values_are_kept(tmp_path: Path, dtype: Any) -> None:
    array = array_of("LPS").astype(dtype)
    stack, _ = read_stack(save(tmp_path / "volume.nii", array, affine_of("LPS")))
    assert stack.dtype.kind == np.dtype(dtype).kind
    assert stack.dtype.itemsize == np.dtype(dtype).itemsize
    assert stack.flags.c_contiguous
    np.testing.assert_array_equal(stack, array.transpose(2, 1, 0))


@pytest.mark.parametrize("ones", [(), (1,), (1, 1), (1, 1, 1)])
def test_flat_files_and_trailing_single_axes(tmp_path: Path, ones: tuple[int, ...]) -> None:
    picture = np.arange(20, dtype=np.int16).reshape(4, 5)  # rows from the front, columns from right
    path = save(tmp_path / "flat.nii", picture.T.reshape(5, 4, *ones), affine_of("LPS"))
    assert nib.load(path).shape == (5, 4, *ones)
    stack, geometry = read_stack(path)
    np.testing.assert_array_equal(stack, picture[None])
    assert len(geometry.spacing) == 3


def test_a_series_of_one_volume_is_that_volume(tmp_path: Path) -> None:
    array = array_of("RAS")
    series = save(tmp_path / "series.nii", array[..., None], affine_of("RAS"))
    volume = save(tmp_path / "volume.nii", array, affine_of("RAS"))
    np.testing.assert_array_equal(read_stack(series)[0], displayed(volume))


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.zeros((4, 4, 3, 2), np.int16), id="4-D"),
        pytest.param(np.zeros((4,), np.int16), id="1-D"),
        pytest.param(np.zeros((4, 4, 3), np.complex64), id="complex"),
        pytest.param(np.zeros((4, 4, 3), RGB), id="RGB"),
        pytest.param(np.zeros((4, 0, 3), np.int16), id="no voxels"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_refuses_what_is_no_grey_volume(tmp_path: Path, array: np.ndarray, suffix: str) -> None:
    path = save(tmp_path / f"odd{suffix}", array, np.eye(4))
    with pytest.raises(DataError) as caught:
        read_stack(path)
    assert str(path) in str(caught.value)


def test_refuses_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.nii.gz", tmp_path):
        with pytest.raises(DataError) as caught:
            read_stack(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not an image at all", id="short text"),
        pytest.param(b"<html>404: not found</html>" * 40, id="a web page"),
    ],
)
def test_refuses_a_file_of_something_else(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"other{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_stack(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("magic", [b"\0\0\0\0", b"abc\0"])
def test_refuses_a_wrong_magic_string(tmp_path: Path, magic: bytes) -> None:
    path = tmp_path / "volume.nii"
    content = bytearray(small_file(path))
    assert content[344:348] == b"n+1\0"
    content[344:348] = magic
    path.write_bytes(content)
    with pytest.raises(DataError, match=str(path)):
        read_stack(path)


@pytest.mark.parametrize(
    "column", [pytest.param(0.0, id="flat axis"), pytest.param(np.nan, id="NaN")]
)
def test_refuses_an_affine_without_directions(tmp_path: Path, column: float) -> None:
    """srow_x, srow_y and srow_z stand at byte 280, four little-endian floats each."""
    path = tmp_path / "volume.nii"
    content = bytearray(small_file(path))
    rows = np.frombuffer(content[280:328], "<f4").reshape(3, 4).copy()
    np.testing.assert_array_equal(rows, affine_of("LPS")[:3].astype(np.float32))
    rows[:, 2] = column
    content[280:328] = rows.tobytes()
    path.write_bytes(content)
    with pytest.raises(DataError, match=str(path)):
        read_stack(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_cut_short_is_refused_or_whole(tmp_path: Path, suffix: str) -> None:
    """Only gzip's closing checksum can be missed without missing a voxel."""
    path = tmp_path / f"volume{suffix}"
    content = small_file(path)
    expected = displayed(path)
    for length in (*range(0, len(content), 7), len(content) - 9, len(content) - 1):
        path.write_bytes(content[:length])
        outcome = read_or_refusal(path)
        if isinstance(outcome, DataError):
            assert str(path) in str(outcome)
        else:
            assert suffix == ".nii.gz"
            assert length >= len(content) - 8
            np.testing.assert_array_equal(outcome, expected)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_corrupt_file_is_refused_or_read(tmp_path: Path, suffix: str) -> None:
    """Nothing but a DataError or a stack may come out of random bytes in header and data."""
    path = tmp_path / f"volume{suffix}"
    content = small_file(path)
    plain = gzip.decompress(content) if suffix == ".nii.gz" else content
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(60):
        packed = suffix == ".nii.gz" and trial % 2 == 0  # damage inside the compressed stream
        damaged = bytearray(content if packed else plain)
        reach = len(damaged) if packed or trial % 3 == 0 else 352
        for place in rng.integers(0, reach, size=4):
            damaged[place] = rng.integers(256)
        if suffix == ".nii.gz" and not packed:
            damaged = gzip.compress(damaged)
        path.write_bytes(damaged)
        outcome = read_or_refusal(path)
        if isinstance(outcome, DataError):
            assert str(path) in str(outcome)
            refused += 1
        else:
            assert outcome.ndim == 3
            assert outcome.size > 0
    assert refused > 0


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_what_is_written_reads_the_same(tmp_path: Path, suffix: str, dtype: Any) -> None:
    stack = np.random.default_rng(0).permutation(60).reshape(3, 4, 5).astype(dtype)
    path = tmp_path / f"written{suffix}"
    path.write_text("an old file")
    write_stack(path, stack, spacing=(5.0, 0.7, 0.6))
    again, geometry = read_stack(path)
    assert again.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(again, stack)
    np.testing.assert_allclose(geometry.spacing, (5.0, 0.7, 0.6), rtol=1e-6)
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_is_lps_to_nibabel(tmp_path: Path) -> None:
    stack = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    write_stack(tmp_path / "mask.nii.gz", stack, spacing=(5.0, 0.75, 0.5))
    image = nib.load(tmp_path / "mask.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.header.get_zooms() == (0.5, 0.75, 5.0)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.get_data_dtype() == np.uint8
    assert max(int(image.header["sform_code"]), int(image.header["qform_code"])) > 0
    np.testing.assert_array_equal(np.asarray(image.dataobj), stack.transpose(2, 1, 0))
    np.testing.assert_array_equal(displayed(tmp_path / "mask.nii.gz"), stack)


def test_a_mask_without_orientation_takes_its_images(tmp_path: Path) -> None:
    array = array_of("RAI")
    image_path = save(tmp_path / "image.nii", array, affine_of("RAI"))
    mask_path = save(tmp_path / "mask.nii", (array > 20).astype(np.uint8), None)
    _, geometry = read_stack(image_path)
    mask, taken = read_stack(mask_path, like=geometry)
    np.testing.assert_array_equal(mask, displayed(image_path) > 20)
    np.testing.assert_allclose(taken.affine, affine_of("RAI"), rtol=1e-6)
    assert not np.array_equal(read_stack(mask_path)[0], mask)


def test_a_mask_with_an_orientation_keeps_it(tmp_path: Path) -> None:
    """The same anatomy stored in another axis order lies over its image."""
    image_path = save(tmp_path / "image.nii", array_of("RAI"), affine_of("RAI"))
    other = nib.as_closest_canonical(nib.load(image_path))
    mask = (np.asarray(other.dataobj) > 20).astype(np.uint8)
    mask_path = save(tmp_path / "mask.nii", mask, other.affine)
    _, geometry = read_stack(image_path)
    np.testing.assert_array_equal(
        read_stack(mask_path, like=geometry)[0], displayed(image_path) > 20
    )


def test_a_mask_said_to_lie_elsewhere_is_refused(tmp_path: Path) -> None:
    """The image's own array saved with the affine at hand, the identity: every slice mirrored."""
    array = array_of("LPS")
    image_path = save(tmp_path / "image.nii", array, np.diag([-1.0, -1.0, 1.0, 1.0]))
    mask_path = save(tmp_path / "mask.nii", (array > 20).astype(np.uint8), np.eye(4))
    _, geometry = read_stack(image_path)
    with pytest.raises(DataError, match="elsewhere than its image"):
        read_stack(mask_path, like=geometry)


def test_a_mask_takes_the_geometry_of_an_image_without_orientation(tmp_path: Path) -> None:
    array = array_of("LPS")
    image_path = save(tmp_path / "image.nii", array, None)
    mask_path = save(tmp_path / "mask.nii", (array > 20).astype(np.uint8), np.eye(4))
    stack, geometry = read_stack(image_path)
    np.testing.assert_array_equal(read_stack(mask_path, like=geometry)[0], stack > 20)


def test_nifti_2_is_read(tmp_path: Path) -> None:
    array = array_of("LPS")
    nib.save(nib.Nifti2Image(array, affine_of("LPS")), tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read_stack(tmp_path / "two.nii.gz")[0], array.transpose(2, 1, 0))


def test_real_chest_ct_reads_in_hounsfield_units(real_data: Path) -> None:
    """Air about -1000 HU, aerated lung about -850, muscle about 50; 1.5 mm, stored LPS."""
    path = real_data / "io" / "chest_ct_hu.nii.gz"
    stack, geometry = read_stack(path)
    assert stack.shape == (112, 102, 122)
    assert stack.dtype == np.int16
    assert geometry.oriented
    np.testing.assert_allclose(geometry.spacing, (1.5, 1.5, 1.5), rtol=1e-5)
    np.testing.assert_array_equal(stack, displayed(path))
    assert -1100 < stack.min() < -1000
    lung, soft = stack[stack < -700], stack[(stack > -200) & (stack < 200)]
    assert -900 < np.median(lung) < -800
    assert -50 < np.median(soft) < 100
