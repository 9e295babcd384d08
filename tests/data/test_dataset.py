"""SliceDataset: what it refuses, what the network is given, its fingerprint; folders opened."""

import dataclasses
import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from covid_jax.data import Slice, SliceDataset, open_dataset
from covid_jax.data import dataset as module
from covid_jax.data.batches import batches
from covid_jax.errors import ConfigError, DataError
from covid_jax.phantom.dataset import phantom_slices, write_phantom
from covid_jax.transforms.preprocessing import pack, resize_mask
from tests.support.synthetic import write_dicom_series, write_nifti

opening = importlib.import_module("covid_jax.data.open_dataset")  # the name is the function's too
MEDSEG = ("ground_glass", "consolidation", "effusion")


def make_slice(name: str, shape: tuple[int, int] = (24, 40), seed: int = 0) -> Slice:
    """A noisy slice in HU with a lesion of labels 1, 2 and 3 in its upper left quarter."""
    image = np.random.default_rng(seed).integers(-1000, 400, shape).astype(np.int16)
    mask = np.zeros(shape, np.uint8)
    quarter = mask[: shape[0] // 2, : shape[1] // 2]
    quarter[:] = 1 + np.arange(quarter.size).reshape(quarter.shape) % 3
    return Slice(name, "hand-made", None, None, image, mask)


def make_dataset(*slices: Slice, image_size: int = 16, **fields) -> SliceDataset:
    return SliceDataset("hand-made", slices, image_size, classes=MEDSEG, **fields)


def test_refuses_two_slices_of_one_name() -> None:
    with pytest.raises(DataError, match="hand-made"):
        make_dataset(make_slice("a"), make_slice("b"), make_slice("a", seed=1))


def test_refuses_to_be_empty() -> None:
    with pytest.raises(DataError, match="hand-made"):
        make_dataset()


def test_refuses_classes_it_does_not_know() -> None:
    with pytest.raises(ConfigError) as caught:
        make_dataset(make_slice("a"), targets=("ground_glass", "nodule"))
    assert str(caught.value) == (
        "--classes nodule: hand-made knows ground_glass, consolidation, effusion"
    )


def test_an_empty_selection_says_so() -> None:
    with pytest.raises(DataError, match="hand-made: no slices are left; at least one is needed"):
        make_dataset(make_slice("a")).select([])


def test_slices_are_equal_to_themselves_alone() -> None:
    one, other = make_slice("a"), make_slice("a")
    assert one == one
    assert one != other
    assert make_dataset(one) != make_dataset(other)
    assert make_dataset(one) == make_dataset(one)


def test_a_dataset_is_a_sequence() -> None:
    dataset = make_dataset(*(make_slice(name) for name in "abcd"))
    assert dataset[1] is dataset[-3] is dataset.slices[1]
    assert [item.id for item in dataset] == [*"abcd"]
    assert [item.id for item in dataset[1::2]] == ["b", "d"]
    assert isinstance(dataset[1::2], SliceDataset)
    with pytest.raises(IndexError):
        dataset[4]
    assert repr(dataset) == "SliceDataset('hand-made', 4 slices, image_size=16)"
    assert repr(dataset[0]) == "Slice('a', 24 x 40 int16)"


def test_arrays_become_slices() -> None:
    """Of any sizes and number types; what is opened from a folder with the same pixels is equal."""
    images = [np.arange(20.0).reshape(4, 5), np.arange(6, dtype=np.uint8).reshape(2, 3)]
    masks = [images[0] > 15, np.eye(2, 3, dtype=np.int64)]
    opened = SliceDataset.from_arrays(
        images, masks, image_size=16, patients=["a", None], spacing=[(0.5, 0.25), None]
    )
    assert [item.id for item in opened] == ["arrays:000", "arrays:001"]
    assert [item.patient for item in opened] == ["a", None]
    assert [item.spacing for item in opened] == [(0.5, 0.25), None]
    assert [item.label_pixels for item in opened] == [(16, 4), (4, 2)]
    for item, image, mask in zip(opened, images, masks, strict=True):
        np.testing.assert_array_equal(item.image, image)
        np.testing.assert_array_equal(item.mask, mask)
        assert not item.image.flags.writeable
        assert image.flags.writeable
    assert opened.network.images.codes.shape == (2, 16, 16)
    assert opened.notes == ("opened from arrays in memory: no folder holds this data",)
    same = SliceDataset.from_arrays(images, masks, patients=["a", "unknown"])
    assert same.fingerprint() == opened.fingerprint()


def test_a_stack_of_arrays_with_classes() -> None:
    labels = np.arange(24).reshape(2, 3, 4) % 3
    opened = SliceDataset.from_arrays(
        np.zeros((2, 3, 4), bool),
        labels,
        spacing=(1, 2),
        source="hospital",
        classes=("a", "b"),
        targets=("b",),
    )
    assert [item.spacing for item in opened] == [(1.0, 2.0)] * 2
    assert {item.source for item in opened} == {"hospital"}
    assert opened[0].label_pixels == (4, 4, 4)
    assert opened.target_ids(opened[0].mask).sum() == 4


IMAGE, MASK = np.zeros((3, 4)), np.ones((3, 4), bool)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": []}, "arrays: 1 masks for 0 images"),
        ({"images": [], "masks": []}, "arrays: 0 slices from arrays: no slices are left"),
        ({"masks": [MASK, MASK]}, "arrays: 2 masks for 1 images"),
        ({"patients": "p"}, "arrays: 1 patients for 1 images"),
        ({"patients": ["p", "q"]}, "arrays: 2 patients for 1 images"),
        ({"spacing": [(1, 1), (1, 1)]}, "arrays: 2 spacing for 1 images"),
        ({"spacing": (1, 0)}, "spacing 0: (1, 0); expected mm of rows and columns"),
        ({"images": [IMAGE[None]]}, "image 0: expected a slice (H, W), found shape (1, 3, 4)"),
        ({"images": [IMAGE[:, :0]]}, "image 0: expected a slice (H, W), found shape (3, 0)"),
        ({"images": [IMAGE * 1j]}, "image 0: expected real numbers, found complex128"),
        ({"images": [IMAGE.astype(str)]}, "image 0: expected real numbers, found <U"),
        ({"images": [IMAGE + np.nan]}, "image 0: has NaN or infinite"),
        ({"masks": [MASK[:2]]}, "mask 0: its shape (2, 4) differs from its image's, (3, 4)"),
        ({"masks": [MASK * 255]}, "mask 0: unknown labels 255; expected booleans, or 0 to 1"),
        ({"masks": [MASK * 0.5]}, "mask 0: unknown labels 0.5"),
        ({"masks": [np.ma.array(MASK, mask=True)]}, "mask 0: 12 pixels are masked"),
    ],
)
@pytest.mark.usefixtures("unchecked_annotations")
def test_arrays_that_are_no_dataset_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(DataError) as caught:
        SliceDataset.from_arrays(**({"images": [IMAGE], "masks": [MASK]} | changes))
    assert said in str(caught.value)


def test_select_takes_the_slices_in_the_order_given() -> None:
    dataset = make_dataset(*(make_slice(name) for name in "abcd"), targets=("effusion",))
    part = dataset.select([3, 1])
    assert [item.id for item in part.slices] == ["d", "b"]
    assert (len(part), len(dataset)) == (2, 4)
    assert part.slices[0] is dataset.slices[3]
    for field in ("layout", "image_size", "classes", "targets"):
        assert getattr(part, field) == getattr(dataset, field)


def test_a_selections_network_slices_are_its_own(tmp_path: Path) -> None:
    """Not those kept for the whole dataset."""
    slices = [make_slice(name, seed=seed) for seed, name in enumerate("abc")]
    whole = make_dataset(*slices, cache=tmp_path)
    np.testing.assert_array_equal(
        whole.select([2, 0]).network.images.codes, whole.network.images.codes[[2, 0]]
    )


def test_the_network_is_given_codes_and_class_ids_on_its_grid() -> None:
    """The upper left quarter stays the upper left quarter at any size."""
    dataset = make_dataset(make_slice("a", (24, 40)), make_slice("b", (8, 6), seed=1))
    images, masks = dataset.network
    for part, expected in zip(
        images, pack([item.image for item in dataset.slices], 16), strict=True
    ):
        np.testing.assert_array_equal(part, expected)
    assert (masks.shape, masks.dtype) == ((2, 16, 16), np.uint8)
    quarter = np.zeros((16, 16), bool)
    quarter[:8, :8] = True
    for mask, item in zip(masks, dataset.slices, strict=True):
        np.testing.assert_array_equal(mask > 0, quarter)
        np.testing.assert_array_equal(mask, resize_mask(item.mask, 16, 16))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ((), [0, 1, 1, 1]),
        (MEDSEG, [0, 1, 2, 3]),
        (("effusion", "ground_glass", "consolidation"), [0, 2, 3, 1]),
        (("effusion", "ground_glass"), [0, 2, 0, 1]),
        (("consolidation",), [0, 0, 1, 0]),
    ],
)
def test_what_the_network_calls_each_class(targets: tuple[str, ...], expected: list[int]) -> None:
    """Merged to 1, or its place in what was asked for; what was not counts as background."""
    dataset = make_dataset(make_slice("a"), targets=targets)
    ids = dataset.target_ids(np.array([[0, 1], [2, 3]], np.uint8))
    assert ids.dtype == np.uint8
    assert ids.ravel().tolist() == expected


def test_a_slice_is_counted_by_hand() -> None:
    item = make_slice("a", (4, 10))  # 2 x 5 pixels of 1, 2, 3, 1, ...
    assert item.label_pixels == (30, 4, 3, 3)
    assert item.lesion_share == 10 / 40
    assert item.range == (item.image.min(), item.image.max())


def test_equal_data_has_an_equal_fingerprint() -> None:
    """However it lies in memory, of whatever number type, whatever size the network wants."""
    one, two = make_slice("a"), make_slice("a")
    strided = dataclasses.replace(
        two, image=np.asfortranarray(two.image), mask=np.repeat(two.mask, 2, axis=1)[:, ::2]
    )
    typed = dataclasses.replace(one, image=one.image.astype(np.float64))
    fingerprint = make_dataset(one).fingerprint()
    assert len(fingerprint) == 16
    for same in (strided, typed):
        assert make_dataset(same, image_size=64).fingerprint() == fingerprint


@pytest.mark.parametrize(
    "change", ["pixel", "label", "name", "patient", "subset", "order", "fewer"]
)
def test_other_data_has_another_fingerprint(change: str) -> None:
    dataset = make_dataset(make_slice("a"), make_slice("b", seed=1))
    first, second = dataset.slices
    image, mask = first.image.copy(), first.mask.copy()
    image[3, 5] += 1
    mask[0, 0] = 2
    changed = {
        "pixel": (dataclasses.replace(first, image=image), second),
        "label": (dataclasses.replace(first, mask=mask), second),
        "name": (dataclasses.replace(first, id="c"), second),
        "patient": (dataclasses.replace(first, patient="p"), second),
        "subset": (dataclasses.replace(first, published="test"), second),
        "order": (second, first),
        "fewer": (first,),
    }
    assert make_dataset(*changed[change]).fingerprint() != dataset.fingerprint()


def test_other_classes_have_another_fingerprint() -> None:
    items = (make_slice("a"),)
    one, other = (SliceDataset("hand-made", items, 16, classes=c) for c in (MEDSEG, MEDSEG[::-1]))
    assert one.fingerprint() != other.fingerprint()


def volume(seed: int, slices: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 400, (slices, 6, 8)).astype(np.int16)


def masks_of(*labels: int) -> np.ndarray:
    """One 6 x 8 mask for each label, which fills its first row."""
    masks = np.zeros((len(labels), 6, 8), np.uint8)
    masks[:, 0] = np.array(labels)[:, None]
    return masks


def write_medseg(root: Path) -> Path:
    """A volume of two slices with lesion and one without, and a stack of two."""
    write_nifti(root / "rp_im/1.nii.gz", volume(0, 3))
    write_nifti(root / "rp_msk/1.nii.gz", masks_of(1, 0, 3))
    write_nifti(root / "tr_im.nii.gz", volume(1))
    write_nifti(root / "tr_mask.nii.gz", masks_of(0, 2))
    (root / "patients.csv").write_text("volume,slice,patient\n1,,Doe\ntr_im,1,Roe\n")
    return root


def write_pairs(root: Path) -> Path:
    """Two pictures of two sizes with binary masks."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i, shape in enumerate([(5, 7), (9, 4)]):
        image = np.arange(i, i + shape[0] * shape[1], dtype=np.uint8).reshape(shape)
        Image.fromarray(image).save(root / f"images/{i}.png")
        Image.fromarray(np.uint8(255) * (image < 9)).save(root / f"masks/{i}.png")
    return root


def ids(dataset: SliceDataset) -> list[str]:
    return [item.id for item in dataset.slices]


def never(*_: object) -> None:
    raise AssertionError("decoded again, though it was in the cache")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own; where decoded slices are kept in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own cache"))
    return tmp_path / "own cache/covid_jax/slices"


def assert_same(one: SliceDataset, other: SliceDataset) -> None:
    assert dataclasses.replace(one, slices=other.slices, cache=other.cache) == other
    for a, b in zip(one.slices, other.slices, strict=True):
        for field in dataclasses.fields(Slice):
            first, second = getattr(a, field.name), getattr(b, field.name)
            np.testing.assert_array_equal(first, second)
        assert (a.image.dtype, a.mask.dtype) == (b.image.dtype, b.mask.dtype)


def test_a_folder_is_opened_slice_by_slice(tmp_path: Path) -> None:
    opened = open_dataset(write_medseg(tmp_path), 32)
    assert ids(opened) == ["tr_im:001", "rp_im/1:000", "rp_im/1:002"]
    assert [item.patient for item in opened.slices] == ["Roe", "Doe", "Doe"]
    assert [item.source for item in opened.slices] == ["Dataset-1"] + ["Dataset-2"] * 2
    assert {item.spacing for item in opened.slices} == {(1.0, 1.0)}
    images = [volume(1)[1], *volume(0, 3)[[0, 2]]]
    for item, image, label in zip(opened.slices, images, [2, 1, 3], strict=True):
        assert (item.image.dtype, item.mask.dtype) == (np.int16, np.uint8)
        np.testing.assert_array_equal(item.image, image)
        np.testing.assert_array_equal(item.mask, masks_of(label)[0])
    assert (opened.image_size, opened.classes, opened.targets) == (32, MEDSEG, ())
    assert opened.notes == ("2 of 5 slices show no lesion and were left out, as in the paper",)

    everything = open_dataset(str(tmp_path), lesion_slices_only=False)
    assert ids(everything) == [f"tr_im:{i:03d}" for i in (0, 1)] + [
        f"rp_im/1:{i:03d}" for i in (0, 1, 2)
    ]
    assert everything.notes == ()
    assert everything.image_size == 512


def test_pictures_are_called_by_their_names(tmp_path: Path) -> None:
    opened = open_dataset(write_pairs(tmp_path))
    assert ids(opened) == ["0", "1"]
    assert [item.image.shape for item in opened.slices] == [(5, 7), (9, 4)]
    assert [item.mask.sum() for item in opened.slices] == [9, 8]
    assert [item.spacing for item in opened.slices] == [None, None]


def empty_mask(root: Path, name: str) -> None:
    path = root / "masks" / name
    Image.fromarray(np.zeros_like(np.asarray(Image.open(path)))).save(path)


def test_pictures_without_lesion_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    """As slices of volumes are, and counted."""
    root = write_pairs(tmp_path)
    empty_mask(root, "1.png")
    opened = open_dataset(root, 16)
    assert ids(opened) == ["0"]
    assert opened.notes == ("1 of 2 slices show no lesion and were left out, as in the paper",)
    everything = open_dataset(root, 16, lesion_slices_only=False)
    assert ids(everything) == ["0", "1"]
    assert everything.notes == ()


def test_a_source_without_any_lesion_is_refused_unless_asked_for(tmp_path: Path) -> None:
    """Alone or joined with others: all masks empty is more often a mistake than a finding."""
    bare, other = write_pairs(tmp_path / "bare"), write_medseg(tmp_path / "other")
    for name in ("0.png", "1.png"):
        empty_mask(bare, name)
    for roots in (bare, [other, bare]):
        with pytest.raises(DataError) as caught:
            open_dataset(roots, 16)
        assert str(caught.value) == (
            f"{bare / 'masks'}: no lesion in 2 scans of bare; the right masks? "
            "For healthy scans give --no-lesion-slices-only"
        )
        notes = open_dataset(roots, 16, lesion_slices_only=False).notes
        said = f"bare shows no lesion at all, such as in {bare / 'masks/1.png'}: was it looked for?"
        assert notes[-1] == said


def test_healthy_scans_need_no_masks(tmp_path: Path) -> None:
    """A folder's name declares them; they are kept where lesion-free slices are."""
    alone, mixed = tmp_path / "alone", write_pairs(tmp_path / "mixed")
    write_nifti(alone / "healthy/a.nii.gz", volume(3, 3))
    write_nifti(mixed / "healthy/0.nii.gz", volume(4, 2))
    opened = open_dataset(alone, 16, lesion_slices_only=False)
    assert ids(opened) == [f"healthy/a:{i:03d}" for i in range(3)]
    for item, image in zip(opened.slices, volume(3, 3), strict=True):
        np.testing.assert_array_equal(item.image, image)
        assert item.label_pixels == (48,)
    assert {item.patient for item in opened.slices} == {"healthy/a"}
    said = f"1 scan in {alone / 'healthy'}: declared free of lesions, no masks"
    assert opened.notes == (said, "no patients.csv: each volume counts as one patient")
    with pytest.raises(DataError, match=r"scan of alone; .* give --no-lesion-slices-only"):
        open_dataset(alone, 16)

    everything = open_dataset(mixed, 16, lesion_slices_only=False)
    assert ids(everything) == ["0", "1", "healthy/0:000", "healthy/0:001"]
    sick = open_dataset(mixed, 16)
    assert ids(sick) == ["0", "1"]
    assert "2 of 4 slices show no lesion and were left out, as in the paper" in sick.notes


def write_nnunet(root: Path, about: str) -> Path:
    write_nifti(root / "imagesTr/a_0000.nii.gz", volume(0))
    write_nifti(root / "labelsTr/a.nii.gz", masks_of(1, 2))
    (root / "dataset.json").write_text(about, encoding="utf-8")
    return root


def test_a_byte_order_mark_before_dataset_json_is_passed_over(tmp_path: Path) -> None:
    root = write_nnunet(tmp_path, '\ufeff{"labels": {"background": 0, "a": 1, "b": 2}}')
    assert open_dataset(root, 16).classes == ("a", "b")


def test_more_classes_than_a_byte_tells_apart_are_refused(tmp_path: Path) -> None:
    labels = ", ".join(f'"class {k}": {k}' for k in range(1, 301))
    root = write_nnunet(tmp_path, f'{{"labels": {{"background": 0, {labels}}}}}')
    with pytest.raises(DataError, match="masks of 300 classes; at most 255"):
        open_dataset(root, 16)


def test_slices_cannot_be_written_by_mistake(tmp_path: Path) -> None:
    opened = open_dataset(write_medseg(tmp_path), 16)
    for array in (opened.slices[0].image, opened.slices[0].mask, *opened.network.images):
        assert not array.flags.writeable
    (batch,) = batches(opened, range(3), 3)
    batch["image"].codes[:] = 0  # its own copy
    assert opened.network.images.codes.any()


def test_the_second_opening_maps_what_the_first_decoded(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress: list[tuple[int, int]] = []
    root = write_medseg(tmp_path / "data")
    first = open_dataset(root, 16, progress=lambda *done: progress.append(done))
    assert progress == [(1, 2), (2, 2)]
    network = first.network
    monkeypatch.setattr(opening, "decode_all", never)
    monkeypatch.setattr(module, "pack", never)
    again = open_dataset(root, 16, progress=never)
    assert_same(first, again)
    assert isinstance(again.slices[0].image.base, np.memmap)
    assert isinstance(again.network.masks, np.memmap)
    for one, other in zip(network.images, again.network.images, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(network.masks, again.network.masks)


def test_what_is_kept_for_the_network_is_what_the_slices_give(tmp_path: Path) -> None:
    for size in (16, 24):
        opened = open_dataset(write_medseg(tmp_path / str(size)), size)
        kept, made = opened.network, opened.select(range(3)).network
        for one, other in zip((*kept.images, kept.masks), (*made.images, made.masks), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_what_is_kept_of_a_slice_is_what_its_pixels_give(tmp_path: Path) -> None:
    roots = [write_medseg(tmp_path / "a"), write_pairs(tmp_path / "b")]
    for item in open_dataset(roots).slices:
        fresh = dataclasses.replace(item)
        known = {"digest", "mask_digest", "range", "label_pixels"}
        assert known <= vars(item).keys()  # found without a look at the pixels
        assert not known & vars(fresh).keys()
        for name in known:
            assert getattr(item, name) == getattr(fresh, name)


@pytest.mark.parametrize(
    ("name", "stack"),
    [
        ("rp_im/1.nii.gz", volume(9, 3)),
        ("rp_msk/1.nii.gz", masks_of(2, 0, 3)),
        ("tr_mask.nii.gz", masks_of(0, 1)),
    ],
)
def test_a_changed_file_is_decoded_anew(tmp_path: Path, name: str, stack: np.ndarray) -> None:
    """By what is in it: its size and time may be as before."""
    root = write_medseg(tmp_path)
    before = open_dataset(root).fingerprint()
    time = (root / name).stat().st_mtime_ns
    write_nifti(root / name, stack)
    os.utime(root / name, ns=(time, time))
    assert open_dataset(root).fingerprint() != before


def test_a_folder_may_move_and_be_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And warnings name its new place."""
    root = write_medseg(tmp_path / "here")
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[0, 3] = 20.0
    write_nifti(root / "tr_mask.nii.gz", masks_of(0, 2), affine)
    first = open_dataset(root)
    assert f"{root / 'tr_mask.nii.gz'}: by its header it is 20 mm" in first.notes[-1]
    moved = root.rename(tmp_path / "there")
    for path in moved.rglob("*.gz"):
        os.utime(path)
    monkeypatch.setattr(opening, "decode_all", never)
    again = open_dataset(moved)
    assert again.fingerprint() == first.fingerprint()
    assert f"{moved / 'tr_mask.nii.gz'}: by its header it is 20 mm" in again.notes[-1]


def test_a_new_table_of_patients_decodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_medseg(tmp_path)
    open_dataset(root)
    (root / "patients.csv").write_text("volume,patient\n1,Poe\ntr_im,Poe\n")
    monkeypatch.setattr(opening, "decode_all", never)
    assert {item.patient for item in open_dataset(root).slices} == {"Poe"}


def all_arrays(opened: SliceDataset) -> list[np.ndarray]:
    own = [array for item in opened.slices for array in (item.image, item.mask)]
    return [*own, *opened.network.images, opened.network.masks]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: cut(kept / "images.bin"),
        lambda kept: cut(kept / "index.json"),
        lambda kept: (kept / "masks.bin").unlink(),
        lambda kept: cut(kept / "network-16-1/codes.bin"),
        lambda kept: (kept / "network-16-1/index.json").write_text("{}"),
        lambda kept: shutil.rmtree(kept / "network-16-1"),
        shutil.rmtree,
    ],
)
def test_a_damaged_cache_is_made_anew(
    tmp_path: Path, cache: Path, damage: Callable[[Path], None]
) -> None:
    root = write_medseg(tmp_path / "data")
    first = open_dataset(root, 16)
    expected = [np.array(array) for array in all_arrays(first)]
    (kept,) = cache.iterdir()
    damage(kept)
    again = open_dataset(root, 16)
    assert ids(again) == ids(first)
    for one, other in zip(all_arrays(again), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert [path.name for path in cache.iterdir()] == [kept.name]


@pytest.mark.parametrize("name", ["rp_im/1.nii.gz", "rp_msk/1.nii.gz"])
def test_damaged_files_leave_no_cache(tmp_path: Path, cache: Path, name: str) -> None:
    root = write_medseg(tmp_path / "data")
    cut(root / name)
    with pytest.raises(DataError) as caught:
        open_dataset(root)
    assert str(root / name) in str(caught.value)
    assert list(cache.iterdir()) == []


def test_two_sizes_are_kept_side_by_side(tmp_path: Path, cache: Path) -> None:
    root = write_medseg(tmp_path / "data")
    for size in (16, 24):
        assert open_dataset(root, size).network.masks.shape == (3, size, size)
    (kept,) = cache.iterdir()
    assert {path.name for path in kept.iterdir() if path.is_dir()} == {
        "network-16-1",
        "network-24-1",
    }


def test_a_dicom_folder_is_a_volume_and_its_series_can_be_chosen(tmp_path: Path) -> None:
    images = {"1.2.3": volume(5), "1.2.4": volume(6)}
    for series, stack in images.items():
        write_dicom_series(tmp_path / "images/case", stack, (0.8, 0.7), series)
    affine = np.diag([-0.7, -0.8, 2.0, 1.0])
    write_nifti(tmp_path / "masks/case.nii.gz", masks_of(1, 1), affine)
    with pytest.raises(DataError, match="2 series; choose one with --series"):
        open_dataset(tmp_path)
    for series, stack in images.items():
        opened = open_dataset(tmp_path, series=(series,))
        assert ids(opened) == ["case:000", "case:001"]
        assert {item.patient for item in opened.slices} == {"case"}
        assert opened.slices[1].spacing == pytest.approx((0.8, 0.7))
        for item, image in zip(opened.slices, stack, strict=True):
            np.testing.assert_array_equal(item.image, image)
            np.testing.assert_array_equal(item.mask, masks_of(1)[0])


def test_folders_are_joined(tmp_path: Path) -> None:
    """Class ids are those of all folders together."""
    opened = open_dataset([write_pairs(tmp_path / "b"), write_medseg(tmp_path / "a")], 16)
    assert opened.classes == ("lesion", *MEDSEG)
    assert ids(opened) == [*("b/0", "b/1", "a/tr_im:001", "a/rp_im/1:000", "a/rp_im/1:002")]
    assert [item.mask.max() for item in opened.slices] == [1, 1, 3, 2, 4]
    assert [item.image.dtype for item in opened.slices] == [np.uint8] * 2 + [np.int16] * 3
    merged = opened.target_ids(opened.network.masks)
    assert merged.max(axis=(1, 2)).tolist() == [1, 1, 1, 1, 1]


def test_two_of_three_classes(tmp_path: Path) -> None:
    targets = ("effusion", "consolidation")
    opened = open_dataset(write_medseg(tmp_path), 16, classes=targets)
    assert (opened.classes, opened.targets) == (MEDSEG, targets)
    assert [item.mask.max() for item in opened.slices] == [2, 1, 3]
    ids = opened.target_ids(opened.network.masks)
    assert ids.max(axis=(1, 2)).tolist() == [2, 0, 1]
    assert any(
        note == "ground_glass counts as background: only effusion, consolidation were asked for"
        for note in opened.notes
    )


def test_a_class_that_stands_for_all_of_them_is_noticed(tmp_path: Path) -> None:
    """Binary masks in a layout that tells kinds apart look like its first one alone."""
    write_nifti(tmp_path / "tr_im.nii.gz", volume(1, 1))
    write_nifti(tmp_path / "tr_mask.nii.gz", masks_of(1))
    said = "Dataset-1 shows no consolidation and no effusion at all: was it looked for?"
    assert said in open_dataset(tmp_path, 16, classes=("ground_glass",)).notes
    assert open_dataset(tmp_path, 16).notes == ()


@pytest.mark.parametrize("only", [True, False])
def test_a_volume_whose_mask_was_left_empty_is_noticed(tmp_path: Path, only: bool) -> None:
    write_medseg(tmp_path)
    assert not any("no lesion at all" in note for note in open_dataset(tmp_path, 16).notes)
    write_nifti(tmp_path / "rp_im/2.nii.gz", volume(7, 3))
    write_nifti(tmp_path / "rp_msk/2.nii.gz", masks_of(0, 0, 0))
    notes = open_dataset(tmp_path, 16, lesion_slices_only=only).notes
    assert (
        f"no lesion at all in 1 of 2 volumes, such as {tmp_path / 'rp_msk/2.nii.gz'}: was it "
        "looked for?" in notes
    )


def test_classes_are_refused_where_lesions_are_of_one_kind(tmp_path: Path) -> None:
    """Alone or beside a folder that tells them apart: they would count as background."""
    binary, other = write_pairs(tmp_path / "pairs"), write_medseg(tmp_path / "medseg")
    for roots in (binary, [other, binary]):
        with pytest.raises(ConfigError) as caught:
            open_dataset(roots, classes=("consolidation",))
        assert "--classes consolidation: pairs has lesions of one kind" in str(caught.value)


def test_unknown_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--classes nodule: .*ground_glass, consolidation"):
        open_dataset(write_medseg(tmp_path), classes=("effusion", "nodule"))


def test_slices_of_630_pixels_reach_the_network_at_512(tmp_path: Path) -> None:
    """Dataset-2's own size, on a phantom written so; its lesions keep their share of the slice."""
    root = write_phantom(
        tmp_path / "phantom",
        size=630,
        num_patients=1,
        slices_per_patient=1,
        num_volumes=1,
        slices_per_volume=3,
    )
    opened = open_dataset(root, 512)
    images, masks = phantom_slices(0, 2, 3, 630)
    of_volume = [item for item in opened.slices if item.source == "phantom Dataset-2"]
    assert len(of_volume) == sum(mask.any() for mask in masks) > 0
    for item in of_volume:
        index = int(item.id.removeprefix("rp_im/1:"))
        assert item.image.shape == (630, 630)
        np.testing.assert_array_equal(item.image, images[index])
        np.testing.assert_array_equal(item.mask, masks[index])
        assert item.spacing == pytest.approx((360 / 630, 360 / 630))
    network = opened.network
    assert network.images.codes.shape == network.masks.shape == (len(opened), 512, 512)
    last = jax.image.resize(np.float32(images[2]), (512, 512), "linear", antialias=True)
    codes, low, step = (part[-1] for part in network.images)
    assert of_volume[-1].id == "rp_im/1:002"
    np.testing.assert_allclose(low + step * codes, last, atol=1e-3 * np.ptp(images[2]))
    share = np.array([item.lesion_share for item in opened.slices])
    np.testing.assert_allclose((network.masks > 0).mean(axis=(1, 2)), share, rtol=0.05)


def test_real_covid_semiseg(real_data: Path) -> None:
    """An all-positive prediction's Dice is 2 n / (n + pixels): 0.25772 in the mean (Fan et al.)."""
    opened = open_dataset(real_data / "covid_semiseg")
    published = [item.published for item in opened.slices]
    assert (published.count("train"), published.count("test")) == (50, 48)
    masks = [item.mask for item in opened.slices if item.published == "test"]
    assert all(set(np.unique(mask)) <= {0, 1} for mask in masks)
    dice = [2 * mask.sum() / (mask.sum() + mask.size) for mask in masks]
    assert round(float(np.mean(dice)), 5) == 0.25772
    assert {item.patient for item in opened.slices} == {None}


def test_real_covid_semisegs_classes_make_up_its_lesions(real_data: Path) -> None:
    """The multi-class masks are drawn apart from the binary ones, and say the same."""
    merged = open_dataset(real_data / "covid_semiseg")
    told_apart = open_dataset(
        real_data / "covid_semiseg", classes=("ground_glass", "consolidation")
    )
    assert told_apart.classes == ("ground_glass", "consolidation")
    pixels = np.zeros(3, int)
    for one, other in zip(merged.slices, told_apart.slices, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask > 0)
        pixels += np.bincount(other.mask.ravel(), minlength=3)
    assert min(pixels) > 0


def test_real_radiopaedia(real_data: Path) -> None:
    """Slices, lesion pixels and patients as its README counts them."""
    opened = open_dataset(real_data / "radiopaedia")
    slices, pixels = [0] * 10, [0] * 10
    for item in opened.slices:
        volume = int(item.id.removeprefix("rp_im/").split(":")[0]) - 1
        slices[volume] += 1
        pixels[volume] += int(item.mask.sum())
    assert slices == [11, 118, 66, 33, 2, 9, 24, 55, 22, 27]
    assert pixels == [8824, 88728, 270248, 46227, 29, 3028, 9830, 246296, 67117, 46350]
    assert len({item.patient for item in opened.slices}) == 8
    assert None not in {item.patient for item in opened.slices}
    assert {item.image.shape for item in opened.slices} == {(256, 256)}
    assert opened.notes == ()


def test_real_folders_open_as_one(real_data: Path) -> None:
    opened = open_dataset([real_data / "radiopaedia", real_data / "covid_semiseg"])
    assert len(opened) == 367 + 98
    lesion = sum(int((item.mask > 0).sum()) for item in opened.slices)
    apart = [open_dataset(real_data / name) for name in ("radiopaedia", "covid_semiseg")]
    assert lesion == sum(int((item.mask > 0).sum()) for part in apart for item in part.slices)
