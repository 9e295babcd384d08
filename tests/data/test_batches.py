"""Batches of one shape, counted by hand, and sent ahead in the order they came."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from covid_jax.data import Slice, SliceDataset
from covid_jax.data.batches import batches, sent_ahead


def make_dataset(count: int, **changes) -> SliceDataset:
    """Slice i has its least intensity, i, everywhere but in pixel i; its mask is of class i % 3."""
    slices = []
    for i in range(count):
        image = np.full((4, 4), i, np.int16)
        image.flat[i] = 1000
        mask = np.full((4, 4), i % 3, np.uint8)
        slices.append(Slice(f"s{i}", "hand-made", None, None, image, mask))
    return SliceDataset("hand-made", tuple(slices), 4, **changes)


@pytest.mark.parametrize(
    ("count", "size", "real"),
    [
        (6, 3, [3, 3]),
        (7, 3, [3, 3, 1]),
        (2, 5, [2]),
        (1, 4, [1]),
        (4, 1, [1, 1, 1, 1]),
        (0, 3, []),
    ],
)
def test_the_last_batch_is_padded_and_marked(count: int, size: int, real: list[int]) -> None:
    drawn = list(batches(make_dataset(8), range(count), size))
    assert [int(batch["where"].sum()) for batch in drawn] == real
    for batch in drawn:
        assert batch["image"].codes.shape == batch["label"].shape == (size, 4, 4)
        assert (batch["image"].codes.dtype, batch["label"].dtype) == (np.uint16, np.uint8)
        assert batch["image"].low.shape == batch["image"].step.shape == (size,)
        assert batch["image"].low.dtype == batch["image"].step.dtype == np.float32
        assert batch["position"].shape == batch["where"].shape == (size,)
        assert batch["position"].dtype == np.int32
        assert batch["where"].dtype == np.dtype(bool)
        assert np.all(np.diff(batch["where"].astype(int)) <= 0)  # padding comes last


@pytest.mark.parametrize("size", [1, 2, 3, 4, 11, 20])
def test_every_slice_comes_once_and_in_order(size: int) -> None:
    order = np.random.default_rng(0).permutation(11)
    drawn = list(batches(make_dataset(11), order, size))
    position = np.concatenate([batch["position"][batch["where"]] for batch in drawn])
    np.testing.assert_array_equal(position, order)
    for batch in drawn:
        brightest = batch["image"].codes.reshape(size, 16).argmax(axis=1)
        np.testing.assert_array_equal(brightest, batch["position"])
        np.testing.assert_array_equal(batch["image"].low, batch["position"])
        np.testing.assert_allclose(
            batch["image"].step, (1000 - batch["position"]) / 65535, rtol=1e-6
        )
        np.testing.assert_array_equal(batch["label"][:, 3, 3], batch["position"] % 3 > 0)
        assert set(batch["position"]) <= set(
            batch["position"][batch["where"]]
        )  # padded with its own


def test_an_order_may_leave_slices_out() -> None:
    (batch,) = batches(make_dataset(9), [8, 2], 2)
    assert batch["position"].tolist() == [8, 2]
    assert batch["where"].tolist() == [True, True]
    np.testing.assert_array_equal(batch["image"].low, [8, 2])


@pytest.mark.parametrize(
    ("targets", "expected"),
    [((), [0, 1, 1]), (("a", "b"), [0, 1, 2]), (("b", "a"), [0, 2, 1]), (("b",), [0, 0, 1])],
)
def test_masks_are_counted_as_the_network_does(
    targets: tuple[str, ...], expected: list[int]
) -> None:
    (batch,) = batches(make_dataset(3, classes=("a", "b"), targets=targets), range(3), 3)
    assert batch["label"][:, 0, 0].tolist() == expected


def counted(count: int, pulled: list[int]) -> Iterator[dict]:
    """Batches of one slice; ``pulled`` tells which have been asked for."""
    for i, batch in enumerate(batches(make_dataset(9), range(count), 1)):
        pulled.append(i)
        yield batch


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_batches_sent_ahead_are_the_same_in_the_same_order(count: int, ahead: int) -> None:
    expected = list(counted(count, []))
    sent = list(sent_ahead(counted(count, []), ahead=ahead))
    assert len(sent) == count
    for one, other in zip(sent, expected, strict=True):
        leaves = jax.tree.leaves(one)
        assert all(isinstance(leaf, jax.Array) for leaf in leaves)
        for leaf, wanted in zip(leaves, jax.tree.leaves(other), strict=True):
            assert leaf.dtype == wanted.dtype
            np.testing.assert_array_equal(leaf, wanted)


def test_as_many_as_asked_for_are_on_their_way_and_no_more() -> None:
    pulled: list[int] = []
    for used, _ in enumerate(sent_ahead(counted(6, pulled), ahead=2), start=1):
        assert len(pulled) == min(used + 2, 6)


def test_a_slice_that_comes_again_has_another_position_each_time() -> None:
    """So that its augmentation is another; padding repeats positions of its own batch."""
    drawn = list(batches(make_dataset(8), [5, 2, 5, 5, 2], 3))
    assert [batch["position"].tolist() for batch in drawn] == [[5, 2, 13], [21, 10, 21]]
    assert drawn[0]["image"].low.tolist() == [5, 2, 5]
    assert drawn[1]["image"].low.tolist() == [5, 2, 5]
