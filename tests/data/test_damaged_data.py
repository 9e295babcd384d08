"""Damaged datasets: 500 end in an error that names the place, some in slices that are whole."""

import json
import math
import resource
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from covid_jax.cli import main as cli
from covid_jax.data import Slice, SliceDataset, open_dataset
from covid_jax.errors import CovidJaxError
from covid_jax.reporting.contact_sheet import dataset_sheet
from tests.support import tiny_datasets
from tests.support.damage_places import KINDS, NO_UTF_8
from tests.support.limits import bounded
from tests.support.tiny_datasets import PAIRS, TEXTS, write_dataset

CASES = 560  # among them some that are harmless, or hit nothing but pixels
MENDED = 5  # one of so many is repaired and opened again
SIZE = 32
SECONDS = 60  # for one of them, on a machine at work
MEMORY = 64e6  # bytes held at once


class Case(NamedTuple):
    layout: str
    place: str
    what: str
    kind: str

    def harm(self, root: Path, seed: int) -> None:
        KINDS[self.what][self.kind].harm(np.random.default_rng(seed), root / self.place)

    def leads_to(self) -> str:
        """``refused``, ``same`` or ``any``; scans that need no mask are left out, with a note."""
        without_mask = (
            self.layout == "MosMedData" and self.what == "nifti mask" and self.kind == "gone"
        )
        outcome = KINDS[self.what][self.kind].outcome
        without_mask |= self.place == "labelsTs" and outcome == "refused"
        return "left out" if without_mask else outcome


def cases(healthy: Path) -> Iterator[Case]:
    """Each kind of damage by turns, at a place drawn from a fixed seed."""
    rng = np.random.default_rng(0)
    known = list(tiny_datasets.places(healthy))
    kinds = [(what, kind) for what in KINDS for kind in KINDS[what]]
    for number in range(CASES):
        what, kind = kinds[number % len(kinds)]
        fitting = [(layout, place) for layout, place, found in known if found == what]
        layout, place = fitting[rng.integers(len(fitting))]
        yield Case(layout, place, what, kind)


def names_of(case: Case, root: Path) -> Iterator[str]:
    """What an error may call the place: itself, what holds it, or the other half of its pair."""
    place = root / case.place
    yield str(place)
    yield str(place.with_name(NO_UTF_8 + place.name))
    yield f"{place.parent}: no files here"
    yield f"{root}: no dataset of a known layout here"
    for image, mask in ((root / image, root / mask) for image, mask in PAIRS[case.layout]):
        for path, other in ((image, mask), (mask, image)):
            if path.is_relative_to(place):  # the place is one half, or a folder around it
                yield str(other)
            elif place.is_relative_to(path):  # a slice of a series
                yield from (str(path), str(other))
    if case.place == "patients.csv":
        yield "patients.csv names"
    if case.kind == "another ending":  # of dataset.json: the folder's files have none of these
        yield f"{root / 'imagesTr'}: no files here"
    if case.kind == "another label":
        yield str(root / "labelsTr")


def opened(root: Path) -> SliceDataset:
    dataset = open_dataset(root, SIZE)
    assert dataset.network.masks.shape == (len(dataset), SIZE, SIZE)
    return dataset


def changed_scans(before: SliceDataset, after: SliceDataset) -> set[str]:
    """Names of the scans that lack a slice, have another one, or one of other pixels."""
    old, new = ({item.id: item for item in dataset.slices} for dataset in (before, after))
    both = old.keys() & new.keys()
    names = {name for name in both if not same(old[name], new[name])} | (old.keys() ^ new.keys())
    return {name.split(":")[0] for name in names}


def same(one: Slice, other: Slice) -> bool:
    return np.array_equal(one.image, other.image) and np.array_equal(one.mask, other.mask)


def result_of(case: Case, root: Path, before: SliceDataset) -> str:
    """What becomes of a damaged dataset: ``refused``, ``same``, ``changed`` or ``left out``."""
    try:
        with bounded(SECONDS, MEMORY):
            after = opened(root)
    except CovidJaxError as error:
        message = str(error)
        if not any(name in message for name in names_of(case, root)):
            pytest.fail(f"names no place: {message}")
        return "refused"
    for item in after.slices:
        assert item.image.shape == item.mask.shape
        assert np.isfinite(item.image).all()
        assert item.mask.max() <= len(after.classes)
    changed = changed_scans(before, after)
    assert len(changed) <= (0 if case.what in TEXTS.get(case.layout, ()) else 1)
    if len(after) < len(before) and any("were left out" in note for note in after.notes):
        return "left out"
    return "changed" if changed else "same"


def assert_whole(cache: Path) -> None:
    """What is kept has an index and all bytes it promises; nothing else is there."""
    for entry in cache.iterdir() if cache.exists() else ():
        for index in (entry / "index.json", *entry.glob("*/index.json")):
            for name, (dtype, shape) in json.loads(index.read_text().splitlines()[1])[1].items():
                size = (index.parent / f"{name}.bin").stat().st_size
                assert size == np.dtype(dtype).itemsize * math.prod(shape)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset of each layout."""
    pytest.importorskip("pydicom", minversion="3")
    root = tmp_path_factory.mktemp("healthy")
    for layout in PAIRS:
        write_dataset(layout, root / layout)
    return root


@pytest.mark.slow
def test_500_damaged_datasets(
    healthy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each is refused by name or read, in silence, little memory and time, and can be mended."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.chdir(tmp_path)  # where a pickle's trap would spring
    before = {layout: opened(healthy / layout) for layout in PAIRS}
    counts: Counter[str] = Counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, case in enumerate(cases(healthy)):
        root = tmp_path / str(number)
        shutil.copytree(healthy / case.layout, root)
        case.harm(root, seed=number)
        shutil.rmtree(cache, ignore_errors=True)
        try:
            result = result_of(case, root, before[case.layout])
            assert case.leads_to() in (result, "any")
            assert_whole(cache / "covid_jax/slices")
            if number % MENDED == 0:
                shutil.rmtree(root)
                shutil.copytree(healthy / case.layout, root)
                assert changed_scans(before[case.layout], opened(root)) == set()
        except BaseException as error:
            error.add_note(f"case {number}: {case}")
            raise
        counts[result] += 1
    assert counts["refused"] >= 500
    assert counts["changed"] < 20  # where pixels were hit
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    assert grown * 1024 < 2 * MEMORY  # with what tracemalloc does not see, as Pillow's own
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert not (tmp_path / "sprung").exists()


def test_every_kind_of_damage_is_tried(healthy: Path) -> None:
    tried = {(case.what, case.kind) for case in cases(healthy)}
    assert tried == {(what, kind) for what in KINDS for kind in KINDS[what]}
    assert len(tried) > 150
    assert {case.layout for case in cases(healthy)} == PAIRS.keys()


@pytest.mark.parametrize(
    ("layout", "place", "kind"),
    [
        ("MedSeg", "rp_im/2.nii", "claims 10 GB"),
        ("COVID-SemiSeg", "TestingSet/LungInfection-Test/Imgs/3.jpg", "a web page"),
        ("pairs", "images/series", "emptied"),
        ("pairs", "masks/volume.nii.gz", "a pipe"),
        ("nnU-Net", "dataset.json", "a tower"),
        ("nnU-Net", "labelsTr/case_2.nii.gz", "half a label"),
        ("MosMedData", "studies/CT-1/study_0001.nii.gz", "a pickle"),
        ("COVID-19-CT-Seg", "Infection_Mask/coronacases_001.nii.gz", "gone"),
    ],
)
def test_the_command_says_it_in_a_line(
    healthy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    layout: str,
    place: str,
    kind: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data"
    shutil.copytree(healthy / layout, root)
    (what,) = {what for *of, what in tiny_datasets.places(healthy) if of == [layout, place]}
    case = Case(layout, place, what, kind)
    case.harm(root, seed=0)
    with pytest.raises(SystemExit) as ended, bounded(SECONDS, MEMORY):
        cli.main(["data", str(root)])
    assert ended.value.code == 2
    printed, error = capsys.readouterr()
    assert printed == ""
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert any(name in error for name in names_of(case, root))
    assert list(tmp_path.iterdir()) == [root]


def test_odd_names_are_no_damage(healthy: Path, tmp_path: Path) -> None:
    """No UTF-8, a formula, markup, a script that few fonts have: read, and drawn."""
    root = tmp_path / "data"
    shutil.copytree(healthy / "pairs", root)
    (root / "patients.csv").unlink()
    before = opened(root)
    for path in (*root.glob("images/series/*"), *root.glob("images/*"), *root.glob("masks/*")):
        path.rename(path.with_name(f"{NO_UTF_8}$_{{[red]\u4e2d {path.name}"))
    after = opened(root)
    assert len(after) == len(before)
    assert {item.digest for item in after.slices} == {item.digest for item in before.slices}
    dataset_sheet(after, tmp_path / "slices.png")
    assert (tmp_path / "slices.png").stat().st_size > 0
