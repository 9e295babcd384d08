"""Takes a scan's slices as they are computed; with the last one its files are written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from covid_jax.data.scan import LESION
from covid_jax.files import replace_text
from covid_jax.prediction.masks import agreement, clean
from covid_jax.prediction.options import PredictOptions
from covid_jax.prediction.outputs import map_on_disk, write_maps, write_mask, write_overlays
from covid_jax.prediction.pipeline import LoadedScan, Predicted
from covid_jax.prediction.summary import (
    ENDING,
    SliceSummary,
    pixel_area,
    read_summary,
    summarize,
    summarize_slice,
)
from covid_jax.runs.provenance import NOTICE
from covid_jax.transforms.labels import lesion_probability, predict_labels
from covid_jax.transforms.preprocessing import on_grid


class ScanWriter:
    """One scan's results, its mask in memory and its probabilities on disk.

    Attributes:
      scan: the scan.
    """

    def __init__(
        self, scan: LoadedScan, options: PredictOptions, classes: tuple[str, ...], out: Path
    ) -> None:
        self.scan = scan
        self._options = options
        self._classes = classes or (LESION,)
        self._base = out / scan.source.name
        self._base.parent.mkdir(parents=True, exist_ok=True)
        self._masks = np.zeros(scan.stack.shape, np.uint8)
        self._slices: list[SliceSummary] = []
        names = self._map_names() if options.probabilities else []
        self._maps = {name: map_on_disk(scan.stack.shape, self._base.parent) for name in names}

    def _map_names(self) -> list[str]:
        kinds = self._classes if len(self._classes) > 1 else ()
        names = ["probability", *(f"probability_{name}" for name in kinds)]
        return [*names, "agreement"] if self._options.tta else names

    def add(self, predicted: Predicted) -> None:
        """Decides a slice on its own grid; slices come in order."""
        options, index = self._options, predicted.place
        shape = self.scan.stack.shape[1:]
        views = np.stack([on_grid(view, *shape) for view in predicted.views])
        scores = views.mean(0)
        decision = np.asarray(predict_labels(scores, options.threshold))
        area = pixel_area(self.scan) or 1.0
        ids = clean(decision, scores, options.min_area / area, options.fill_holes)
        agreed = agreement(views, decision, options.threshold) if options.tta else None
        self._masks[index] = ids
        lung = None if self.scan.lungs is None else self.scan.lungs[index]
        one = summarize_slice(scores, ids, lung, agreed, len(self._classes))
        self._slices.append(one)
        if self._maps:
            self._keep(index, scores, agreed)

    def _keep(
        self,
        index: int,
        scores: Float32[np.ndarray, "h w c"],
        agreed: Float32[np.ndarray, "h w"] | None,
    ) -> None:
        self._maps["probability"][index] = lesion_probability(scores)
        if len(self._classes) > 1:
            for number, name in enumerate(self._classes, start=1):
                self._maps[f"probability_{name}"][index] = scores[..., number]
        if agreed is not None:
            self._maps["agreement"][index] = agreed

    @property
    def complete(self) -> bool:
        """Whether all slices have come."""
        return len(self._slices) == len(self._masks)

    def write(self, record: dict[str, Any]) -> dict[str, Any]:
        """Writes the scan's files, the JSON last: it says that all others are there.

        Args:
          record: what the JSON file says besides the numbers.

        Returns:
          What the JSON file holds.

        Raises:
          OSError: if they cannot be written.
        """
        note = self._base.with_name(self._base.name + ENDING)
        before = (read_summary(note) or {}).get("outputs", [])
        note.unlink(missing_ok=True)
        files = [write_mask(self.scan, self._masks, self._base, self._classes)]
        files += write_maps(self.scan, self._maps, self._base)
        if self._options.overlay:
            files += write_overlays(self.scan, self._masks, self._base, self._classes)
        outputs = [file.relative_to(self._base.parent).as_posix() for file in files]
        for name in set(before) - set(outputs):  # of an earlier call with other flags
            (self._base.parent / name).unlink(missing_ok=True)
        unit = "mm2" if pixel_area(self.scan) else "px"
        whole = {
            "notice": NOTICE,
            **summarize(self.scan, self._slices, self._classes),
            "min_area_unit": unit,
            "outputs": outputs,
            **record,
        }
        replace_text(note, json.dumps(whole, indent=1))
        return whole
