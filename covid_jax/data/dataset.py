"""Slices with their lesion masks: what every layout opens into."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Num, UInt8

from covid_jax.data.preprocess import resize_mask, to_network
from covid_jax.errors import DataError


@dataclass(frozen=True)
class Slice:
    """One axial slice on its own grid.

    Attributes:
      id: unique within the dataset and stable between readings, such as ``rp_im/3:017``.
      source: the collection it comes from, such as ``Dataset-1``.
      patient: None where nobody published it.
      published: the subset a published split puts it in, None where there is no such split.
      image: raw intensities as stored.
      mask: class ids, 0 background.
    """

    id: str
    source: str
    patient: str | None
    published: Literal["train", "test"] | None
    image: Num[np.ndarray, "h w"]
    mask: UInt8[np.ndarray, "h w"]


@dataclass(frozen=True)
class SliceDataset:
    """An opened dataset.

    Attributes:
      layout: what was recognised, in words.
      slices: in a fixed order.
      image_size: side of the square grid the network sees, in pixels.
      notes: what the reader of any result must know of the data (slices left out, synthetic, ...).
    """

    layout: str
    slices: tuple[Slice, ...]
    image_size: int
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.slices:
            raise DataError(f"{self.layout}: no slices with a lesion in it")
        ids = [item.id for item in self.slices]
        if len(set(ids)) != len(ids):
            raise DataError(f"{self.layout}: two slices share a name")

    def __len__(self) -> int:
        return len(self.slices)

    def select(self, indices: Sequence[int]) -> "SliceDataset":
        """The dataset of these slices alone, in the order given."""
        return dataclasses.replace(self, slices=tuple(self.slices[i] for i in indices))

    def network_images(self) -> Float32[np.ndarray, "n s s 1"]:
        """All images as the network sees them (resized, z-scored per slice)."""
        return to_network([item.image for item in self.slices], self.image_size)

    def network_masks(self) -> UInt8[np.ndarray, "n s s 1"]:
        """All masks at the network's size, lesion labels merged to one class: 0 or 1."""
        masks = [resize_mask(item.mask > 0, self.image_size) for item in self.slices]
        return np.stack(masks).astype(np.uint8)[..., None]

    def lesion_slices_only(self) -> bool:
        """Whether every slice shows a lesion, so that scores say nothing of others."""
        return all(item.mask.any() for item in self.slices)

    def fingerprint(self) -> str:
        """Digest of every slice's name, patient, intensities and labels, in 16 letters."""
        digest = hashlib.blake2b(digest_size=8)
        for item in self.slices:
            digest.update(
                repr(
                    (item.id, item.patient, item.published, str(item.image.dtype), item.image.shape)
                ).encode()
            )
            digest.update(item.image.tobytes())
            digest.update(item.mask.tobytes())
        return digest.hexdigest()
