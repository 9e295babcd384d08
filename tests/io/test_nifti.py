"""NIfTI reading and writing against nibabel and against affines written by hand."""

import itertools
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from covid_jax.errors import DataError
from covid_jax.io.geometry import Geometry, offset_mm
from covid_jax.io.nifti import read_stack, write_like, write_stack

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


def tilted(codes: str, degrees: float = 20.0) -> np.ndarray:
    """The affine of a patient whose head is bent forward."""
    tilt = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    return turn @ affine_of(codes)


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


def displayed(path: Path) -> np.ndarray:
    """What a radiologist sees, by nibabel alone: (right, front, head) axes, turned by hand."""
    canonical = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)
    return canonical[::-1, ::-1].transpose(2, 1, 0)


def assert_same_grid(written: Path, original: Path) -> None:
    """By nibabel alone, and to the last bit."""
    one, other = nib.load(written), nib.load(original)
    assert type(one) is type(other)
    assert one.shape == other.shape
    np.testing.assert_array_equal(one.affine, other.affine)
    assert one.header.get_zooms() == other.header.get_zooms()
    assert one.header.get_xyzt_units() == other.header.get_xyzt_units()
    for form in ("get_sform", "get_qform"):
        matrix, code = getattr(one, form)(coded=True)
        expected, expected_code = getattr(other, form)(coded=True)
        assert code == expected_code
        np.testing.assert_array_equal(matrix, expected)


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
    path = save(tmp_path / "tilted.nii", array_of("LAS"), tilted("LAS"))
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


@pytest.mark.parametrize(
    ("units", "mm"),
    [("meter", 1000.0), ("mm", 1.0), ("micron", 0.001), ("unknown", 1.0), (5, 1.0), (255, 1.0)],
)
@pytest.mark.parametrize("affine", [affine_of("LPS"), None])
def test_spacing_is_in_mm_whatever_the_units(
    tmp_path: Path, units: str | int, mm: float, affine: np.ndarray | None
) -> None:
    image = nib.Nifti1Image(array_of("LPS"), affine)
    image.header.set_zooms(ZOOMS)
    if isinstance(units, str):
        image.header.set_xyzt_units(units, "sec")
    else:
        image.header["xyzt_units"] = units  # a number that stands for none
    nib.save(image, tmp_path / "image.nii")
    stack, geometry = read_stack(tmp_path / "image.nii")
    np.testing.assert_allclose(geometry.spacing, np.multiply((3.0, 2.0, 1.5), mm))
    write_like(tmp_path / "mask.nii", stack > 20, geometry)
    one, other = (nib.load(tmp_path / f"{name}.nii") for name in ("mask", "image"))
    np.testing.assert_array_equal(one.affine, other.affine)
    assert int(one.header["xyzt_units"]) == int(other.header["xyzt_units"])


def test_a_mask_in_other_units_lies_where_its_image_does(tmp_path: Path) -> None:
    image = save(tmp_path / "image.nii", array_of("LPS"), affine_of("LPS"))
    mask = nib.Nifti1Image(array_of("LPS"), np.diag([1e-3, 1e-3, 1e-3, 1.0]) @ affine_of("LPS"))
    mask.header.set_xyzt_units("meter")
    nib.save(mask, tmp_path / "mask.nii")
    _, geometry = read_stack(image)
    assert offset_mm(read_stack(tmp_path / "mask.nii", like=geometry)[1], geometry) == 0.0


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
    path = save(tmp_path / "scaled.nii", array_of("LPS"), affine_of("LPS"))
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(content)
    stack, _ = read_stack(path)
    np.testing.assert_array_equal(stack, array_of("LPS").transpose(2, 1, 0) * factor + offset)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_number_type_and_values_are_kept(tmp_path: Path, dtype: str) -> None:
    array = array_of("LPS").astype(dtype)
    nib.save(nib.Nifti1Image(array, affine_of("LPS"), dtype=dtype), tmp_path / "volume.nii")
    stack, _ = read_stack(tmp_path / "volume.nii")
    assert stack.dtype == np.dtype(dtype)
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


@pytest.mark.parametrize("codes", ALL_CODES)
def test_a_mask_is_written_into_its_images_grid(tmp_path: Path, codes: str) -> None:
    for affine, form in itertools.product((affine_of(codes), tilted(codes)), ("sform", "qform")):
        image = save(tmp_path / "image.nii", array_of(codes), affine, form)
        stack, geometry = read_stack(image)
        mask = (stack > 20).astype(np.uint8)
        write_like(tmp_path / "mask.nii.gz", mask, geometry)
        assert_same_grid(tmp_path / "mask.nii.gz", image)
        written = np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj)
        assert written.dtype == np.uint8
        np.testing.assert_array_equal(written, array_of(codes) > 20)
        again, same = read_stack(tmp_path / "mask.nii.gz", like=geometry)
        np.testing.assert_array_equal(again, mask)
        assert offset_mm(same, geometry) == 0.0


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PSR", "IAL"])
def test_a_voxel_is_written_where_it_was_in_the_world(tmp_path: Path, codes: str) -> None:
    """The image's value is its voxel's place, in mm along a direction askew to all axes."""

    def brightness(path: Path) -> np.ndarray:
        image = nib.load(path)
        indices = np.indices(image.shape).reshape(3, -1)
        place = nib.affines.apply_affine(image.affine, indices.T)
        return (place @ [0.31, -0.57, 0.76]).reshape(image.shape)

    image = save(tmp_path / "image.nii", np.zeros_like(array_of(codes)), tilted(codes))
    bright = brightness(image).astype(np.float32)
    save(image, bright, tilted(codes))
    stack, geometry = read_stack(image)
    write_like(tmp_path / "mask.nii", stack > np.median(bright), geometry)
    mask = np.asarray(nib.load(tmp_path / "mask.nii").dataobj)
    np.testing.assert_array_equal(mask, brightness(tmp_path / "mask.nii") > np.median(bright))
    assert 0 < mask.sum() < mask.size


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (5, 4, 3, 1), (5, 4, 1, 1, 1)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_word_of_a_header_on_space_is_kept(
    tmp_path: Path, kind: Any, shape: tuple[int, ...], suffix: str, order: str
) -> None:
    """Two forms that differ in place and code, units, voxel sizes that fit neither."""
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype("i2").newbyteorder(order))
    image = kind(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), None, header)
    image.header.set_sform(tilted("LPI"), code=4)
    image.header.set_qform(tilted("LPI", 10.0), code=3)
    image.header.set_zooms([1.25, 2.25, 3.25, 7.0, 9.0][: len(shape)])
    image.header.set_xyzt_units("micron", "msec")
    nib.save(image, tmp_path / f"image{suffix}")
    stack, geometry = read_stack(tmp_path / f"image{suffix}")
    write_like(tmp_path / f"mask{suffix}", stack.astype(np.float32) / 8, geometry)
    assert_same_grid(tmp_path / f"mask{suffix}", tmp_path / f"image{suffix}")
    written = np.asarray(nib.load(tmp_path / f"mask{suffix}").dataobj)
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, np.arange(np.prod(shape)).reshape(shape) / 8)


def test_a_file_without_orientation_is_given_none(tmp_path: Path) -> None:
    image = nib.Nifti1Image(array_of("LPS"), None)
    image.header.set_zooms((0.5, 0.75, 4.0))
    nib.save(image, tmp_path / "image.nii")
    stack, geometry = read_stack(tmp_path / "image.nii")
    write_like(tmp_path / "mask.nii", stack > 20, geometry)
    assert_same_grid(tmp_path / "mask.nii", tmp_path / "image.nii")
    mask = nib.load(tmp_path / "mask.nii")
    assert (int(mask.header["sform_code"]), int(mask.header["qform_code"])) == (0, 0)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), array_of("LPS") > 20)


def test_nothing_of_an_images_values_is_taken_over(tmp_path: Path) -> None:
    image = nib.Nifti1Image(array_of("LPS"), affine_of("LPS"))
    image.header.set_slope_inter(2.0, -1024.0)
    image.header["cal_min"], image.header["cal_max"] = -1024, 3071
    image.header["descrip"] = b"a patient's name"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"another"))
    nib.save(image, tmp_path / "image.nii")
    stack, geometry = read_stack(tmp_path / "image.nii")
    write_like(tmp_path / "mask.nii", np.full(stack.shape, 3, np.uint8), geometry)
    mask = nib.load(tmp_path / "mask.nii")
    assert (np.asarray(mask.dataobj) == 3).all()
    assert (mask.dataobj.slope, mask.dataobj.inter) == (1.0, 0.0)
    assert (mask.header["cal_min"], mask.header["cal_max"]) == (0, 0)
    assert b"patient" not in (tmp_path / "mask.nii").read_bytes()
    assert len(mask.header.extensions) == 0


@pytest.mark.parametrize(
    ("given", "stored"),
    [("?", "u1"), ("u1", "u1"), ("i2", "i2"), ("f4", "f4")],
)
def test_number_types_that_are_written(tmp_path: Path, given: str, stored: str) -> None:
    stack = (array_of("LPS").T > 20).astype(given)
    write_stack(tmp_path / "mask.nii", stack)
    image = nib.load(tmp_path / "mask.nii")
    assert image.get_data_dtype() == np.dtype(stored)
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, stack)


def test_a_stack_of_another_shape_is_no_mask_of_the_image(tmp_path: Path) -> None:
    image = save(tmp_path / "image.nii", array_of("PSR"), affine_of("PSR"))
    stack, geometry = read_stack(image)
    with pytest.raises(ValueError, match="shape"):
        write_like(tmp_path / "mask.nii", stack.transpose(0, 2, 1), geometry)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(image: nib.Nifti1Image, path: Path) -> None:
        Path(path).write_bytes(image.to_bytes()[:100])
        raise OSError("no space left on device")

    stack = array_of("LPS").T
    write_stack(tmp_path / "mask.nii", stack)
    monkeypatch.setattr(nib.Nifti1Image, "to_filename", half)
    with pytest.raises(OSError, match="no space"):
        write_stack(tmp_path / "mask.nii", stack + 1)
    np.testing.assert_array_equal(read_stack(tmp_path / "mask.nii")[0], stack)
    assert list(tmp_path.iterdir()) == [tmp_path / "mask.nii"]


@pytest.mark.parametrize("name", ["mask.png", "mask", "mask.nii.zip", "mask.hdr"])
def test_a_name_that_is_no_niftis_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=name):
        write_stack(tmp_path / name, np.zeros((1, 2, 2), np.uint8))
    assert not any(tmp_path.iterdir())


def test_a_geometry_from_elsewhere_is_written_in_scanner_coordinates(tmp_path: Path) -> None:
    """As a DICOM series gives it: coronal slices, 3 mm apart, without a NIfTI header."""
    affine = affine_of("LIP")
    geometry = Geometry(affine, array_of("LIP").shape, oriented=True)
    write_like(tmp_path / "mask.nii", geometry.to_stack(array_of("LIP")), geometry)
    image = nib.load(tmp_path / "mask.nii")
    np.testing.assert_array_equal(image.affine, affine)
    np.testing.assert_array_equal(np.asarray(image.dataobj), array_of("LIP"))
    assert image.header["sform_code"] == 1  # NIFTI_XFORM_SCANNER_ANAT
    assert image.header.get_zooms() == (1.5, 3.0, 2.0)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_a_geometry_from_elsewhere_without_orientation_gets_none(tmp_path: Path) -> None:
    geometry = Geometry(np.diag([0.5, 0.75, 4.0, 1.0]), (5, 4, 3), oriented=False)
    write_like(tmp_path / "mask.nii", array_of("LPS").T, geometry)
    image = nib.load(tmp_path / "mask.nii")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (0, 0)
    assert image.header.get_zooms() == (0.5, 0.75, 4.0)
    np.testing.assert_array_equal(np.asarray(image.dataobj), array_of("LPS"))


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


def test_a_mask_that_lost_its_origin_is_taken_and_its_distance_told(tmp_path: Path) -> None:
    array = array_of("LPS")
    image = save(tmp_path / "image.nii", array, affine_of("LPS"))
    affine = affine_of("LPS")
    affine[:3, 3] += (3.0, 0.0, 4.0)
    mask = save(tmp_path / "mask.nii", (array > 20).astype(np.uint8), affine)
    stack, geometry = read_stack(image)
    read, own = read_stack(mask, like=geometry)
    np.testing.assert_array_equal(read, stack > 20)
    assert offset_mm(own, geometry) == pytest.approx(5.0)


def test_a_turned_mask_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    """Nothing says whether its slices correspond as stored or as displayed."""
    image = save(tmp_path / "image.nii", array_of("LPS"), affine_of("LPS"))
    canonical = nib.as_closest_canonical(nib.load(image))
    affine = canonical.affine.copy()
    affine[0, 3] += 3.0
    mask = save(tmp_path / "mask.nii", np.asarray(canonical.dataobj), affine)
    _, geometry = read_stack(image)
    with pytest.raises(DataError, match=r"mask\.nii.*3\.0 mm"):
        read_stack(mask, like=geometry)


@pytest.mark.parametrize("oriented", ["image", "mask", "neither"])
def test_where_one_does_not_say_how_it_lies_no_distance_is_told(
    tmp_path: Path, oriented: str
) -> None:
    paths = [
        save(tmp_path / f"{name}.nii", array_of("LPS"), affine_of("LPS") if says else None)
        for name, says in (("image", oriented == "image"), ("mask", oriented == "mask"))
    ]
    _, geometry = read_stack(paths[0])
    assert offset_mm(read_stack(paths[1], like=geometry)[1], geometry) == 0.0


def test_real_masks_lie_on_their_images(real_data: Path) -> None:
    pairs = 0
    for image in sorted((real_data / "radiopaedia" / "rp_im").glob("*.nii.gz")):
        stack, geometry = read_stack(image)
        for folder in ("rp_msk", "rp_lung_msk"):
            mask, own = read_stack(image.parents[1] / folder / image.name, like=geometry)
            assert mask.shape == stack.shape
            assert offset_mm(own, geometry) == 0.0
            pairs += 1
    assert pairs == 20


@pytest.mark.parametrize("excess", [1e-7, 1e-6, 1e-4])
def test_a_quaternion_a_little_too_long_is_one_of_unit_length(
    tmp_path: Path, excess: float
) -> None:
    """nifti1_io.c takes it so; nibabel refuses it. (0, 0, 1) turns by 180 degrees about z: LPS."""
    path = save(tmp_path / "a.nii", array_of("LPS"), affine_of("LPS"), "qform")
    content = bytearray(path.read_bytes())
    content[256:268] = np.array([0, 0, np.sqrt(1 + excess)], np.float32).tobytes()
    path.write_bytes(content)
    stack, geometry = read_stack(path)
    np.testing.assert_array_equal(stack, array_of("LPS").transpose(2, 1, 0))
    np.testing.assert_allclose(geometry.affine, affine_of("LPS"), atol=1e-5)
    write_like(tmp_path / "mask.nii", stack, geometry)
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii").affine, affine_of("LPS"), atol=1e-5)


def test_a_quaternion_far_too_long_is_refused_for_what_it_is(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", array_of("LPS"), affine_of("LPS"), "qform")
    content = bytearray(path.read_bytes())
    content[256:268] = np.array([0, 0, 1.5], np.float32).tobytes()
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.nii: not a readable NIfTI file") as caught:
        read_stack(path)
    assert "download" not in str(caught.value)


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


def test_a_mask_of_a_real_scan_is_written_into_its_grid(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "io" / "chest_ct_hu.nii.gz"
    stack, geometry = read_stack(path)
    write_like(tmp_path / "lungs.nii.gz", stack < -700, geometry)
    assert_same_grid(tmp_path / "lungs.nii.gz", path)
    lungs = np.asarray(nib.load(tmp_path / "lungs.nii.gz").dataobj)
    np.testing.assert_array_equal(lungs, np.asarray(nib.load(path).dataobj) < -700)
