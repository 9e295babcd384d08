"""Collects the predicted slices of a scan, and writes its files after the last one."""

import itertools
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from covid_jax.errors import DataError
from covid_jax.files import replacing, write_json
from covid_jax.inference import Run
from covid_jax.io.nifti import write_like
from covid_jax.prediction.dicom_seg import write_segmentation
from covid_jax.prediction.find_scans import REPORT, SUMMARY, read_summary
from covid_jax.prediction.options import PredictOptions
from covid_jax.prediction.pipeline import LoadedScan, Predicted, agreement, clean, entropy
from covid_jax.prediction.summary import Sums, summarize
from covid_jax.reporting.contact_sheet import volume_sheet
from covid_jax.reporting.drawing import Stack, class_colour, outlined, to_bytes, window_of
from covid_jax.reporting.scan_report import ScanSlice, scan_slice, write_scan_report
from covid_jax.runs.lock import locked
from covid_jax.runs.provenance import NOTICE
from covid_jax.transforms.labels import LESION, lesion_probability, predict_labels
from covid_jax.transforms.preprocessing import on_grid

_MASKS = ("_mask.nii.gz", "_mask.dcm", "_mask.png")


class ScanWriter:
    """The results of one scan, its mask in memory and its probabilities on disk.

    Attributes:
      scan: the scan.
    """

    def __init__(self, scan: LoadedScan, options: PredictOptions, run: Run, out: Path) -> None:
        self.scan = scan
        self._options = options
        self._classes = run.config.data.classes or (LESION,)
        self._network = run.folder.resolve().name
        self._base = out / scan.source.name
        self._base.parent.mkdir(parents=True, exist_ok=True)
        self._masks = np.zeros(scan.stack.shape, np.uint8)
        self._sums: dict[str, list[Sums]] = {}
        self._pages: list[ScanSlice] = []
        self._window = window_of(*scan.range)
        self._maps: dict[str, Float32[np.ndarray, "n h w"]] = {}
        self._weights = scan.weights(options.smooth_slices or 0.0)
        self._near: dict[int, Float32[np.ndarray, "m v h w c"]] = {}  # by number of the slice

    def add(self, predicted: Predicted) -> None:
        """Takes a slice, in their order; it is decided once its neighbours have come.

        Raises:
          DataError: if a probability is NaN or infinite.
        """
        number = predicted.number
        shape, box = self.scan.stack[number].shape, self.scan.form.slices[number].box
        views = [[on_grid(view, *shape, box=box) for view in part] for part in predicted.views]
        self._near[number] = np.stack(views)
        reach, start = len(self._weights) - 1, len(self._sums.get("probability", ()))
        ready = number if number == len(self._masks) - 1 else number - reach
        for index in range(start, ready + 1):
            self._near = {k: views for k, views in self._near.items() if k >= index - reach}
            weights = {k: self._weights[abs(k - index)] for k in self._near}
            total = sum(weights[k] * views for k, views in self._near.items())
            average = np.minimum(total / sum(weights.values()), 1)  # rounded, it may be 1.0000001
            self._decide(index, average)

    def _decide(self, index: int, views: Float32[np.ndarray, "m v h w c"]) -> None:
        """Takes the probabilities of a slice on its own grid."""
        options, image = self._options, self.scan.stack[index]
        scores = views.mean((0, 1))
        decision = np.asarray(predict_labels(scores, options.threshold))
        area = self.scan.pixel_area or 1.0
        lungs = self.scan.form.lungs if options.inside_lungs else None
        hull = np.ones(image.shape, bool) if lungs is None else lungs.hull(index)
        ids = clean(decision, scores, hull, options.min_area / area, options.fill_holes)
        maps = {"probability": lesion_probability(scores), "entropy": entropy(scores)}
        if options.tta:
            flat = views.reshape(-1, *scores.shape)
            maps["agreement"] = agreement(flat, decision, options.threshold)
        if len(views) > 1:
            maps["disagreement"] = lesion_probability(views).mean(1).std(0)
        if options.report:
            name = f"{self.scan.source.name}:{index:03d}"
            shown = maps["probability"] * hull
            self._pages.append(scan_slice(name, image, shown, self._window))
        self._masks[index] = ids
        for name, values in maps.items():
            parts = values, values[ids > 0]
            whole, inside = (float(part.sum(dtype=np.float64)) for part in parts)
            self._sums.setdefault(name, []).append((whole, inside))
        if options.probabilities:
            if len(self._classes) > 1:
                kinds = enumerate(self._classes, start=1)
                maps |= {f"probability_{name}": scores[..., number] for number, name in kinds}
            for name in maps.keys() - {"entropy"}:
                self._map(name)[index] = maps[name]

    def _map(self, name: str) -> Float32[np.ndarray, "n h w"]:
        """A volume of values in a temporary file that is removed even if the process is killed."""
        if name not in self._maps:
            with tempfile.TemporaryFile(dir=self._base.parent) as file:
                if hasattr(os, "posix_fallocate"):  # a full disk is an error here, not a SIGBUS
                    os.posix_fallocate(file.fileno(), 0, 4 * self.scan.stack.size)
                self._maps[name] = np.memmap(file, np.float32, "r+", shape=self.scan.stack.shape)
        return self._maps[name]

    @property
    def complete(self) -> bool:
        """Whether all slices have come."""
        return len(self._sums.get("probability", ())) == len(self._masks)

    def write(self, record: dict[str, Any]) -> dict[str, Any]:
        """Writes the files of the scan, the numbers last: if the JSON has them, all files exist.

        Two processes that write into one folder take turns, so that all files are of one of them.

        Args:
          record: content of the JSON file besides the numbers.

        Returns:
          The content of the JSON file without ``per_slice``.

        Raises:
          DataError: if a mask of this name exists that no call has written.
          OSError: if they cannot be written.
        """
        with locked(self._base.parent, wait=True):
            return self._write(record)

    def _write(self, record: dict[str, Any]) -> dict[str, Any]:
        note, masks = self._named(SUMMARY), [self._named(ending) for ending in _MASKS]
        before = (read_summary(note) or {}).get("outputs", [])
        if not note.exists() and (foreign := [path for path in masks if path.exists()]):
            raise DataError(f"{foreign[0]} exists and is not a result; choose another --out")
        # Known as results even if the process is killed; a file that is here already is none.
        planned = [*before, *(path.name for path in masks if not path.exists())]
        started = {"name": self.scan.source.name, "scan": record["scan"], "outputs": planned}
        write_json(note, started)
        files = [self._write_mask()]
        for name in sorted(self._maps):
            files.append(self._write_stack(name, self._maps[name], _grey))
        if self._options.overlay:
            files += self._write_overlays()
        numbers = summarize(self.scan, self._masks, self._sums, self._classes)
        if self._options.report:
            files.append(self._write_page(numbers, record["warnings"]))
        outputs = [file.relative_to(self._base.parent).as_posix() for file in files]
        for name in set(before) - set(outputs):  # of an earlier call with other flags
            (self._base.parent / name).unlink(missing_ok=True)
        unit = "mm2" if self.scan.pixel_area else "px"
        whole = {"notice": NOTICE, **numbers, "min_area_unit": unit, "outputs": outputs, **record}
        write_json(note, whole)
        del whole["per_slice"]
        return whole

    def _write_mask(self) -> Path:
        """A DICOM segmentation, or as ``_write_stack``."""
        geometry, headers = self.scan.geometry, self.scan.headers
        if geometry is None or not headers:
            return self._write_stack("mask", self._masks, self._coloured)
        path = self._named("_mask.dcm")
        write_segmentation(path, self._masks, geometry, headers, self._classes, self._network)
        return path

    def _write_stack(self, name: str, stack: Stack, drawn: Callable[[Any], Image.Image]) -> Path:
        """Writes a NIfTI file in the scan's own grid, or a PNG of a 2-D image by ``drawn``."""
        if self.scan.geometry is None:
            return _save(drawn(stack[0]), self._named(f"_{name}.png"))
        path = self._named(f"_{name}.nii.gz")
        write_like(path, stack, self.scan.geometry)
        return path

    def _coloured(self, ids: UInt8[np.ndarray, "h w"]) -> Image.Image:
        """A mask as a picture: one class white on black, several as indices of a palette."""
        if len(self._classes) == 1:
            return Image.fromarray(np.where(ids > 0, 255, 0).astype(np.uint8))
        picture = Image.fromarray(ids)
        colours = [to_bytes(class_colour(1 + k)) for k in range(len(self._classes))]
        picture.putpalette([0, 0, 0, *itertools.chain(*colours)])
        return picture

    def _write_overlays(self) -> list[Path]:
        """``<name>_overlay.png``, for a volume a sheet next to a folder of its slices."""
        scan, window, sheet = self.scan, self._window, self._named("_overlay.png")
        slices = zip(scan.stack, self._masks, strict=True)
        pictures = (Image.fromarray(outlined(image, ids, window)) for image, ids in slices)
        if len(scan.stack) == 1:
            return [_save(next(pictures), sheet)]
        folder = self._named("_overlay")
        folder.mkdir(exist_ok=True)
        written = [_save(p, folder / f"slice_{i:03d}.png") for i, p in enumerate(pictures)]
        drawn = volume_sheet(scan.stack, self._masks, window, scan.source.name, self._classes)
        return [*written, _save(drawn, sheet)]

    def _write_page(self, numbers: dict[str, Any], warnings: Sequence[str]) -> Path:
        """``<name>_report.html``."""
        options, path = self._options, self._named(REPORT)
        changed = options.min_area > 0 or options.fill_holes
        note = "the slider shows probabilities, before --min-area and --fill-holes"
        rule = "by the most probable class" if len(self._classes) > 1 else ""
        page = {"threshold": options.threshold, "decision": rule, "voxel_ml": self.scan.ml()}
        page |= {"warnings": warnings, "notes": [note] * changed}
        write_scan_report(path, self._pages, numbers, **page)
        return path

    def _named(self, ending: str) -> Path:
        return self._base.with_name(self._base.name + ending)


def _grey(share: Float32[np.ndarray, "h w"]) -> Image.Image:  # 65535 stands for 1
    return Image.fromarray(np.rint(65535.0 * share).astype(np.uint16))


def _save(picture: Image.Image, path: Path) -> Path:
    with replacing(path) as partial:
        picture.save(partial)
    return path
