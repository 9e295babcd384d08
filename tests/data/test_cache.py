import os
import shutil
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from covid_jax.data.cache import Plan, open_arrays
from covid_jax.errors import DataError

NUMBERS = np.arange(12, dtype=np.int16).reshape(3, 4)


def write_numbers(folder: Path) -> Plan:
    NUMBERS.tofile(folder / "numbers.bin")
    return Plan({"made_by": os.getpid()}, {"numbers": ("<i2", (3, 4))})


def never(folder: Path) -> Plan:
    raise AssertionError("built again, though a whole cache was there")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_builds_once_and_maps_ever_after(tmp_path) -> None:
    for build in (write_numbers, never):
        record, arrays = open_arrays(tmp_path / "key", build)
        assert record == {"made_by": os.getpid()}
        assert isinstance(arrays["numbers"], np.memmap)
        np.testing.assert_array_equal(arrays["numbers"], NUMBERS)
    assert names(tmp_path) == {"key"}
    assert names(tmp_path / "key") == {"index.json", "numbers.bin"}


def test_what_is_mapped_cannot_be_written(tmp_path) -> None:
    arrays = open_arrays(tmp_path / "key", write_numbers).arrays
    with pytest.raises(ValueError, match="read-only"):
        arrays["numbers"][0, 0] = 1


def cut_numbers(folder: Path) -> None:
    (folder / "numbers.bin").write_bytes(NUMBERS.tobytes()[:-1])


def lengthen_numbers(folder: Path) -> None:
    (folder / "numbers.bin").write_bytes(b"\0\0" + NUMBERS.tobytes())


def cut_index(folder: Path) -> None:
    index = folder / "index.json"
    index.write_bytes(index.read_bytes()[:-3])


def list_in_index(folder: Path) -> None:
    (folder / "index.json").write_text("[1, 2]")


def nest_index(folder: Path) -> None:
    (folder / "index.json").write_text("[" * 100_000)


def another_form_of_index(folder: Path) -> None:
    (folder / "index.json").write_bytes(b"%08x\nnull" % zlib.crc32(b"null"))


def not_a_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file stands in the way")


@pytest.mark.parametrize(
    "damage",
    [
        cut_numbers,
        lengthen_numbers,
        cut_index,
        list_in_index,
        nest_index,
        another_form_of_index,
        not_a_folder,
        lambda folder: (folder / "numbers.bin").unlink(),
        lambda folder: (folder / "index.json").unlink(),
    ],
)
def test_a_damaged_cache_is_built_again(tmp_path, damage) -> None:
    open_arrays(tmp_path / "key", write_numbers)
    damage(tmp_path / "key")
    arrays = open_arrays(tmp_path / "key", write_numbers).arrays
    np.testing.assert_array_equal(arrays["numbers"], NUMBERS)
    assert names(tmp_path) == {"key"}
    assert open_arrays(tmp_path / "key", never).arrays["numbers"].shape == (3, 4)


@pytest.mark.parametrize("name", ["index.json", "numbers.bin"])
def test_any_flipped_bit_or_zeroed_page_is_noticed(tmp_path, name) -> None:
    """Sizes stay as they were; in the index, digits may turn into other digits."""
    open_arrays(tmp_path / "key", write_numbers)
    path = tmp_path / "key" / name
    whole = path.read_bytes()
    damaged = [
        *(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(len(whole))),
        b"\0" * len(whole),
    ]
    for content in damaged:
        path.write_bytes(content)
        np.testing.assert_array_equal(
            open_arrays(tmp_path / "key", write_numbers).arrays["numbers"], NUMBERS
        )
        assert path.read_bytes() == whole


def test_a_builder_that_fails_leaves_nothing(tmp_path) -> None:
    def fail(folder: Path) -> Plan:
        (folder / "numbers.bin").write_bytes(b"half")
        raise DataError("a scan is damaged")

    with pytest.raises(DataError, match="a scan is damaged"):
        open_arrays(tmp_path / "key", fail)
    assert names(tmp_path) == set()


def test_a_full_disk_is_said(tmp_path) -> None:
    def fill(folder: Path) -> Plan:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"No space left on device\); make room, or set XDG_CACHE"):
        open_arrays(tmp_path / "key", fill)


def test_a_folder_that_cannot_be_made_is_said(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="XDG_CACHE_HOME"):
        open_arrays(tmp_path / "file" / "key", write_numbers)


def test_leftovers_of_killed_builders_go_after_a_day(tmp_path) -> None:
    for name, age in ((".building-old", 25 * 3600), (".building-new", 3600)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    open_arrays(tmp_path / "key", write_numbers)
    assert names(tmp_path) == {"key", ".building-new"}


def test_several_may_build_it_at_once(tmp_path) -> None:
    """Threads as good as processes: all end with the same whole cache, whoever was first."""
    barrier = threading.Barrier(3)

    def build(partial: Path) -> Plan:
        barrier.wait(30)  # all have found nothing and are building
        return write_numbers(partial)._replace(record=threading.get_ident())

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: open_arrays(tmp_path / "key", build), range(3)))
    winner = open_arrays(tmp_path / "key", never)
    assert [contents.record for contents in found] == [winner.record] * 3
    assert [contents.arrays["numbers"].sum() for contents in found] == [66] * 3
    assert names(tmp_path) == {"key"}
