"""Slices in batches of one fixed shape, so that a step compiles once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8


class Batch(NamedTuple):
    """What a step sees. The last batch of an epoch is padded with copies that do not count.

    Attributes:
      images: as the network takes them.
      masks: 0 or 1.
      position: each slice's place in the arrays it was drawn from.
      real: False for padding.
    """

    images: Float32[np.ndarray, "b s s 1"]
    masks: UInt8[np.ndarray, "b s s 1"]
    position: Int32[np.ndarray, " b"]
    real: Bool[np.ndarray, " b"]


def batches(
    images: Float32[np.ndarray, "n s s 1"],
    masks: UInt8[np.ndarray, "n s s 1"],
    order: Sequence[int] | Int32[np.ndarray, " m"],
    batch_size: int,
) -> Iterator[Batch]:
    """Cuts the slices, in this order, into batches of exactly ``batch_size``."""
    for start in range(0, len(order), batch_size):
        part = np.asarray(order[start : start + batch_size], np.int32)
        position = np.resize(part, batch_size)
        yield Batch(images[position], masks[position], position, np.arange(batch_size) < len(part))
