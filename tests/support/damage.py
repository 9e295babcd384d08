"""Damaged files for fuzzing, drawn from a generator; each says in words what was done to it.

A kind of damage is a plain function of a generator and a file's bytes. Those of ``ANY_FILE`` fit
every format; a further format adds its own table and a function such as ``damaged_nifti``.
"""

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np

Damage = Callable[[np.random.Generator, bytes], bytes]


def cut_short(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: rng.integers(len(content))]


def with_a_hole(rng: np.random.Generator, content: bytes) -> bytes:
    start, end = sorted(rng.integers(len(content), size=2))
    return content[:start] + content[end + 1 :]


def with_zeros(rng: np.random.Generator, content: bytes) -> bytes:
    start, end = sorted(rng.integers(len(content), size=2))
    return content[:start] + bytes(end - start) + content[end:]


def with_random_bytes(rng: np.random.Generator, content: bytes) -> bytes:
    damaged = bytearray(content)
    for place in rng.integers(len(content), size=rng.integers(1, 9)):
        damaged[place] = rng.integers(256)
    return bytes(damaged)


def with_a_tail(rng: np.random.Generator, content: bytes) -> bytes:
    return content + rng.bytes(rng.integers(1, 3000))


def sent_as_text(rng: np.random.Generator, content: bytes) -> bytes:
    return content.replace(b"\n", b"\r\n")


def a_web_page(rng: np.random.Generator, content: bytes) -> bytes:
    return b"<html>404: not found</html>" * rng.integers(1, 60)


def noise(rng: np.random.Generator, content: bytes) -> bytes:
    return rng.bytes(len(content))


def nothing(rng: np.random.Generator, content: bytes) -> bytes:
    return b""


ANY_FILE: Mapping[str, Damage] = {
    damage.__name__.replace("_", " "): damage
    for damage in (
        *(cut_short, with_a_hole, with_zeros, with_random_bytes, with_a_tail, sent_as_text),
        *(a_web_page, noise, nothing),
    )
}

_SIZES = (0, -1, -3, 1, 2, 4, 7, 32767)
_ODD = (0.0, -1.0, np.nan, np.inf, -np.inf, 1e-40, 1e38)
# By nifti1.h: where a field stands in the 348 bytes of a header, its type, and lies about it.
NIFTI_LIES: Mapping[str, tuple[int, str, tuple]] = {
    "sizeof_hdr": (0, "i4", (0, -1, 349, 540, 0x5C010000)),
    "dim[0]": (40, "i2", (0, -1, 1, 2, 3, 4, 5, 7, 8, 200)),
    **{f"dim[{i}]": (40 + 2 * i, "i2", _SIZES) for i in range(1, 8)},
    "datatype": (70, "i2", (0, 1, 2, 8, 16, 32, 64, 128, 255, 256, 768, 1024, 1536, 2304, 9999)),
    "bitpix": (72, "i2", (0, -8, 1, 64)),
    **{f"pixdim[{i}]": (76 + 4 * i, "f4", _ODD) for i in range(4)},
    "vox_offset": (108, "f4", (0, 1, 348, 352.5, 368, 400, -352, 1e9, *_ODD)),
    "scl_slope": (112, "f4", (0.5, *_ODD)),
    "scl_inter": (116, "f4", (-1024, *_ODD)),
    "xyzt_units": (123, "u1", (0, 1, 7, 255)),
    "qform_code": (252, "i2", (0, 1, 99, -1)),
    "sform_code": (254, "i2", (0, 1, 99, -1)),
    **{f"quatern_{axis}": (256 + 4 * i, "f4", _ODD) for i, axis in enumerate("bcd")},
    **{f"qoffset_{axis}": (268 + 4 * i, "f4", _ODD) for i, axis in enumerate("xyz")},
    **{f"srow[{i}]": (280 + 4 * i, "f4", _ODD) for i in range(12)},
    "magic": (344, "S4", (b"", b"ni1", b"n+2", b"n-1", b"GIF8")),
    "extension": (348, "u1", (1, 255)),
    "extension size": (352, "i4", (0, 7, -16, 33, 2**31 - 1)),
}


def with_lies(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    """One to three fields of a NIfTI-1 header replaced."""
    damaged, told = bytearray(content), []
    order = "<" if content[:2] == b"\x5c\x01" else ">"
    for name in rng.choice(list(NIFTI_LIES), size=rng.integers(1, 4), replace=False):
        start, kind, lies = NIFTI_LIES[name]
        lie = lies[rng.integers(len(lies))]
        field = np.array(lie, np.dtype(kind).newbyteorder(order)).tobytes()
        damaged[start : start + len(field)] = field
        told.append(f"{name} = {lie}")
    return bytes(damaged), ", ".join(told)


def tiny_nifti(rng: np.random.Generator) -> bytes:
    """A whole NIfTI-1 file of a few voxels, of some number type, byte order and orientation."""
    shape = [(5, 4, 3), (6, 4), (4, 4, 2, 1)][rng.integers(3)]
    dtype = np.dtype(["u1", "<i2", ">i2", "<f4", ">f4", "<i4"][rng.integers(6)])
    array = rng.integers(0, 100, shape).astype(dtype)
    affine = np.diag([*rng.choice([-2.0, -1.0, 1.0, 2.0], size=3), 1.0])
    header = nib.Nifti1Header(endianness=">" if dtype.byteorder == ">" else "<")
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(array, affine if rng.random() < 0.7 else None, header)
    if rng.random() < 0.2:
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a scan"))
    return image.to_bytes()


def damaged_nifti(rng: np.random.Generator, path: Path) -> str:
    """Damages the NIfTI-1 file at ``path``, or a tiny one where there is none yet.

    A name ending in ``.gz`` gives a gzip file, whose damage may lie within or around the packing.
    """
    packed = path.name.endswith(".gz")
    content = path.read_bytes() if path.exists() else tiny_nifti(rng)
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    inside = not packed or rng.random() < 0.6
    if inside and rng.random() < 0.6:
        content, description = with_lies(rng, content)
    else:
        description = list(ANY_FILE)[rng.integers(len(ANY_FILE))]
        if not inside:
            content = gzip.compress(content, mtime=0)
        content = ANY_FILE[description](rng, content)
    if packed and inside:
        content, description = gzip.compress(content, mtime=0), f"{description}, then packed"
    path.write_bytes(content)
    return description
