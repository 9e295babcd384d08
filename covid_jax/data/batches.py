"""Slices in batches of one fixed shape, so that a step compiles once, sent ahead of their use."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Int32, Integer, UInt8

from covid_jax.data.dataset import SliceDataset
from covid_jax.transforms.preprocessing import QuantizedSlices


class Batch(NamedTuple):
    """What a step sees. The last batch of an epoch is padded with copies that do not count.

    Attributes:
      images: raw intensities at the network's size, as codes.
      masks: class ids as the network counts them.
      position: each slice's place in the dataset.
      real: False for padding.
    """

    images: QuantizedSlices
    masks: UInt8[np.ndarray, "b s s"]
    position: Int32[np.ndarray, " b"]
    real: Bool[np.ndarray, " b"]


def batches(
    dataset: SliceDataset,
    order: Sequence[int] | Integer[np.ndarray, " m"],
    batch_size: int,
    rows: int | None = None,
    share: slice = slice(None),
) -> Iterator[Batch]:
    """Cuts these slices of the dataset, in this order, into batches of one shape.

    Args:
      dataset: holds the slices.
      order: their positions.
      batch_size: slices that count, of every batch but the last.
      rows: of each batch, at least ``batch_size``: so many as the devices can share equally.
      share: of these rows, those that this process reads.
    """
    images, masks = dataset.network
    rows = rows or batch_size
    for start in range(0, len(order), batch_size):
        part = np.asarray(order[start : start + batch_size], np.int32)
        position = np.resize(part, rows)[share]
        yield Batch(
            QuantizedSlices(*(array[position] for array in images)),
            dataset.target_ids(masks[position]),
            position,
            (np.arange(rows) < len(part))[share],
        )


def sent_ahead(
    source: Iterable[Batch], place: Callable[[Batch], Batch] = jax.device_put, ahead: int = 2
) -> Iterator[Batch]:
    """The same batches, on their way to the devices while earlier ones are being computed.

    Args:
      source: batches on the host.
      place: sends one off, without waiting for it.
      ahead: batches under way.
    """
    iterator = iter(source)
    waiting = collections.deque(map(place, islice(iterator, ahead)))
    while waiting:
        batch = waiting.popleft()
        waiting.extend(map(place, islice(iterator, 1)))
        yield batch
