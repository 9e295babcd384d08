"""Batches of one fixed shape, for which a step compiles once; sent to the devices in advance."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import jax
import numpy as np
from jaxtyping import Int32, Integer

from covid_jax.data.dataset import SliceDataset


def batches(
    dataset: SliceDataset,
    order: Sequence[int] | Integer[np.ndarray, " m"],
    batch_size: int,
    rows: int | None = None,
    share: slice = slice(None),
) -> Iterator[dict[str, Any]]:
    """Cuts these slices of the dataset, in this order, into batches of one shape.

    Args:
      dataset: holds the slices.
      order: positions of the slices.
      batch_size: real slices per batch; the last batch may have fewer.
      rows: rows per batch, at least ``batch_size``, so that devices get equal numbers of rows.
      share: the rows that this process reads.

    Yields:
      ``image``: raw intensities at the network's size, as codes; ``label`` (B, S, S): class ids as
      the network counts them; ``position`` (B,): each slice's position in the dataset, plus
      the dataset's length for each repetition; ``where`` (B,): False for padding, which copies
      slices of the same batch.
    """
    images, masks = dataset.network
    rows = rows or batch_size
    order = np.asarray(order, np.int32)
    names = order + len(dataset) * _repeats(order)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        position = np.resize(part, rows)[share]
        yield {
            "image": images.take(position),
            "label": dataset.target_ids(masks[position]),
            "position": np.resize(names[start : start + batch_size], rows)[share],
            "where": (np.arange(rows) < len(part))[share],
        }


def _repeats(order: Int32[np.ndarray, " m"]) -> Int32[np.ndarray, " m"]:
    """How often each position occurred before in the order."""
    places = np.argsort(order, kind="stable")
    sorted_order = order[places]
    before = np.empty_like(order)
    before[places] = np.arange(len(order)) - np.searchsorted(sorted_order, sorted_order)
    return before


def sent_ahead(
    source: Iterable[dict[str, Any]], place: Callable[[Any], Any] = jax.device_put, ahead: int = 2
) -> Iterator[dict[str, Any]]:
    """The same batches, transferred to the devices while earlier ones are being computed.

    Args:
      source: batches on the host.
      place: starts the transfer of a batch without waiting for it.
      ahead: batches in transfer at a time.
    """
    iterator = iter(source)
    waiting = collections.deque(map(place, islice(iterator, ahead)))
    while waiting:
        batch = waiting.popleft()
        waiting.extend(map(place, islice(iterator, 1)))
        yield batch
