"""Many scans at once: found, told apart, gone on with after bad ones, kills and changes."""

import errno
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from covid_jax.cli.tables import show_failures, show_scans
from covid_jax.errors import ConfigError, DataError
from covid_jax.prediction import find_scans as inputs
from covid_jax.prediction import pipeline, writer
from covid_jax.prediction.find_scans import find_scans
from covid_jax.prediction.options import PredictOptions
from covid_jax.prediction.pipeline import in_background
from covid_jax.terminal import Screen
from covid_jax.transforms.preprocessing import Normalization
from tests.support.bright_runs import (
    HU,
    PICTURES,
    BrightRun,
    KindsRun,
    predicted,
    read_picture,
    write_picture,
)
from tests.support.damage_formats import NIFTI, PICTURE
from tests.support.limits import bounded
from tests.support.synthetic import SIZE, blob_dataset, tiny_config, write_dicom_series, write_nifti
from tests.support.tiny_runs import untrained_run

DAMAGED = int(os.environ.get("COVID_JAX_DAMAGED", "36"))  # files; a hundred were seen by hand


def volume(slices: int = 3, shape: tuple[int, int] = (SIZE, SIZE), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-1000, 400, (slices, *shape)).astype(np.int16)


def a_folder(root: Path) -> Path:
    """Scans of every kind, some below, and what is no scan."""
    write_nifti(root / "10.nii.gz", volume())
    write_nifti(root / "2.nii", volume(1))
    write_picture(root / "deep" / "er" / "a.png")
    Image.fromarray(np.eye(40, 50, dtype=np.uint8) * 255).save(root / "deep" / "b.jpg")
    write_dicom_series(root / "deep" / "series", volume(2), (1.0, 1.0))
    for path in (root / "deep" / "series").iterdir():
        path.rename(path.with_suffix(""))  # as scanners name them
    (root / "notes.txt").write_text("no scan")
    (root / ".hidden.png").write_bytes(b"")
    return root


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_searched_to_the_bottom(tmp_path: Path) -> None:
    root = a_folder(tmp_path / "in")
    found = find_scans([root], tmp_path / "out")
    assert [(scan.name, scan.kind) for scan in found.scans] == [
        ("2", "nifti"),
        ("10", "nifti"),
        ("deep/b", "picture"),
        ("deep/er/a", "picture"),
        ("deep/series", "dicom"),
    ]
    assert found.others == 1
    outcome, text = predicted(BrightRun(), root, tmp_path / "out")
    assert "5 scans (2 NIfTI, 1 DICOM, 2 picture); 1 other files passed over" in text
    assert [one["slices"] for one in outcome.predicted] == [1, 3, 1, 1, 2]
    masks = {name for name in files(tmp_path / "out") if "_mask" in name}
    assert masks == {
        *("2_mask.nii.gz", "10_mask.nii.gz", "deep/series_mask.nii.gz"),
        *("deep/b_mask.png", "deep/er/a_mask.png"),
    }
    again, text = predicted(BrightRun(), root, tmp_path / "out")
    assert (len(again.predicted), len(again.complete)) == (0, 5)
    assert "5 of them done before" in text


def test_results_within_the_scans_folder_are_no_scans(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    for _ in range(2):
        predicted(BrightRun(), tmp_path, tmp_path / "out", overlay=True)
    assert files(tmp_path / "out") >= {"a_mask.png", "a_overlay.png", "a_summary.json"}
    assert not any("mask_mask" in name for name in files(tmp_path))
    with pytest.raises(DataError, match="the scans' own folder"):
        predicted(BrightRun(), tmp_path, tmp_path)


def test_a_link_that_leads_back_is_followed_once(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    found = find_scans([tmp_path / "in"], tmp_path / "out")
    assert [scan.name for scan in found.scans] == ["a"]


def test_the_table_of_contents_of_a_cd_is_no_scan(tmp_path: Path) -> None:
    """It bears DICOM's mark, and lies above the folders of the series."""
    write_dicom_series(tmp_path / "in" / "series", volume(2), (1.0, 1.0))
    (tmp_path / "in" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    found = find_scans([tmp_path / "in"], tmp_path / "out")
    assert [scan.name for scan in found.scans] == ["series"]


def test_a_folder_that_cannot_be_looked_into_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_picture(tmp_path / "in" / "a.png")
    write_picture(tmp_path / "in" / "locked" / "b.png")
    entries = inputs.entries

    def refusing(folder: Path) -> list[Path]:
        if folder.name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied")
        return entries(folder)

    monkeypatch.setattr(inputs, "entries", refusing)
    outcome, _ = predicted(BrightRun(), tmp_path / "in", tmp_path / "out")
    assert [one["name"] for one in outcome.predicted] == ["a"]
    assert outcome.failures == [(tmp_path / "in" / "locked", "Permission denied")]


def test_two_scans_of_one_name_are_refused_before_any_work(tmp_path: Path) -> None:
    one, other = (write_picture(tmp_path / folder / "a.png") for folder in "xy")
    run = BrightRun()
    for paths in ([one, other], [one.parent, other.parent]):
        with pytest.raises(DataError, match="both results would be called a"):
            predicted(run, paths, tmp_path / "out")
    Image.fromarray(read_picture(one)).save(one.with_name("A.JPG"))  # one name to some systems
    with pytest.raises(DataError, match=r"both results would be called [aA]"):
        predicted(run, one.parent, tmp_path / "out")
    assert run.batches == []
    assert not (tmp_path / "out").exists()


def test_another_scan_of_a_name_does_not_replace_the_first_ones_results(tmp_path: Path) -> None:
    one, other = (write_picture(tmp_path / f / "a.png", seed=i) for i, f in enumerate("xy"))
    predicted(BrightRun(), one, tmp_path / "out")
    before = (tmp_path / "out" / "a_mask.png").read_bytes()
    outcome, _ = predicted(BrightRun(), other, tmp_path / "out")
    ((path, reason),) = outcome.failures
    assert path == other
    assert f"holds the results of {one}" in reason
    assert (tmp_path / "out" / "a_mask.png").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "said"),
    [("gone", "no such file or folder"), ("text.txt", "not a scan"), ("empty", "no scan here")],
)
def test_a_path_without_scans_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "text.txt").write_text("no scan")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=said):
        predicted(BrightRun(), tmp_path / name, tmp_path / "out")


def test_slices_of_all_sizes_share_batches_of_one_shape(tmp_path: Path) -> None:
    for i in range(5):
        write_picture(tmp_path / f"{i}.png", (20 + i, 40 - 3 * i))
    write_nifti(tmp_path / "9.nii", volume(4, (50, 30)))
    run = BrightRun()
    predicted(run, tmp_path, tmp_path / "out", batch_size=4)
    assert run.batches == [(4, 4), (4, 4), (1, 4)]
    shapes = [read_picture(tmp_path / "out" / f"{i}_mask.png").shape for i in range(5)]
    assert shapes == [(20 + i, 40 - 3 * i) for i in range(5)]


@pytest.mark.parametrize("batch_size", [None, 4])  # of seven slices the last batch has three
def test_a_network_is_compiled_once(tmp_path: Path, batch_size: int | None) -> None:
    for i in range(3):
        write_picture(tmp_path / f"{i}.png", (20 + i, 40 - 3 * i))
    write_nifti(tmp_path / "9.nii", volume(4, (50, 30)))
    run = untrained_run(tiny_config(), blob_dataset(), tmp_path / "run")
    paths = [*tmp_path.glob("*.png"), tmp_path / "9.nii"]
    before = run._forward._cache_size()  # of runs like it in other tests
    predicted(run, paths, tmp_path / "out", tta=True, batch_size=batch_size)
    assert run._forward._cache_size() <= before + 1
    mask = read_picture(tmp_path / "out" / "1_mask.png") > 0
    image = read_picture(tmp_path / "1.png")
    flips = [run.predict(image[::a, ::b])[::a, ::b] for a in (1, -1) for b in (1, -1)]
    mean = np.mean(flips, axis=0)
    clear = np.abs(mean - 0.5) > 1e-3
    np.testing.assert_array_equal(mask[clear], mean[clear] > 0.5)


def test_only_what_is_missing_or_changed_is_done_again(tmp_path: Path) -> None:
    names = "abcd"
    for i, name in enumerate(names):
        write_picture(tmp_path / "in" / f"{name}.png", seed=i)
    out = tmp_path / "out"

    def redone(run: BrightRun | None = None, **options) -> list[str]:
        outcome, _ = predicted(run or BrightRun(), tmp_path / "in", out, **options)
        assert len(outcome.predicted) + len(outcome.complete) == 4
        return [one["name"] for one in outcome.predicted]

    assert redone() == list(names)
    assert redone() == []
    (out / "a_mask.png").unlink()
    for name in ("b_summary.json", "b_mask.png"):
        (out / name).unlink()
    (out / "c_summary.json").write_text("{")
    assert redone() == ["a", "b", "c"]
    write_picture(tmp_path / "in" / "d.png", (20, 21))
    assert redone(batch_size=2) == ["d"]
    os.utime(tmp_path / "in" / "b.png", (1, 2e9))  # written anew, in the same size
    assert redone() == ["b"]
    assert redone(threshold=0.25) == list(names)
    other = BrightRun()
    other.params = {"w": np.ones(1, np.float32)}
    assert redone(other, threshold=0.25) == list(names)


def test_results_of_other_flags_do_not_stay_beside_new_ones(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", volume(2))
    out = tmp_path / "out"
    predicted(BrightRun(), tmp_path / "a.nii", out, overlay=True, probabilities=True, tta=True)
    assert len(files(out)) == 9
    predicted(BrightRun(), tmp_path / "a.nii", out)
    assert files(out) == {"a_mask.nii.gz", "a_summary.json", "summary.csv", "slices.csv"}


def test_a_full_disk_leaves_nothing_that_seems_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_picture(tmp_path / "a.png")
    predicted(BrightRun(), path, tmp_path / "out")
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        steps = iter([writer.write_json, mock.Mock(side_effect=full)])  # begun, never finished
        patch.setattr(writer, "write_json", lambda *arguments: next(steps)(*arguments))
        with pytest.raises(DataError, match=r"cannot be written .No space left"):
            predicted(BrightRun(), path, tmp_path / "out", threshold=0.9)
    for threshold in (0.5, 0.9):
        outcome, _ = predicted(BrightRun(), path, tmp_path / "out", threshold=threshold)
        assert len(outcome.predicted) == 1


def test_what_a_kill_left_half_written_is_in_no_table(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    predicted(BrightRun(), path, tmp_path / "out")
    whole = (tmp_path / "out" / "a_summary.json").read_text()
    (tmp_path / "out" / ".1234-a_summary.json").write_text(whole)
    (tmp_path / "out" / "b_summary.json").write_text(whole[: len(whole) // 2])
    predicted(BrightRun(), path, tmp_path / "out")
    assert len((tmp_path / "out" / "summary.csv").read_text().splitlines()) == 2


def test_a_bad_scan_does_not_stop_the_others(tmp_path: Path) -> None:
    for name in ("1.png", "3.png"):
        write_picture(tmp_path / name)
    (tmp_path / "2.png").write_bytes(b"\x89PNG")
    (tmp_path / "4.nii.gz").write_bytes(b"")
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"no")
    outcome, _ = predicted(BrightRun(), tmp_path, tmp_path / "out")
    assert [one["name"] for one in outcome.predicted] == ["1", "3"]
    assert {path.name for path, _ in outcome.failures} == {"2.png", "4.nii.gz", "series"}
    again, _ = predicted(BrightRun(), tmp_path, tmp_path / "out")
    assert (len(again.predicted), len(again.complete), len(again.failures)) == (0, 2, 3)


def test_damaged_files_are_listed_and_healthy_ones_all_done(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    harms = [*((".nii.gz", kind) for kind in NIFTI.values())]
    harms += [(".png", kind) for kind in PICTURE.values()]
    refused = set()
    for i in range(DAMAGED):
        ending, kind = harms[i % len(harms)]
        path = tmp_path / "in" / f"bad{i}{ending}"
        if ending == ".png":
            write_picture(path, (9, 8))
        else:
            write_nifti(path, volume(3, (9, 8)))
        kind.harm(rng, path)
        if kind.outcome == "refused":
            refused.add(path.name)
        if i % 6 == 0:
            write_nifti(tmp_path / "in" / f"good{i}.nii.gz", volume(3, (9, 8), i))
    # A row or a slice fewer is refused only beside a mask.
    with bounded(100, 64e6):
        outcome, _ = predicted(BrightRun(size=16), tmp_path / "in", tmp_path / "out")
    failed = {path.name for path, _ in outcome.failures}
    names = {one["name"] for one in outcome.predicted}
    assert {f"good{i}" for i in range(0, DAMAGED, 6)} <= names
    assert len(names) + len(failed) == DAMAGED + len(range(0, DAMAGED, 6))
    assert len(refused - failed) <= 3 * -(-DAMAGED // len(harms))
    assert all(reason for _, reason in outcome.failures)


@pytest.mark.slow
def test_a_killed_batch_is_gone_on_with(tmp_path: Path) -> None:
    """SIGKILL, as a machine's: what is done stays and is whole, the second call does the rest."""
    for i in range(12):
        write_picture(tmp_path / "in" / f"{i}.png", seed=i)
    script = """
        import sys, time
        from pathlib import Path
        from tests.support.bright_runs import BrightRun, predicted

        class Stuck(BrightRun):
            def predict_network(self, images, batch_size=4):
                time.sleep(600 if len(self.batches) == 6 else 0)
                return super().predict_network(images, batch_size)

        predicted(Stuck(), Path(sys.argv[1]), Path(sys.argv[2]), batch_size=1)
    """
    out = tmp_path / "out"
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "in"), str(out)]
    child = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    try:
        while len(list(out.glob("[0-9]*_summary.json"))) < 3 and child.poll() is None:
            time.sleep(0.02)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    summaries = list(out.glob("[0-9]*_summary.json"))
    done = {f.name.split("_")[0] for f in summaries if "slices" in json.loads(f.read_text())}
    assert 2 <= len(done) < 12  # one may have been begun
    outcome, _ = predicted(BrightRun(), tmp_path / "in", out, batch_size=1)
    assert {scan.name for scan in outcome.complete} == done
    assert {one["name"] for one in outcome.predicted} == {str(i) for i in range(12)} - done
    for i in range(12):
        image = read_picture(tmp_path / "in" / f"{i}.png")
        mask = read_picture(out / f"{i}_mask.png") > 0
        low, high = int(image.min()), int(image.max())
        np.testing.assert_array_equal(mask, 2 * image.astype(int) > low + high)
    assert len((out / "summary.csv").read_text().splitlines()) == 13


@pytest.mark.parametrize(
    ("trained", "scan", "said"),
    [
        ([HU], volume(), None),
        ([PICTURES], volume(), "window the scan to 8 bits"),
        ([HU], (volume() + 1000) // 6, "give the scan itself"),
        ([HU], volume() + 1024, "intercept was lost"),
        ([PICTURES, HU], volume(), None),
        ([], volume(), None),
    ],
)
def test_intensities_of_another_kind_than_trained_on_are_warned_of(
    tmp_path: Path, trained: list[dict], scan: np.ndarray, said: str | None
) -> None:
    write_nifti(tmp_path / "a.nii", scan.astype(np.int16))
    outcome, text = predicted(BrightRun(trained), tmp_path / "a.nii", tmp_path / "out")
    (warnings,) = (one["warnings"] for one in outcome.predicted)
    assert ("WARNING" in text) == bool(warnings) == bool(said)
    assert said is None or (said in text and said in warnings[0])


def test_many_warnings_are_counted(tmp_path: Path) -> None:
    for i in range(5):
        write_picture(tmp_path / f"{i}.png")
    outcome, text = predicted(BrightRun([HU]), tmp_path, tmp_path / "out")
    assert text.count("WARNING") == 4
    assert "and 2 more warnings like these" in text
    assert all(one["warnings"] for one in outcome.predicted)


def test_lung_masks_must_be_the_scans(tmp_path: Path) -> None:
    shapes = {"right": (SIZE, SIZE), "small": (9, 9), "none": None}
    for name, shape in shapes.items():
        write_picture(tmp_path / "in" / f"{name}.png")
        if shape:
            write_picture(tmp_path / "lungs" / f"{name}.png", shape)
    outcome, _ = predicted(BrightRun(), tmp_path / "in", tmp_path / "out", lungs=tmp_path / "lungs")
    reasons = {path.stem: reason for path, reason in outcome.failures}
    assert [one["name"] for one in outcome.predicted] == ["right"]
    assert "differs from its scan's" in reasons["small"]
    assert "found no lung mask at" in reasons["none"]
    lone = tmp_path / "lungs" / "right.png"
    with pytest.raises(DataError, match="one mask for 3 scans"):
        predicted(BrightRun(), tmp_path / "in", tmp_path / "out", lungs=lone)
    with pytest.raises(DataError, match="gone: no such file"):
        predicted(BrightRun(), tmp_path / "in", tmp_path / "out", lungs=tmp_path / "gone")


def test_a_lung_mask_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    write_nifti(tmp_path / "a.nii", volume(), affine)
    affine[2, 3] = 40
    write_nifti(tmp_path / "lungs.nii.gz", np.ones((3, SIZE, SIZE), np.uint8), affine)
    lungs = tmp_path / "lungs.nii.gz"
    outcome, _ = predicted(BrightRun(), tmp_path / "a.nii", tmp_path / "out", lungs=lungs)
    assert "40 mm away from its scan" in outcome.failures[0][1]


@pytest.mark.parametrize(
    "options", [{"threshold": 0.0}, {"threshold": 1.0}, {"min_area": -1.0}, {"batch_size": 0}]
)
def test_settings_that_cannot_be_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match="expected") as caught:
        PredictOptions(**options)
    assert caught.value.fields == tuple(options)  # which the command line shows as flags


def test_several_classes_have_no_threshold(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="--threshold"):
        predicted(KindsRun(), path, tmp_path / "out", threshold=0.3)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*cannot be written"):
        predicted(BrightRun(), path, tmp_path / "file" / "out")


def test_a_name_too_long_for_its_results_fails_alone(tmp_path: Path) -> None:
    write_picture(tmp_path / f"{'a' * 250}.png")
    write_picture(tmp_path / "b.png")
    outcome, _ = predicted(BrightRun(), tmp_path, tmp_path / "out")
    assert [one["name"] for one in outcome.predicted] == ["b"]
    assert "name too long" in outcome.failures[0][1]


def test_names_that_are_no_utf_8_are_written_as_they_are(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_nifti(tmp_path / f"{name}.nii", volume())
    outcome, text = predicted(BrightRun([PICTURES]), tmp_path, tmp_path / "out", overlay=True)
    assert "caf\\xe9.nii: intensities" in text
    assert [one["name"] for one in outcome.predicted] == [name]
    assert b"caf\xe9," in (tmp_path / "out" / "summary.csv").read_bytes()
    again, _ = predicted(BrightRun([PICTURES]), tmp_path, tmp_path / "out", overlay=True)
    assert len(again.complete) == 1
    assert json.loads((tmp_path / "out" / f"{name}_summary.json").read_text())["name"] == name


def test_memory_is_a_few_scans_as_stored_never_their_probabilities(tmp_path: Path) -> None:
    """A volume of 6.6 MB, read twice over while it is unpacked, and a mask of half of it; its two
    maps of 13 MB each stay on disk."""
    write_nifti(tmp_path / "a.nii", volume(200, (128, 128)))
    stored = 200 * 128 * 128 * 2
    with bounded(200, 3.5 * stored):
        predicted(BrightRun(), tmp_path / "a.nii", tmp_path / "out", probabilities=True, tta=True)


def test_a_thread_hands_on_items_and_errors_and_stops_when_nobody_reads() -> None:
    closed = []

    def source():
        try:
            yield from range(100)
            raise ValueError("at the end")
        finally:
            closed.append(True)

    read = []
    with pytest.raises(ValueError, match="at the end"):
        read.extend(in_background(source(), 2))
    assert read == list(range(100))
    background = in_background(source(), 2)
    assert next(background) == 0
    background.close()
    assert closed == [True, True]


def test_a_changed_lung_mask_is_another_input(tmp_path: Path) -> None:
    """Of the same name, size and time."""
    write_nifti(tmp_path / "a.nii", volume())
    lungs = np.zeros((3, SIZE, SIZE), np.uint8)
    for rows in (8, 16):
        lungs[:, :rows] = 1
        write_nifti(tmp_path / "lungs.nii", lungs)
        os.utime(tmp_path / "lungs.nii", (1e9, 1e9))
        outcome, _ = predicted(
            BrightRun(), tmp_path / "a.nii", tmp_path / "out", lungs=tmp_path / "lungs.nii"
        )
        (summary,) = outcome.predicted
        assert summary["lung_voxels"] == 3 * rows * SIZE


def test_a_scan_replaced_by_one_of_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    for seed in range(2):
        write_nifti(tmp_path / "a.nii", volume(seed=seed))
        os.utime(tmp_path / "a.nii", (1e9, 1e9))
        outcome, _ = predicted(BrightRun(), tmp_path / "a.nii", tmp_path / "out")
        assert len(outcome.predicted) == 1


def test_another_network_input_is_done_again(tmp_path: Path) -> None:
    """The weights are the same, what they are applied to is not."""
    path = write_picture(tmp_path / "a.png")
    predicted(BrightRun(), path, tmp_path / "out")
    windowed = BrightRun()
    windowed.normalization = Normalization(100.0, 50.0, clip=True)
    for run in (BrightRun(size=16), windowed):
        outcome, _ = predicted(run, path, tmp_path / "out")
        assert len(outcome.predicted) == 1


def test_results_of_another_call_are_no_scans(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", volume())
    predicted(BrightRun(), tmp_path, tmp_path / "one", overlay=True, probabilities=True)
    outcome, _ = predicted(BrightRun(), tmp_path, tmp_path / "two", overlay=True)
    assert [one["name"] for one in outcome.predicted] == ["a"]
    for name in ("a_mask.nii.gz", "a_overlay.png", "a_overlay/slice_000.png"):
        with pytest.raises(DataError, match="a result of an earlier prediction"):
            predicted(BrightRun(), tmp_path / "one" / name, tmp_path / "three")


@pytest.mark.parametrize(
    "name", ["../victim.png", "b/../../victim.png", "/victim.png", "", "link/v"]
)
def test_a_summary_cannot_make_files_elsewhere_go(tmp_path: Path, name: str) -> None:
    path = write_picture(tmp_path / "a.png")
    predicted(BrightRun(), path, tmp_path / "out")
    victims = [tmp_path / "victim.png", tmp_path / "elsewhere" / "v"]
    for victim in victims:
        write_picture(tmp_path / "v.png").rename(victim) if victim.parent.exists() else None
    (tmp_path / "elsewhere").mkdir()
    victims[1].write_text("kept")
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    note = tmp_path / "out" / "a_summary.json"
    record = json.loads(note.read_text())
    name = str(tmp_path) + name if name.startswith("/") else name
    note.write_text(json.dumps(record | {"outputs": [*record["outputs"], name]}))
    outcome, _ = predicted(BrightRun(), path, tmp_path / "out", threshold=0.9)
    assert len(outcome.predicted) == 1
    assert all(victim.exists() for victim in victims)


@pytest.mark.parametrize(
    "change",
    [
        *({"outputs": wrong} for wrong in ("a", [1], None, {"a": 1})),
        *({"classes": wrong} for wrong in ([], {"x": 1})),
        *({"per_slice": wrong} for wrong in ([1], 3, "x")),
        *({"name": 3}, {"warnings": [1]}, {"warnings": 5}, {"lungs": [1]}),
    ],
)
def test_a_foreign_summary_is_in_no_table(tmp_path: Path, change: dict) -> None:
    path = write_picture(tmp_path / "a.png")
    predicted(BrightRun(), path, tmp_path / "out")
    record = json.loads((tmp_path / "out" / "a_summary.json").read_text())
    (tmp_path / "out" / "b_summary.json").write_text(json.dumps(record | change))
    predicted(BrightRun(), path, tmp_path / "out")
    assert len((tmp_path / "out" / "summary.csv").read_text().splitlines()) == 2


def test_probabilities_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    class Broken(BrightRun):
        def predict_network(self, images, batch_size=4):
            scores = super().predict_network(images, batch_size)
            scores[images.low < -500, 0, 0] = np.nan
            return scores

    write_nifti(tmp_path / "a.nii", volume())
    write_picture(tmp_path / "b.png")
    paths = [tmp_path / "a.nii", tmp_path / "b.png"]
    outcome, _ = predicted(Broken(), paths, tmp_path / "out")
    assert [one["name"] for one in outcome.predicted] == ["b"]
    ((path, reason),) = outcome.failures
    assert path == paths[0]
    assert "probabilities are NaN or infinite" in reason
    assert not any(name.startswith("a") for name in files(tmp_path / "out"))
    with pytest.raises(DataError, match="probabilities are NaN or infinite"):
        Broken().predict(volume())


@pytest.mark.parametrize("place", ["load", "pack", "entropy"])
def test_a_scan_too_large_for_the_memory_is_refused_and_the_others_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """While it is read, resized, or its mask is made; here a slice of 40 rows is too large."""
    module = {"entropy": writer}.get(place, pipeline)
    real = getattr(module, place)

    def limited(first, *rest):
        rows = first[0].shape[0] if place == "pack" else getattr(first, "shape", (0,))[0]
        if rows == 40 or (place == "load" and rest[0].name == "2"):
            raise MemoryError
        return real(first, *rest)

    for name, rows in (("1", 32), ("2", 40), ("3", 32)):
        write_nifti(tmp_path / f"{name}.nii", volume(3, (rows, 30)))
    monkeypatch.setattr(module, place, limited)
    outcome, _ = predicted(BrightRun(), tmp_path, tmp_path / "out", batch_size=2)
    assert [one["name"] for one in outcome.predicted] == ["1", "3"]
    ((path, reason),) = outcome.failures
    assert path.name == "2.nii"
    assert reason.startswith("needs more memory")


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no preallocation here")
def test_a_full_disk_is_met_before_probabilities_are_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A map without its blocks ends the process with SIGBUS where the disk is full."""
    asked = []

    def full(_: int, start: int, size: int) -> None:
        asked.append((start, size))
        raise OSError(errno.ENOSPC, "No space left on device")

    write_nifti(tmp_path / "a.nii", volume())
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="No space left"):
        predicted(BrightRun(), tmp_path / "a.nii", tmp_path / "out", probabilities=True)
    assert asked == [(0, 3 * SIZE * SIZE * 4)]


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii", "mask.png"])
def test_a_folder_named_like_a_mask_is_refused(tmp_path: Path, name: str) -> None:
    path = write_picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"--out .*expected a folder"):
        predicted(BrightRun(), path, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_pipes_and_folders_without_end_are_searched(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a.png")
    os.mkfifo(tmp_path / "in" / "b.png")
    deep = tmp_path / "in"
    for _ in range(1050):
        deep /= "d"
        deep.mkdir()
    try:
        with bounded(300, 64e6):
            found = find_scans([tmp_path / "in"], tmp_path / "out")
    finally:  # Python's own rmtree recurses
        subprocess.run(["rm", "-r", str(tmp_path / "in")], check=True)
    assert [scan.name for scan in found.scans] == ["a", "b"]  # the pipe is refused when it is read


def test_names_cannot_command_the_terminal(tmp_path: Path) -> None:
    write_picture(tmp_path / "in" / "a\x1b[2J\u202eb.png")
    (tmp_path / "in" / "c\x1b[2J.png").write_bytes(b"\x89PNG")
    console = Screen(file=io.StringIO(), width=200)
    outcome, _ = predicted(BrightRun([HU]), tmp_path / "in", tmp_path / "out")
    show_scans(outcome.predicted, console)
    show_failures(outcome.failures, console)
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "a\\x1b[2J\\u202eb" in text


def test_a_mask_that_no_call_has_written_is_kept(tmp_path: Path) -> None:
    """The truth of a pair, ``a.png`` and ``a_mask.png``, where the results would go."""
    scan, truth = write_picture(tmp_path / "a.png"), write_picture(tmp_path / "a_mask.png", seed=1)
    before = truth.read_bytes()
    outcome, _ = predicted(BrightRun(), scan, tmp_path)
    ((failed, reason),) = outcome.failures
    assert failed == scan
    assert "a_mask.png exists and is not a result" in reason
    assert truth.read_bytes() == before


def test_a_scan_that_changes_while_it_is_predicted_is_done_again(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")

    class Slow(BrightRun):
        def predict_network(self, images, batch_size=4):
            write_picture(path, seed=1)
            return super().predict_network(images, batch_size)

    predicted(Slow(), path, tmp_path / "out")
    outcome, _ = predicted(BrightRun(), path, tmp_path / "out")
    assert len(outcome.predicted) == 1


def test_given_lungs_are_those_that_lesions_must_be_inside(tmp_path: Path) -> None:
    scan, lungs = write_picture(tmp_path / "a.png"), np.zeros((SIZE, SIZE), np.uint8)
    lungs[:5, :9] = 1
    Image.fromarray(lungs).save(tmp_path / "lungs.png")
    options = {"lungs": tmp_path / "lungs.png", "inside_lungs": True}
    predicted(BrightRun(), scan, tmp_path / "out", **options)
    mask = read_picture(tmp_path / "out" / "a_mask.png")
    assert mask[:5, :9].any()
    assert not mask[7:].any()
    assert not mask[:, 11:].any()


def test_lungs_must_be_labels(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", volume())
    write_nifti(tmp_path / "lungs.nii", np.full((3, SIZE, SIZE), 0.7, np.float32))
    lungs = tmp_path / "lungs.nii"
    outcome, _ = predicted(BrightRun(), tmp_path / "a.nii", tmp_path / "out", lungs=lungs)
    assert "whole numbers" in outcome.failures[0][1]
