"""Opens dataset folders as one SliceDataset: lists scans, decodes them once, maps the cache."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from covid_jax.data.cache import Contents, open_arrays
from covid_jax.data.dataset import Slice, SliceDataset, check_targets
from covid_jax.data.decode import Progress, Reading, content_key, decode_all, read_form
from covid_jax.data.layouts import list_scans
from covid_jax.data.layouts.folders import full_path
from covid_jax.data.patients import patients_of
from covid_jax.data.scan import Listing, Scans
from covid_jax.data.statistics import survey
from covid_jax.errors import ConfigError, DataError, plural
from covid_jax.files import cache_folder
from covid_jax.io.formats import format_of
from covid_jax.runs.config import DataConfig
from covid_jax.transforms.labels import LESION

_RELATED = (  # collections that are known to share patients
    ("Dataset-1", "COVID-SemiSeg", "show the same slices: joined, each counts twice"),
    ("Dataset-2", "Radiopaedia", "draw on the same Radiopaedia cases, under different names"),
)


def open_dataset(
    path: str | Path | Sequence[str | Path],
    image_size: int = 512,
    *,
    lesion_slices_only: bool = True,
    classes: tuple[str, ...] = (),
    series: tuple[str, ...] = (),
    crop: bool = False,
    grey_scale: bool = False,
    progress: Progress = lambda done, total: None,
) -> SliceDataset:
    """Opens a dataset folder of any known layout, or several folders as one dataset.

    Decoded slices are cached in the user's cache folder, under a name that depends on every byte of
    the files; the next call maps them into memory.

    Args:
      path: the folder or folders; each one's layout is recognised by the names in it.
      image_size: side of the square grid the network sees, in pixels.
      lesion_slices_only: leave out the slices without lesion, as the paper does.
      classes: lesion classes to distinguish; none: all merged to one.
      series: SeriesInstanceUIDs to read from DICOM folders with several series.
      crop: find the lungs of each scan; the network sees their box.
      grey_scale: bring intensities onto one scale (``covid_jax.transforms.grey_scale``).
      progress: called with the number of decoded scans and of all scans.

    Raises:
      DataError: on a missing folder, an unknown layout (saying what was looked for), or an image
        and mask that cannot be used (naming the file), or a source without any lesion under
        ``lesion_slices_only``.
      ConfigError: on a class that the data does not distinguish.
    """
    listing = list_folders([path] if isinstance(path, str | Path) else path, classes)
    looks = "lung" if grey_scale else "slice", "lungs" if crop else "none"
    config = DataConfig((), image_size, lesion_slices_only, classes, series, *looks)
    return open_listing(listing, config, progress)


def list_folders(paths: Sequence[str | Path], classes: tuple[str, ...] = ()) -> Listing:
    """The scans of dataset folders; the arguments and errors are those of ``open_dataset``.

    With several folders, the folder's name is put before the names of scans and of patients that
    the layout knows. Names from patients.csv stay, so that one name is one patient in all folders.
    """
    if not (roots := [Path(root).expanduser() for root in paths]):
        raise DataError("no dataset folder was given")
    listings = [list_scans(root, classes) for root in roots]
    if len(roots) == 1:
        return listings[0]
    layouts, scans, notes = [], [], []
    for folder, listing in zip(_short_names(roots), listings, strict=True):
        layouts.append(f"{folder}: {listing.layout}")
        notes += [f"{folder}: {note}" for note in listing.notes]
        for scan in listing.scans:
            patient = scan.patient and f"{folder}/{scan.patient}"
            scans.append(dataclasses.replace(scan, name=f"{folder}/{scan.name}", patient=patient))
    sources = {scan.source for scan in scans}
    notes += [f"{a} and {b} {how}" for a, b, how in _RELATED if {a, b} <= sources]
    return Listing("; ".join(layouts), tuple(scans), tuple(notes))


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, preceded by as much of their paths as makes them unique."""
    roots = [full_path(folder) for folder in folders]
    resolved = [root.resolve() for root in roots]
    if twice := [root for i, root in enumerate(roots) if resolved[i] in resolved[:i]]:
        raise DataError(f"{twice[0]}: given twice; name each folder once")
    depth = 1
    while len({root.parts[-depth:] for root in roots}) < len(roots):
        depth += 1
    return ["/".join(root.parts[-depth:]) for root in roots]


def open_listing(
    listing: Listing, config: DataConfig, progress: Progress = lambda done, total: None
) -> SliceDataset:
    """Opens scans that have been listed, as the settings say; errors are ``open_dataset``'s."""
    names = tuple(dict.fromkeys(name for scan in listing.scans for name in scan.labels.values()))
    if len(names) > 255:  # a mask's class ids are bytes
        raise DataError(f"{listing.layout}: masks of {len(names)} classes; at most 255: merge them")
    _check_classes(listing, names, config.classes)
    looks = config.crop == "lungs", config.intensity == "lung"
    reading = Reading(names, config.lesion_slices_only, config.series, *looks)
    folder = cache_folder() / "slices" / content_key(listing.scans, reading)
    contents = open_arrays(folder, lambda new: decode_all(listing.scans, reading, new, progress))
    if reading.lesion_slices_only:
        _require_lesions(listing.scans, contents.record)
    slices = tuple(_slices(listing.scans, contents))
    size, targets = config.image_size, config.classes
    opened = SliceDataset(listing.layout, slices, size, (), names, targets, folder)
    notes = (*listing.notes, *_notes(listing.scans, contents.record, opened))
    return dataclasses.replace(opened, notes=notes)


def _slices(scans: Scans, contents: Contents) -> Iterator[Slice]:
    """The cached slices as views of the mapped arrays."""
    record, arrays = contents
    pairs = zip(scans, record["scans"], strict=True)
    patients = [patients_of(scan, row["slices"]) for scan, row in pairs]
    for row in record["slices"]:
        scan, shape = scans[row["scan"]], tuple(row["shape"])
        dtype = np.dtype(row["dtype"])
        pixels = math.prod(shape)
        image = arrays["images"][row["image"] : row["image"] + pixels * dtype.itemsize]
        mask = arrays["masks"][row["mask"] : row["mask"] + pixels]
        stack = format_of(scan.image) != "picture"  # its slices are numbered
        item = Slice(
            id=f"{scan.name}:{row['index']:03d}" if stack else scan.name,
            source=scan.source,
            patient=patients[row["scan"]][row["index"]],
            published=scan.published,
            image=image.view(dtype).reshape(shape),
            mask=mask.reshape(shape),
            spacing=row["spacing"] and tuple(row["spacing"]),
            form=read_form(row),
        )
        vars(item).update(digest=row["digest"], mask_digest=row["mask_digest"])  # cached properties
        vars(item).update(range=tuple(row["range"]), label_pixels=tuple(row["label_pixels"]))
        yield item


def _check_classes(listing: Listing, classes: Sequence[str], targets: Sequence[str]) -> None:
    """Refuses classes that the masks do not distinguish: lesions would count as background."""
    merged = dict.fromkeys(scan.source for scan in listing.scans if LESION in scan.labels.values())
    if targets and LESION not in targets and merged:
        given, found = " ".join(targets), ", ".join(merged)
        raise ConfigError(f"--classes {given}: {found} has lesions of one kind only")
    check_targets(listing.layout, classes, targets)


def _require_lesions(scans: Scans, record: Mapping[str, Any]) -> None:
    """Refuses a source of which no slice would be left."""
    with_lesions = {scans[row["scan"]].source for row in record["slices"]}
    for scan in scans:
        if scan.source not in with_lesions:
            count = sum(other.source == scan.source for other in scans)
            found = f"no lesion in {plural(count, 'scan')} of {scan.source}; the right masks?"
            advice = "For healthy scans give --no-lesion-slices-only"
            raise DataError(f"{(scan.mask or scan.image).parent}: {found} {advice}")


def _notes(scans: Scans, record: Mapping[str, Any], dataset: SliceDataset) -> Iterator[str]:
    targets, total = dataset.targets, sum(row["slices"] for row in record["scans"])
    if left_out := total - len(dataset):
        yield f"{left_out} of {total} slices show no lesion and were left out, as in the paper"
    with_lesion = {row["scan"] for row in record["slices"] if row["label_pixels"][1:]}
    masked = [(number, scan) for number, scan in enumerate(scans) if scan.mask]
    volumes = [(number, scan.mask) for number, scan in masked if scan.volume]
    if empty := [mask for number, mask in volumes if number not in with_lesion]:
        volumes_text = f"{len(empty)} of {len(volumes)} volumes"
        yield f"no lesion at all in {volumes_text}, such as {empty[0]}: was it looked for?"
    sources = {scan.source: scan.mask for _, scan in masked if not scan.volume}
    for number in with_lesion:
        sources.pop(scans[number].source, None)
    for source, mask in sources.items():
        yield f"{source} shows no lesion at all, such as in {mask}: was it looked for?"
    if targets and (others := [name for name in dataset.classes if name not in targets]):
        yield f"{', '.join(others)} counts as background: only {', '.join(targets)} were asked for"
    for part in survey(dataset) if targets else ():
        if absent := [name for name, pixels in part.label_pixels.items() if not pixels]:
            yield f"{part.source} shows no {' and no '.join(absent)} at all: was it looked for?"
    for scan, row in zip(scans, record["scans"], strict=True):
        yield from (f"{scan.mask}: {warning}" for warning in row["warnings"])
