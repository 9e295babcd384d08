"""Damaged, lying and odd NIfTI files end in their right voxels or in an error that names them."""

import gzip
import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from covid_jax.errors import DataError
from covid_jax.io.nifti import read_stack
from tests.support.damage import damaged_nifti

VOXELS = np.random.default_rng(0).permutation(60).reshape(5, 4, 3).astype(np.int16)
STACK = VOXELS.transpose(2, 1, 0)
CONTENT = nib.Nifti1Image(VOXELS, np.diag([-1.0, -1.0, 2.0, 1.0])).to_bytes()  # L-P-S


def with_field(start: int, kind: str, *values: float | bytes, content: bytes = CONTENT) -> bytes:
    """A header's field replaced; where it stands and its type are nifti1.h's."""
    field = struct.pack(kind, *values)
    return content[:start] + field + content[start + len(field) :]


def put(folder: Path, content: bytes, suffix: str = ".nii") -> Path:
    path = folder / f"volume{suffix}"
    path.write_bytes(content)
    return path


def pack(content: bytes, suffix: str) -> bytes:
    return gzip.compress(content, mtime=0) if suffix == ".nii.gz" else content


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_stack(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def read_or_refusal(path: Path) -> np.ndarray | DataError:
    try:
        return read_stack(path)[0]
    except DataError as error:
        return error


def nibabels(path: Path) -> np.ndarray | None:
    """The displayed stack by nibabel alone, its noise unheard; None where it gives up."""
    try:
        with warnings.catch_warnings(action="ignore"):
            image = nib.load(path)
            array = np.asarray(image.dataobj)
    except (OSError, ValueError, nib.filebasedimages.ImageFileError):
        return None
    if image.dataobj.offset == 0:  # it takes the header's bytes for voxels
        return None
    array = array.reshape((*array.shape, 1)[:3] if array.ndim < 4 else array.shape[:3])
    if max(image.header["sform_code"], image.header["qform_code"]) > 0:
        turned = nib.Nifti1Image(array.astype(np.float64), image.affine)
        array = np.asarray(nib.as_closest_canonical(turned).dataobj)[::-1, ::-1]
    return array.transpose(2, 1, 0)


def test_200_damaged_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each is refused by name or read, in silence and little memory, as nibabel reads it."""
    rng = np.random.default_rng(0)
    read, refused = [], 0
    tracemalloc.start()
    for trial in range(200):
        path = tmp_path / f"{trial}.nii{'.gz' if trial % 2 else ''}"
        damage = damaged_nifti(rng, path)
        tracemalloc.reset_peak()
        outcome = read_or_refusal(path)
        if isinstance(outcome, DataError):
            assert str(outcome).startswith(f"{path}: "), damage
            refused += 1
        else:
            assert outcome.size > 0, damage
            read.append((path, damage, outcome))
        assert tracemalloc.get_traced_memory()[1] < 10e6, damage
    tracemalloc.stop()
    assert caplog.records == []
    assert refused > 50
    compared = [(damage, stack, nibabels(path)) for path, damage, stack in read]
    assert sum(other is not None for *_, other in compared) > 50
    for damage, stack, other in compared:
        if other is not None:
            np.testing.assert_array_equal(stack, other, err_msg=damage)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_claim_of_10_gb_is_refused_before_memory_is_taken(
    tmp_path: Path, version: int, suffix: str
) -> None:
    if version == 1:
        content = with_field(40, "<4h", 3, 32767, 32767, 5)  # of int16: 10.7e9 bytes
    else:
        image = nib.Nifti2Image(VOXELS, np.eye(4))
        content = with_field(16, "<4q", 3, 10**5, 10**5, 10**5, content=image.to_bytes())
    path = put(tmp_path, pack(content, suffix), suffix)
    assert path.stat().st_size < 1024
    tracemalloc.start()
    message = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "claims" in message
    assert peak < 1e6


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_empty_volume_packs_a_thousandfold_and_is_read(tmp_path: Path, suffix: str) -> None:
    """Zeros come near the 1032 : 1 that deflate can do."""
    content = nib.Nifti1Image(np.zeros((256, 256, 64), np.int16), np.eye(4)).to_bytes()
    path = put(tmp_path, pack(content, suffix), suffix)
    stack, _ = read_stack(path)
    assert stack.shape == (64, 256, 256)
    assert not stack.any()
    assert suffix == ".nii" or path.stat().st_size < len(content) / 900


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_cut_short_is_refused_wherever_it_was(tmp_path: Path, suffix: str) -> None:
    """Even where only gzip's closing checksum is missing."""
    content = pack(CONTENT, suffix)
    for length in (*range(0, len(content), 7), len(content) - 8, len(content) - 1):
        refusal(put(tmp_path, content[:length], suffix))
    np.testing.assert_array_equal(read_stack(put(tmp_path, content, suffix))[0], STACK)


@pytest.mark.parametrize("magic", [b"\0\0\0\0", b"abc\0", b"n+2\0", b"ni1\0"])
def test_refuses_a_wrong_magic_string(tmp_path: Path, magic: bytes) -> None:
    """Of ``ni1`` the voxels are in another file."""
    assert CONTENT[344:348] == b"n+1\0"
    assert "magic" in refusal(put(tmp_path, with_field(344, "4s", magic)))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(with_field(40, "<h", 200), id="200 dimensions"),
        pytest.param(with_field(40, "<h", 0), id="no dimensions"),
        pytest.param(with_field(40, "<h", -3), id="minus 3 dimensions"),
        pytest.param(with_field(42, "<h", -5), id="negative width"),
        pytest.param(with_field(46, "<h", 0), id="no slices"),
        pytest.param(with_field(46, "<h", 4), id="a slice too many"),
        pytest.param(with_field(70, "<h", 9999), id="unknown data type"),
        pytest.param(with_field(70, "<h", 1), id="one bit a voxel"),
        pytest.param(with_field(70, "<h", 64), id="float64 claimed of int16"),
        pytest.param(with_field(108, "<f", 1e6), id="voxels beyond the file"),
        pytest.param(with_field(108, "<f", 4.0), id="voxels inside the header"),
        pytest.param(with_field(108, "<f", -352.0), id="voxels before the file"),
        pytest.param(with_field(108, "<f", np.nan), id="voxels at NaN"),
        pytest.param(with_field(108, "<f", np.inf), id="voxels at infinity"),
        pytest.param(with_field(116, "<f", np.nan), id="intercept NaN"),
        pytest.param(with_field(116, "<f", np.inf), id="infinite intercept"),
        pytest.param(with_field(280, "<12f", *[0.0] * 12), id="affine of zeros"),
        pytest.param(with_field(288, "<f", np.nan), id="NaN in the affine"),
        pytest.param(with_field(292, "<f", np.inf), id="infinite origin"),
        pytest.param(with_field(300, "<f", 0.0), id="flat axis"),
        pytest.param(CONTENT + b"\0" * 2**20, id="far more than it claims"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_refuses_a_header_that_lies(tmp_path: Path, content: bytes, suffix: str) -> None:
    refusal(put(tmp_path, pack(content, suffix), suffix))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(with_field(0, "<i", 349), id="another header length"),
        pytest.param(with_field(72, "<h", 64), id="another voxel length"),
        pytest.param(with_field(76, "<f", 7.0), id="a qfac of 7"),
        pytest.param(with_field(80, "<3f", -1.0, 0.0, np.nan), id="no voxel size beside an sform"),
        pytest.param(with_field(108, "<f", 0.0), id="voxels right behind the header"),
        pytest.param(with_field(112, "<2f", 0.0, np.nan), id="slope 0"),
        pytest.param(with_field(112, "<2f", np.nan, np.inf), id="slope NaN"),
        pytest.param(with_field(112, "<2f", np.inf, 3.0), id="infinite slope"),
        pytest.param(with_field(252, "<h", 99), id="unknown qform code"),
        pytest.param(with_field(256, "<f", np.nan), id="broken qform beside an sform"),
        pytest.param(CONTENT + b"from somewhere else", id="a tail"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_reads_past_small_faults_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, suffix: str
) -> None:
    """By the standard a slope of 0 scales nothing; nibabel takes one that is not finite so too."""
    stack, geometry = read_stack(put(tmp_path, pack(content, suffix), suffix))
    np.testing.assert_array_equal(stack, STACK)
    assert stack.dtype == np.int16
    assert geometry.directions() == "L-P-S"
    assert geometry.spacing == (2.0, 1.0, 1.0)
    assert caplog.records == []


def test_values_that_overflow_are_infinite_without_a_warning(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.full((2, 2, 2), 1e308), np.eye(4))
    content = with_field(112, "<2f", 1000.0, 0.0, content=image.to_bytes())
    stack, _ = read_stack(put(tmp_path, content))
    assert np.isposinf(stack).all()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("size", [16, 7, 0, -16, 2**31 - 1])
def test_extensions_are_stepped_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int, suffix: str
) -> None:
    """An extension's length is none of our business: vox_offset says where the voxels are."""
    header = with_field(108, "<f", 384.0)[:348] + b"\1\0\0\0"
    content = header + struct.pack("<ii", size, 6) + b"a remark".ljust(24, b"\0") + CONTENT[352:]
    stack, _ = read_stack(put(tmp_path, pack(content, suffix), suffix))
    np.testing.assert_array_equal(stack, STACK)
    assert caplog.records == []


@pytest.mark.parametrize("dtype", [">u2", ">i4", ">f4", ">f8"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_big_endian_files_are_read_into_native_numbers(
    tmp_path: Path, kind: type[nib.Nifti1Image], dtype: str
) -> None:
    header = kind.header_class(endianness=">")
    header.set_data_dtype(dtype)
    image = kind(VOXELS.astype(dtype), np.diag([-1.0, -1.0, 2.0, 1.0]), header)
    stack, geometry = read_stack(put(tmp_path, image.to_bytes()))
    np.testing.assert_array_equal(stack, STACK)
    assert stack.dtype == np.dtype(dtype).newbyteorder("=")
    assert stack.dtype.isnative
    assert geometry.spacing == (2.0, 1.0, 1.0)


def test_what_a_file_is_counts_not_its_name(tmp_path: Path) -> None:
    packed = put(tmp_path, gzip.compress(CONTENT), ".nii")
    np.testing.assert_array_equal(read_stack(packed)[0], STACK)
    plain = put(tmp_path, CONTENT, ".nii.gz")
    np.testing.assert_array_equal(read_stack(plain)[0], STACK)


def test_a_gzip_file_of_several_members_is_one_file(tmp_path: Path) -> None:
    """As bgzip writes, and padded with zeros as tapes do."""
    content = gzip.compress(CONTENT[:100]) + gzip.compress(CONTENT[100:]) + bytes(512)
    np.testing.assert_array_equal(read_stack(put(tmp_path, content, ".nii.gz"))[0], STACK)


@pytest.mark.parametrize("place", [-8, -1])
def test_refuses_a_gzip_file_whose_checksum_or_length_differs(tmp_path: Path, place: int) -> None:
    """The last eight bytes: crc32, then the length."""
    content = bytearray(gzip.compress(CONTENT))
    assert content[-8:-4] == struct.pack("<I", zlib.crc32(CONTENT))
    content[place] ^= 1
    refusal(put(tmp_path, content, ".nii.gz"))


def test_a_tail_packed_a_thousandfold_is_not_unpacked(tmp_path: Path) -> None:
    """128 MB of zeros in a second gzip member, behind the whole volume."""
    path = put(tmp_path, gzip.compress(CONTENT) + gzip.compress(bytes(2**27)), ".nii.gz")
    tracemalloc.start()
    refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x1f\x8b", id="gzip's first bytes"),
        pytest.param(b"not an image at all", id="short text"),
        pytest.param(b"<html>404: not found</html>" * 40, id="a web page"),
    ],
)
def test_refuses_a_file_of_something_else(tmp_path: Path, content: bytes, suffix: str) -> None:
    refusal(put(tmp_path, content, suffix))


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")
    (tmp_path / "dangling.nii.gz").symlink_to("nowhere.nii.gz")
    os.mkfifo(tmp_path / "pipe.nii.gz")  # to open it would wait for ever
    assert "folder" in refusal(tmp_path / "folder.nii.gz")
    for name in ("absent", "loop", "dangling"):
        assert "no such file" in refusal(tmp_path / f"{name}.nii.gz")
    assert "a named pipe or a device" in refusal(tmp_path / "pipe.nii.gz")


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.zeros((4, 4, 3, 2), np.int16), id="4-D"),
        pytest.param(np.zeros((4, 4, 3, 1, 2), np.int16), id="5-D"),
        pytest.param(np.zeros((4,), np.int16), id="1-D"),
        pytest.param(np.zeros((4, 4, 3), np.complex64), id="complex"),
        pytest.param(np.zeros((4, 4, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")]), id="RGB"),
        pytest.param(np.zeros((4, 0, 3), np.int16), id="no rows"),
        pytest.param(np.zeros((4, 4, 0), np.int16), id="no slices"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_refuses_what_is_no_grey_volume(tmp_path: Path, array: np.ndarray, suffix: str) -> None:
    content = nib.Nifti1Image(array, np.eye(4)).to_bytes()
    assert "expected" in refusal(put(tmp_path, pack(content, suffix), suffix))


def test_refuses_no_voxel_size_where_nothing_else_lays_it_in_space(tmp_path: Path) -> None:
    content = nib.Nifti1Image(VOXELS, None).to_bytes()
    refusal(put(tmp_path, with_field(80, "<f", np.nan, content=content)))
