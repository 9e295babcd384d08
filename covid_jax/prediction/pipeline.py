"""From scans, decoded ahead and predicted in batches of one shape, to probabilities and masks."""

import collections
import contextlib
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Num, UInt8
from scipy import ndimage, special

from covid_jax.data.layouts.folders import find_files, normal
from covid_jax.errors import DataError
from covid_jax.inference import Run
from covid_jax.io.formats import LOSSLESS, VOLUMES
from covid_jax.io.geometry import Geometry
from covid_jax.io.read_scan import read_mask, read_scan
from covid_jax.prediction.dicom_seg import source_headers
from covid_jax.prediction.find_scans import Source
from covid_jax.prediction.options import PredictOptions
from covid_jax.transforms.input_form import ScanForm
from covid_jax.transforms.labels import predict_labels
from covid_jax.transforms.lungs import Lungs
from covid_jax.transforms.preprocessing import QuantizedSlices, pack

T = TypeVar("T")
Ids = UInt8[np.ndarray, "h w"]  # class ids
Map = Float32[np.ndarray, "h w"]
Scores = Float32[np.ndarray, "h w c"]  # probabilities, as ``on_grid`` gives them
_AHEAD = 2  # batches whose slices wait between two threads
_ROUNDING = 1e-3  # of a slice: affines are float32
_LEAST_MM = 150  # height of a chest
_EIGHT = np.ones((3, 3), bool)  # lesions joined by corners are one, as in metrics.lesion_detection


@dataclass(frozen=True)
class LoadedScan:
    """A decoded scan; only a few are in memory at once.

    Attributes:
      source: of the scan.
      stack: slices as displayed, raw intensities.
      geometry: affine and spacing; None for a 2-D image without one.
      lungs: labels of their lung mask, if one was given; 0 is outside.
      range: least and greatest intensity.
      form: how its slices become the network's input.
      headers: of its DICOM files, for a DICOM segmentation.
    """

    source: Source
    stack: Num[np.ndarray, "n h w"]
    geometry: Geometry | None
    lungs: Num[np.ndarray, "n h w"] | None
    range: tuple[float, float]
    form: ScanForm
    headers: Sequence[Any] = ()

    def ml(self, voxels: int = 1) -> float | None:
        """Volume of so many voxels in ml; None for a single slice or an unknown voxel size."""
        if self.geometry is None or not self.geometry.oriented or len(self.stack) == 1:
            return None
        voxel = float(abs(np.linalg.det(self.geometry.affine[:3, :3]))) / 1000
        return voxels * voxel

    def volume(self, voxels: int, prefix: str = "") -> dict[str, float | None]:
        """So many voxels, and their volume in ml, under names with a prefix."""
        return {f"{prefix}voxels": voxels, f"{prefix}ml": self.ml(voxels)}

    @property
    def pixel_area(self) -> float | None:
        """The area of a pixel in mm2; None if the file does not state it."""
        if self.geometry is None or not self.geometry.oriented:
            return None
        _, rows, columns = self.geometry.spacing
        return rows * columns

    def weights(self, deviation: float) -> list[float]:
        """Gaussian weights of a slice and of those after (or before) it, to two deviations away.

        Slices of unknown distance are on their own.

        Args:
          deviation: in mm.
        """
        geometry = self.geometry
        if not deviation or geometry is None or not geometry.oriented or self.unit_voxels:
            return [1.0]
        gap = geometry.spacing[0]
        reach = int(min(len(self.stack) - 1, 2 * deviation / gap + _ROUNDING))
        return [math.exp(-0.5 * (k * gap / deviation) ** 2) for k in range(reach + 1)]

    @property
    def unit_voxels(self) -> bool:
        """Whether they are 1 x 1 x 1 mm and too few for a chest, as of stacked pictures."""
        spacing = self.geometry.spacing if self.geometry else ()
        return set(spacing) == {1.0} and 1 < len(self.stack) < _LEAST_MM


Failed = Callable[[Source, DataError], None]


class Predicted(NamedTuple):
    """A slice's probabilities at the network's size.

    Attributes:
      scan: of the slice.
      number: of the slice in the scan, from 0; they come in order, scan by scan.
      views: predictions by each member of an ensemble, of the slice and, with ``tta``, of its flips
        (flipped back).
    """

    scan: LoadedScan
    number: int
    views: Float32[np.ndarray, "m v s s c"]


def predict_slices(
    run: Run, sources: Sequence[Source], options: PredictOptions, failed: Failed
) -> Generator[Predicted, None, None]:
    """Predicts scans one after the other; decoding and computing run in threads of their own.

    Args:
      run: the network.
      sources: the scans.
      options: of the prediction.
      failed: called, from another thread, with each scan that cannot be read or is too large for
        the memory; the others go on. Some of its slices may have come already.
    """
    size = run.batch_of(2**30, options.batch_size)
    slices = in_background(_slices(run, sources, options, failed), _AHEAD * size)
    yield from in_background(_computed(run, slices, size, options.tta), _AHEAD * size)


def load(run: Run, source: Source, options: PredictOptions) -> LoadedScan:
    """Reads a scan, and its lung mask where one was asked for; else lungs in HU are found.

    Raises:
      DataError: if either cannot be read, or their grids differ.
    """
    headers = ()
    if options.format == "dicom-seg":
        if source.kind != "dicom":
            raise DataError(f"{source.path}: not DICOM, which --format dicom-seg refers to")
        headers = source_headers(source.path, options.series)
    stack, geometry = read_scan(source.path, options.series)
    lungs = None
    if options.lungs is not None:
        path = lung_file(options.lungs, source)
        lungs, notes = read_mask(path, source.path, stack.shape, geometry)
        if notes or not np.array_equal(lungs, np.rint(lungs)):
            raise DataError(f"{path}: {[*notes, 'expected whole numbers, labels of the lungs'][0]}")
    form = run.input_form(stack, inside_lungs=bool(options.inside_lungs))
    if lungs is None and form.lungs is not None and form.hounsfield:
        lungs = form.lungs.mask
    elif lungs is not None:  # they are known better than by the intensities
        form = form._replace(lungs=Lungs((lungs > 0).astype(np.uint8), np.zeros(len(stack), bool)))
    span = float(stack.min()), float(stack.max())
    return LoadedScan(source, stack, geometry, lungs, span, form, headers)


@contextlib.contextmanager
def memory_of(path: Path) -> Iterator[None]:
    """Turns a MemoryError in the block into a DataError that names the scan.

    Raises:
      DataError: in place of a MemoryError.
    """
    try:
        yield
    except MemoryError as error:
        raise DataError(f"{path}: needs more memory; make room, or predict a part of it") from error


Loaded = tuple[LoadedScan, int, QuantizedSlices]  # one of its slices, resized


def _slices(
    run: Run, sources: Sequence[Source], options: PredictOptions, failed: Failed
) -> Generator[Loaded, None, None]:
    """The slices of all scans at the network's size."""
    for source in sources:
        try:
            with memory_of(source.path):
                scan = load(run, source, options)
                for index, form in enumerate(scan.form.slices):
                    yield scan, index, pack([scan.stack[index]], run.config.data.image_size, [form])
        except DataError as error:
            failed(source, error)
        scan = None  # before the next one is read


def _computed(
    run: Run, slices: Generator[Loaded, None, None], size: int, tta: bool
) -> Generator[Predicted, None, None]:
    first = None  # size of the first batch, which is full if there is another
    with contextlib.closing(slices):
        while batch := list(itertools.islice(slices, size)):
            first = first or len(batch)
            images = (image for *_, image in batch)
            joined = QuantizedSlices(*map(np.concatenate, zip(*images, strict=True)))
            views = list(run.predict_views(joined, first, flips=tta))
            while batch:  # emptied, or a scan would be held while the next batch is awaited
                yield Predicted(*batch.pop(0)[:2], views.pop(0))


def lung_file(lungs: Path, source: Source) -> Path:
    """The lung mask of a scan.

    Args:
      lungs: a file, or a folder of masks named as the scans.
      source: the scan.

    Raises:
      DataError: if the folder holds none, or several.
    """
    if not lungs.is_dir():
        return lungs
    endings = LOSSLESS if source.kind == "picture" else VOLUMES
    place = lungs / source.name
    if file := find_files(place.parent, endings).get(normal(place.name)):
        return file
    raise DataError(f"{source.path}: found no lung mask at {place} ({', '.join(endings)})")


def clean(
    ids: Ids, scores: Scores, inside: Bool[np.ndarray, "h w"], min_pixels: float, fill_holes: bool
) -> Ids:
    """Fills holes, drops what is outside, then small lesions; classes are taken together.

    Args:
      ids: class ids, as decided.
      scores: from which the ids were computed; the pixels of a hole get their most probable lesion
        class.
      inside: pixels that may be lesion.
      min_pixels: smaller lesions (8 neighbours) are dropped.
      fill_holes: fill background regions (4 neighbours) that are enclosed by lesion.
    """
    if fill_holes:
        holes = ndimage.binary_fill_holes(ids > 0) & (ids == 0)
        best = scores[..., 1:].argmax(-1) if scores.shape[-1] > 1 else np.zeros(ids.shape, int)
        ids = np.where(holes, 1 + best, ids).astype(np.uint8)
    ids = np.where(inside, ids, 0).astype(np.uint8)
    if min_pixels > 0:
        labels = np.asarray(ndimage.label(ids > 0, _EIGHT)[0], int)  # pyright: ignore
        small = np.bincount(labels.ravel()) < min_pixels
        ids = np.where(small[labels], 0, ids).astype(np.uint8)
    return ids


def agreement(views: Float32[np.ndarray, "v h w c"], decision: Ids, threshold: float) -> Map:
    """For each pixel, the share of views with the label of their average, in [0, 1]."""
    return (np.asarray(predict_labels(views, threshold)) == decision).mean(0, dtype=np.float32)


def entropy(scores: Scores) -> Map:
    """Shannon entropy of each pixel's classes, in bits: 0 certain, 1 for two equally probable."""
    whole = np.concatenate([1 - scores, scores], -1) if scores.shape[-1] == 1 else scores
    return special.entr(whole).sum(-1) / np.float32(np.log(2))


def in_background(source: Generator[T, None, None], ahead: int) -> Generator[T, None, None]:
    """Yields the items of ``source``, computed ahead of time; its errors are raised here.

    Args:
      source: run and closed in a separate thread.
      ahead: items that wait to be read, at most; memory grows with it.
    """
    end: Any = object()
    waiting: collections.deque[Future] = collections.deque()
    with ThreadPoolExecutor(1) as thread:
        try:
            while True:
                while len(waiting) <= ahead:
                    waiting.append(thread.submit(next, source, end))
                item = waiting.popleft().result()
                if item is end:
                    return
                yield item
                del item  # or a scan would be held while the next one is read
        finally:
            for future in waiting:
                future.cancel()
            thread.submit(source.close)
