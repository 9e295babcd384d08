"""Batches of one shape, counted by hand."""

import numpy as np
import pytest

from covid_jax.data.batches import batches


def make_arrays(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Slice i is filled with i; its mask with i's last bit."""
    number = np.arange(count)[:, None, None, None]
    images = np.broadcast_to(number, (count, 4, 4, 1)).astype(np.float32)
    return images, (images.astype(np.uint8) & 1)


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
    images, masks = make_arrays(count)
    drawn = list(batches(images, masks, range(count), size))
    assert [int(batch.real.sum()) for batch in drawn] == real
    for batch in drawn:
        assert batch.images.shape == batch.masks.shape == (size, 4, 4, 1)
        assert (batch.images.dtype, batch.masks.dtype) == (np.float32, np.uint8)
        assert batch.position.shape == batch.real.shape == (size,)
        assert batch.position.dtype == np.int32
        assert batch.real.dtype == np.dtype(bool)
        assert np.all(np.diff(batch.real.astype(int)) <= 0)  # padding comes last


@pytest.mark.parametrize("size", [1, 2, 3, 4, 11, 20])
def test_every_slice_comes_once_and_in_order(size: int) -> None:
    images, masks = make_arrays(11)
    order = np.random.default_rng(0).permutation(11)
    drawn = list(batches(images, masks, order, size))
    position = np.concatenate([batch.position[batch.real] for batch in drawn])
    np.testing.assert_array_equal(position, order)
    for batch in drawn:
        np.testing.assert_array_equal(batch.images[:, 0, 0, 0], batch.position)
        np.testing.assert_array_equal(batch.masks[:, 3, 3, 0], batch.position % 2)
        assert set(batch.position) <= set(batch.position[batch.real])  # padded with its own


def test_an_order_may_leave_slices_out() -> None:
    images, masks = make_arrays(9)
    (batch,) = batches(images, masks, [8, 2], 2)
    assert batch.position.tolist() == [8, 2]
    assert batch.real.tolist() == [True, True]
    np.testing.assert_array_equal(batch.images[:, 0, 0, 0], [8, 2])
