"""Scans to probabilities: decoded ahead, computed in batches of one shape, whatever their sizes."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Num

from covid_jax.data.layouts.folders import find_files, normal
from covid_jax.errors import DataError
from covid_jax.inference import Run
from covid_jax.io.formats import LOSSLESS, NIFTI
from covid_jax.io.geometry import Geometry
from covid_jax.io.read_scan import read_mask, read_scan
from covid_jax.prediction.find_scans import Source
from covid_jax.prediction.options import PredictOptions
from covid_jax.prediction.threads import in_background
from covid_jax.transforms.preprocessing import QuantizedSlices, pack

_AHEAD = 2  # batches that wait between two threads


@dataclass(frozen=True)
class LoadedScan:
    """A scan as stored: at most a few are held at once.

    Attributes:
      source: where it comes from.
      stack: slices as displayed, raw intensities.
      geometry: how they lie in space; None for a picture.
      lungs: their lung mask, if one was given.
      range: least and greatest intensity.
    """

    source: Source
    stack: Num[np.ndarray, "n h w"]
    geometry: Geometry | None
    lungs: Bool[np.ndarray, "n h w"] | None
    range: tuple[float, float]


class Predicted(NamedTuple):
    """A slice's probabilities at the network's size.

    Attributes:
      scan: whose it is.
      place: of the slice among its slices, from 0; they come in order, scan by scan.
      views: of the slice and, if they were asked for, its flips turned back.
    """

    scan: LoadedScan
    place: int
    views: Float32[np.ndarray, "v s s c"]


def predict_slices(
    run: Run,
    sources: Sequence[Source],
    options: PredictOptions,
    failed: Callable[[Source, DataError], None],
) -> Generator[Predicted, None, None]:
    """Predicts scans one after the other; decoding and computing run in threads of their own.

    Args:
      run: the network.
      sources: the scans.
      options: how.
      failed: told of each scan that cannot be read, from another thread; the others go on.
    """
    size = options.batch_size
    if all(source.kind == "picture" for source in sources):
        size = min(size, max(1, len(sources)))  # or most of a lone picture's batch were padding
    loaded = in_background(_batches(run, sources, options, size, failed), _AHEAD)
    yield from in_background(_computed(run, loaded, size, options.tta), _AHEAD * size)


def load(source: Source, options: PredictOptions) -> LoadedScan:
    """Reads a scan, and its lung mask where one was asked for.

    Raises:
      DataError: if either cannot be read, or they do not fit.
    """
    stack, geometry = read_scan(source.path, options.series)
    lungs = None
    if options.lungs is not None:
        path = _lung_file(options.lungs, source)
        mask, notes = read_mask(path, source.path, stack.shape, geometry)
        if notes:
            raise DataError(f"{path}: {notes[0]}")
        lungs = mask > 0
    return LoadedScan(source, stack, geometry, lungs, (float(stack.min()), float(stack.max())))


Piece = tuple[LoadedScan, int]  # a slice of a scan


def _batches(
    run: Run,
    sources: Sequence[Source],
    options: PredictOptions,
    size: int,
    failed: Callable[[Source, DataError], None],
) -> Generator[tuple[list[Piece], QuantizedSlices], None, None]:
    """Slices of all scans, so many at a time, resized to the network's size."""

    def packed() -> tuple[list[Piece], QuantizedSlices]:
        images = [scan.stack[index] for scan, index in pieces]
        return pieces, pack(images, run.config.data.image_size)

    pieces: list[Piece] = []
    for source in sources:
        try:
            scan = load(source, options)
        except DataError as error:
            failed(source, error)
            continue
        for index in range(len(scan.stack)):
            pieces.append((scan, index))
            if len(pieces) == size:
                yield packed()
                pieces = []
        del scan  # before the next one is read
    if pieces:
        yield packed()


def _computed(
    run: Run,
    batches: Generator[tuple[list[Piece], QuantizedSlices], None, None],
    size: int,
    tta: bool,
) -> Generator[Predicted, None, None]:
    try:
        for pieces, images in batches:
            views = list(run.predict_views(images, size, flips=tta))
            while pieces:  # emptied, or a scan would be held while the next batch is awaited
                yield Predicted(*pieces.pop(0), views.pop(0))
    finally:
        batches.close()


def _lung_file(lungs: Path, source: Source) -> Path:
    if not lungs.is_dir():
        return lungs
    endings = LOSSLESS if source.kind == "picture" else NIFTI
    place = lungs / source.name
    if file := find_files(place.parent, endings).get(normal(place.name)):
        return file
    raise DataError(
        f"{source.path}: expected one lung mask, found none at {place} ({', '.join(endings)})"
    )
