"""Slices with their lesion masks: what every layout opens into."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Num, UInt8

from covid_jax.data.cache import Plan, open_arrays
from covid_jax.data.decode import in_order, pixel_digest
from covid_jax.data.scan import LESION
from covid_jax.errors import ConfigError, DataError
from covid_jax.transforms.input_form import InputForm
from covid_jax.transforms.preprocessing import QuantizedSlices, pack, resize_mask

_RESIZE_VERSION = 1  # a new number makes every slice at the network's size stale


@dataclass(frozen=True)
class Slice:
    """One axial slice on its own grid.

    Attributes:
      id: unique within the dataset and stable between readings, such as ``rp_im/3:017``.
      source: the collection it comes from, such as ``Dataset-1``.
      patient: None where nobody published it.
      published: the subset a published split puts it in, None where there is no such split.
      image: raw intensities as stored.
      mask: class ids, 0 background, k the dataset's k-th class.
      spacing: of rows and columns in mm; None where the file does not say.
      form: how it becomes the network's input.
    """

    id: str
    source: str
    patient: str | None
    published: Literal["train", "test"] | None
    image: Num[np.ndarray, "h w"]
    mask: UInt8[np.ndarray, "h w"]
    spacing: tuple[float, float] | None = None
    form: InputForm = InputForm()

    @functools.cached_property
    def digest(self) -> str:
        """Of the image's pixels: equal for copies, whatever they are called."""
        return pixel_digest(self.image)

    @functools.cached_property
    def mask_digest(self) -> str:
        """Of the mask's pixels."""
        return pixel_digest(self.mask)

    @functools.cached_property
    def range(self) -> tuple[float, float]:
        """Least and greatest intensity."""
        return float(self.image.min()), float(self.image.max())

    @functools.cached_property
    def label_pixels(self) -> tuple[int, ...]:
        """Pixels of class id 0, 1, ... up to the greatest one there."""
        return tuple(np.bincount(self.mask.ravel()).tolist())

    @property
    def lesion_share(self) -> float:
        """Lesion pixels, of all the slice's."""
        return sum(self.label_pixels[1:]) / self.mask.size


class NetworkSlices(NamedTuple):
    """All slices of a dataset at the network's size.

    Attributes:
      images: raw intensities as 16-bit codes.
      masks: class ids.
    """

    images: QuantizedSlices
    masks: UInt8[np.ndarray, "n s s"]


@dataclass(frozen=True)
class SliceDataset:
    """An opened dataset.

    Attributes:
      layout: what was recognised, in words.
      slices: in a fixed order.
      image_size: side of the square grid the network sees, in pixels.
      notes: what the reader of any result must know of the data (slices left out, synthetic, ...).
      classes: names of the lesion classes the masks hold.
      targets: the classes to be told apart, in the network's order; none: all merged to one.
      cache: folder that keeps the slices at the network's size; None: they are made anew.
    """

    layout: str
    slices: tuple[Slice, ...]
    image_size: int
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = (LESION,)
    targets: tuple[str, ...] = ()
    cache: Path | None = None

    def __post_init__(self) -> None:
        if not self.slices:
            raise DataError(f"{self.layout}: no slices with a lesion in it")
        ids = [item.id for item in self.slices]
        if len(set(ids)) != len(ids):
            raise DataError(f"{self.layout}: two slices share a name")
        if missing := [name for name in self.targets if name not in self.classes]:
            raise ConfigError(
                f"--classes {' '.join(missing)}: {self.layout} knows {', '.join(self.classes)}"
            )

    def __len__(self) -> int:
        return len(self.slices)

    def select(self, indices: Sequence[int]) -> "SliceDataset":
        """The dataset of these slices alone, in the order given."""
        return dataclasses.replace(self, slices=tuple(self.slices[i] for i in indices), cache=None)

    @functools.cached_property
    def network(self) -> NetworkSlices:
        """All slices at the network's size: mapped from the cache, made first where it lacks them.

        Raises:
          DataError: if the cache cannot be written.
        """
        if self.cache is None:
            return self._at_network_size()
        folder = self.cache / f"network-{self.image_size}-{_RESIZE_VERSION}"
        arrays = open_arrays(folder, self._write_network_size).arrays
        images = QuantizedSlices(*(arrays[name] for name in QuantizedSlices._fields))
        return NetworkSlices(images, arrays["masks"])

    def _at_network_size(self) -> NetworkSlices:
        size = self.image_size
        masks = [resize_mask(one.form.cropped(one.mask), size, size) for one in self.slices]
        forms = [one.form for one in self.slices]
        return NetworkSlices(pack([one.image for one in self.slices], size, forms), np.stack(masks))

    def _write_network_size(self, folder: Path) -> Plan:
        """A slice after the other, so that memory does not grow with the dataset."""
        sizes = {}
        with contextlib.ExitStack() as stack:
            names = (*QuantizedSlices._fields, "masks")
            files = {n: stack.enter_context((folder / f"{n}.bin").open("wb")) for n in names}
            for images, masks in in_order(self._one_at_network_size, range(len(self))):
                for name, array in {**images._asdict(), "masks": masks}.items():
                    files[name].write(array.tobytes())
                    sizes[name] = (array.dtype.str, (len(self), *array.shape[1:]))
        return Plan(None, sizes)

    def _one_at_network_size(self, index: int) -> NetworkSlices:
        return self.select([index])._at_network_size()

    def target_ids(self, mask: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        """From the masks' class ids to the network's: 0 or 1 where all lesions are merged."""
        if not self.targets:
            return (mask > 0).astype(np.uint8)
        names = [None, *self.classes]
        table = [1 + self.targets.index(name) if name in self.targets else 0 for name in names]
        return np.asarray(table, np.uint8)[mask]

    def lesion_slices_only(self) -> bool:
        """Whether every slice shows a lesion, so that scores say nothing of others."""
        return all(item.lesion_share > 0 for item in self.slices)

    def fingerprint(self) -> str:
        """Digest of every slice's name, patient, intensities and labels, in 16 letters."""
        digest = hashlib.blake2b(digest_size=8)
        for item in self.slices:
            fields = item.id, item.patient, item.published, item.digest, item.mask_digest
            digest.update(repr((*fields, self.classes)).encode())
        return digest.hexdigest()
