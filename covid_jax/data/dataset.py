"""A dataset of slices with lesion masks, independent of its layout on disk."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from jaxtyping import Num, Shaped, UInt8

from covid_jax.data.arrays import mask_array, slice_array, spacing_pair
from covid_jax.data.cache import Plan, open_arrays
from covid_jax.data.decode import in_order, pixel_digest
from covid_jax.data.scan import known_patient
from covid_jax.errors import ConfigError, DataError, plural
from covid_jax.transforms.input_form import InputForm
from covid_jax.transforms.labels import LESION
from covid_jax.transforms.preprocessing import QuantizedSlices, pack, resize_mask

_RESIZE_VERSION = 1  # a new number makes every slice at the network's size stale


@dataclass(frozen=True, eq=False, repr=False)
class Slice:
    """One axial slice on its own grid; compared by identity.

    Attributes:
      id: unique within the dataset and stable between readings, such as ``rp_im/3:017``.
      source: the collection it comes from, such as ``Dataset-1``.
      patient: None if unknown.
      published: its subset in a published split; None if there is none.
      image: raw intensities as stored.
      mask: class ids, 0 background, k the dataset's k-th class.
      spacing: of rows and columns in mm; None if unknown.
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

    def __repr__(self) -> str:
        height, width = self.image.shape
        return f"Slice({self.id!r}, {height} x {width} {self.image.dtype})"

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the image's pixels; equal for copies of any name."""
        return pixel_digest(self.image)

    @functools.cached_property
    def mask_digest(self) -> str:
        """Digest of the mask's pixels."""
        return pixel_digest(self.mask)

    @functools.cached_property
    def range(self) -> tuple[float, float]:
        """Least and greatest intensity."""
        return float(self.image.min()), float(self.image.max())

    @functools.cached_property
    def label_pixels(self) -> tuple[int, ...]:
        """Numbers of pixels of class id 0, 1, ... up to the greatest in the mask."""
        return tuple(np.bincount(self.mask.ravel()).tolist())

    @property
    def lesion_share(self) -> float:
        """Lesion pixels as a fraction of the slice's pixels."""
        return sum(self.label_pixels[1:]) / self.mask.size


class NetworkSlices(NamedTuple):
    """All slices of a dataset at the network's size.

    Attributes:
      images: raw intensities as 16-bit codes.
      masks: class ids.
    """

    images: QuantizedSlices
    masks: UInt8[np.ndarray, "n s s"]


@dataclass(frozen=True, repr=False)
class SliceDataset(Sequence[Slice]):
    """An opened dataset: a sequence of slices.

    ``dataset[3]`` is a ``Slice``, ``dataset[:10]`` a dataset of ten.

    Attributes:
      layout: description of the recognised layout.
      slices: in a fixed order.
      image_size: side of the square grid the network sees, in pixels.
      notes: limitations of the data that every result should mention (slices left out, ...).
      classes: names of the lesion classes the masks hold.
      targets: the classes to distinguish, in the network's order; none: all merged to one.
      cache: folder for the slices at the network's size; None: they are not cached.
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
            raise DataError(f"{self.layout}: no slices are left; at least one is needed")
        ids = [item.id for item in self.slices]
        if len(set(ids)) != len(ids):
            raise DataError(f"{self.layout}: two slices share a name")
        check_targets(self.layout, self.classes, self.targets)

    @classmethod
    def from_arrays(
        cls,
        images: Sequence[Shaped[np.ndarray, "_ _"]] | Shaped[np.ndarray, "n h w"],
        masks: Sequence[Shaped[np.ndarray, "_ _"]] | Shaped[np.ndarray, "n h w"],
        *,
        image_size: int = 512,
        patients: Sequence[str | None] | None = None,
        spacing: tuple[float, float] | Sequence[tuple[float, float] | None] | None = None,
        source: str = "arrays",
        classes: tuple[str, ...] = (LESION,),
        targets: tuple[str, ...] = (),
    ) -> "SliceDataset":
        """A dataset of slices that are in memory; slices without lesion are kept.

        Args:
          images: raw intensities, slices of any sizes or a stack; not copied.
          masks: their lesions: booleans, or 0 for background and k for the k-th class.
          image_size: side of the square grid the network sees, in pixels.
          patients: of each slice; None where unknown.
          spacing: of rows and columns in mm, one for all or one for each slice.
          source: the collection's name.
          classes: names of the classes in the masks.
          targets: the classes to distinguish; none: all merged to one.

        Raises:
          DataError: if an array is not a slice, numbers or shapes of arrays differ, a value is not
            a finite real number, or a label has no class; the message names the slice.
          ConfigError: if a target is not a class.
        """
        count = len(images)
        spacings: Any = spacing
        if spacing is None or (len(spacing) == 2 and all(map(np.isscalar, spacing))):
            spacings = [spacing] * count
        patients = [None] * count if patients is None else patients
        for name, values in (("masks", masks), ("patients", patients), ("spacing", spacings)):
            if isinstance(values, str) or len(values) != count:
                raise DataError(f"{source}: {len(values)} {name} for {count} images")
        columns = zip(range(count), images, masks, patients, spacings, strict=True)
        slices = tuple(
            Slice(
                id=f"{source}:{i:03d}",
                source=source,
                patient=known_patient(patient),
                published=None,
                image=(pixels := slice_array(image, f"{source}: image {i}")),
                mask=mask_array(mask, pixels.shape, len(classes), f"{source}: mask {i}"),
                spacing=spacing_pair(size, f"{source}: spacing {i}"),
            )
            for i, image, mask, patient, size in columns
        )
        layout = f"{source}: {plural(count, 'slice')} from arrays"
        note = "opened from arrays in memory: no folder holds this data"
        return cls(layout, slices, image_size, (note,), classes, targets)

    def __len__(self) -> int:
        return len(self.slices)

    @overload
    def __getitem__(self, index: int) -> Slice: ...

    @overload
    def __getitem__(self, index: slice) -> "SliceDataset": ...

    def __getitem__(self, index: int | slice) -> "Slice | SliceDataset":
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        return self.slices[index]

    def __repr__(self) -> str:
        size = f"image_size={self.image_size}"
        return f"SliceDataset({self.layout!r}, {plural(len(self), 'slice')}, {size})"

    def select(self, indices: Sequence[int]) -> "SliceDataset":
        """A dataset of only these slices, in the given order."""
        return dataclasses.replace(self, slices=tuple(self.slices[i] for i in indices), cache=None)

    @functools.cached_property
    def network(self) -> NetworkSlices:
        """All slices at the network's size, mapped from the cache and computed once.

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
        masks = [resize_mask(item.form.cropped(item.mask), size, size) for item in self.slices]
        images = pack([item.image for item in self.slices], size, [s.form for s in self.slices])
        return NetworkSlices(images, np.stack(masks))

    def _write_network_size(self, folder: Path) -> Plan:
        """Writes slice by slice, so that memory use does not grow with the dataset."""
        sizes = {}
        with contextlib.ExitStack() as stack:
            names = (*QuantizedSlices._fields, "masks")
            files = {n: stack.enter_context((folder / f"{n}.bin").open("wb")) for n in names}
            parts = in_order(lambda i: self.select([i])._at_network_size(), range(len(self)))
            for images, masks in parts:
                for name, array in zip(names, (*images, masks), strict=True):
                    files[name].write(array.tobytes())
                    sizes[name] = (array.dtype.str, (len(self), *array.shape[1:]))
        return Plan(None, sizes)

    def target_ids(self, mask: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        """From the masks' class ids to the network's: 0 or 1 where all lesions are merged."""
        if not self.targets:
            return (mask > 0).astype(np.uint8)
        names = [None, *self.classes]
        table = [1 + self.targets.index(name) if name in self.targets else 0 for name in names]
        return np.asarray(table, np.uint8)[mask]

    def fingerprint(self) -> str:
        """Digest of every slice's name, patient, intensities and labels, in 16 letters."""
        digest = hashlib.blake2b(digest_size=8)
        for item in self.slices:
            fields = item.id, item.patient, item.published, item.digest, item.mask_digest
            digest.update(repr((*fields, self.classes)).encode())
        return digest.hexdigest()


def check_targets(layout: str, classes: Sequence[str], targets: Sequence[str]) -> None:
    """Refuses targets that are not classes of the dataset.

    Raises:
      ConfigError: naming both.
    """
    if missing := [name for name in targets if name not in classes]:
        raise ConfigError(f"--classes {' '.join(missing)}: {layout} knows {', '.join(classes)}")
