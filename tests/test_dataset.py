"""SliceDataset: what it refuses, what the network is given, and its fingerprint."""

import dataclasses

import numpy as np
import pytest

from covid_jax.data import Slice, SliceDataset
from covid_jax.errors import DataError


def make_slice(name: str, shape: tuple[int, int] = (24, 40), seed: int = 0) -> Slice:
    """A noisy slice in HU with a lesion of labels 1, 2 and 3 in its upper left quarter."""
    image = np.random.default_rng(seed).integers(-1000, 400, shape).astype(np.int16)
    mask = np.zeros(shape, np.uint8)
    quarter = mask[: shape[0] // 2, : shape[1] // 2]
    quarter[:] = 1 + np.arange(quarter.size).reshape(quarter.shape) % 3
    return Slice(name, "hand-made", None, None, image, mask)


def make_dataset(*slices: Slice, image_size: int = 16) -> SliceDataset:
    return SliceDataset("hand-made", slices, image_size)


def test_refuses_two_slices_of_one_name() -> None:
    with pytest.raises(DataError, match="hand-made"):
        make_dataset(make_slice("a"), make_slice("b"), make_slice("a", seed=1))


def test_refuses_to_be_empty() -> None:
    with pytest.raises(DataError, match="hand-made"):
        make_dataset()


def test_select_takes_the_slices_in_the_order_given() -> None:
    dataset = make_dataset(*(make_slice(name) for name in "abcd"))
    part = dataset.select([3, 1])
    assert [item.id for item in part.slices] == ["d", "b"]
    assert (len(part), len(dataset)) == (2, 4)
    assert part.slices[0] is dataset.slices[3]
    assert (part.layout, part.image_size) == (dataset.layout, dataset.image_size)


def test_network_images_are_z_scored_on_the_networks_grid() -> None:
    dataset = make_dataset(make_slice("a", (24, 40)), make_slice("b", (9, 7), seed=1))
    images = dataset.network_images()
    assert (images.shape, images.dtype) == ((2, 16, 16, 1), np.float32)
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), 0.0, atol=1e-6)
    np.testing.assert_allclose(images.std(axis=(1, 2, 3)), 1.0, atol=1e-6)


def test_network_masks_merge_the_lesions_to_one_class() -> None:
    """The upper left quarter stays the upper left quarter at any size."""
    dataset = make_dataset(make_slice("a", (24, 40)), make_slice("b", (8, 6)))
    masks = dataset.network_masks()
    assert (masks.shape, masks.dtype) == ((2, 16, 16, 1), np.uint8)
    expected = np.zeros((16, 16), np.uint8)
    expected[:8, :8] = 1
    for mask in masks:
        np.testing.assert_array_equal(mask[..., 0], expected)


def test_lesion_slices_only_looks_at_every_mask() -> None:
    sick = make_slice("a")
    healthy = dataclasses.replace(sick, id="b", mask=np.zeros_like(sick.mask))
    assert make_dataset(sick).lesion_slices_only()
    assert not make_dataset(sick, healthy).lesion_slices_only()


def test_equal_data_has_an_equal_fingerprint() -> None:
    """However it lies in memory, and whatever size the network wants."""
    one, two = make_slice("a"), make_slice("a")
    strided = dataclasses.replace(
        two, image=np.asfortranarray(two.image), mask=np.repeat(two.mask, 2, axis=1)[:, ::2]
    )
    fingerprint = make_dataset(one).fingerprint()
    assert len(fingerprint) == 16
    assert make_dataset(strided, image_size=64).fingerprint() == fingerprint


@pytest.mark.parametrize("change", ["pixel", "label", "name", "type", "order", "fewer"])
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
        "type": (dataclasses.replace(first, image=first.image.astype(np.float32)), second),
        "order": (second, first),
        "fewer": (first,),
    }
    assert make_dataset(*changed[change]).fingerprint() != dataset.fingerprint()
