"""The content of metrics.json, with types."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, TypedDict

from covid_jax.errors import ConfigError, RunError
from covid_jax.files import read_json
from covid_jax.runs.config import DataConfig
from covid_jax.runs.record import Provenance
from covid_jax.schema import parse

Record = dict[str, Any]  # as JSON holds it


class MetricRecord(TypedDict):
    """One overlap metric over many slices; None where it is undefined or not computed.

    Attributes:
      mean: over the slices where it is defined.
      pooled: of all slices' counts added up.
      slices: number of slices in the mean.
      empty: number of slices with 0/0 in the metric (see ``metrics.confusion``).
      interval: of the mean, 95 %.
      patients_mean: mean over patients, after adding up the counts of each patient's slices.
    """

    mean: float | None
    pooled: float | None
    slices: int
    empty: int
    interval: list[float] | None
    patients_mean: float | None


Overlap = dict[str, MetricRecord]  # by metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationReport(Provenance):
    """The numbers of one evaluation of a run.

    Attributes:
      run, folder: name of the run, and folder of the evaluation's files.
      epoch: of the weights; None for masks from elsewhere.
      subset: of the split that was scored.
      data, data_fingerprint: description and digest of the dataset.
      slices, patients: numbers of both; None if no patient is known.
      image_size: of the network; None for masks from elsewhere, whose ``network_size`` is empty.
      threshold, threshold_from: probability above which a pixel is lesion, and how it was chosen.
      tta: whether probabilities are averages over flips.
      precision: of the convolutions.
      tolerance: of the surface Dice, in the distances' unit.
      split: policy, statement and warnings.
      notes: limits of the meaning of the scores, one sentence each.
      intervals: how they were drawn, or why there are none.
      own_grid, network_size: overlap metrics of the whole lesion on the slices' own grids and at
        the network's size; means are over all slices, lesion-free ones included.
      surface: surface distances, by unit and score.
      lesions, area: detection of single lesions by size, and mean areas with their unit.
      lesion_free: slices without lesion: their number ``slices``, the share of them with any pixel
        marked ``any_marked``, the mean share of the image marked ``marked_area``, and the overlap
        metrics of the other slices ``with_lesion`` (None where all slices are of one kind).
      per_patient: ``slices`` and overlap metrics of each patient, by name.
      per_source: ``slices``, ``own_grid`` and ``lesion_free`` of each source, where there are
        several.
      protocols, calibration: published protocols, and the probabilities' calibration.
      near_duplicates: scores with and without slices that resemble a training slice.
      classes: ``own_grid``, ``network_size``, ``surface``, ``lesions`` and ``area`` of each class,
        for a network of several classes.
      attention: means of the spatial gates, in files of version 0.2 and earlier.
      training: how the run was trained.
      command, date, device, processor, commit, versions: of this evaluation.
    """

    run: str
    folder: str
    epoch: int | None = None
    subset: str
    data: str
    data_fingerprint: str
    slices: int
    patients: int | None
    image_size: int | None = None
    threshold: float
    threshold_from: str = "given"
    tta: bool = False
    precision: str = ""
    tolerance: float
    split: Record
    notes: list[str]
    intervals: str
    own_grid: Overlap
    network_size: Overlap
    surface: dict[str, dict[str, Record]]
    lesions: Record
    area: Record
    lesion_free: Record | None = None
    per_patient: dict[str, Record]
    per_source: dict[str, Record] = dataclasses.field(default_factory=dict)
    protocols: dict[str, Record]
    calibration: Record
    near_duplicates: Record | None
    classes: dict[str, Record]
    attention: Record | None = None
    training: Record

    @property
    def data_settings(self) -> DataConfig:
        """How the run was told to read its data."""
        return parse(DataConfig, self.training["config"]["data"], "training.config.data")

    @property
    def trained_classes(self) -> list[str]:
        """The run's lesion classes; without any, all labels are merged into one lesion class."""
        return list(self.data_settings.classes)

    def to_json(self) -> str:
        """The text of metrics.json."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def load(cls, path: Path) -> "EvaluationReport":
        """Reads metrics.json; a field that an earlier version did not write has its default.

        Raises:
          RunError: if it cannot be read, or a field is unknown, missing or of another type.
        """
        try:
            report = read_json(path, cls, RunError)
            _ = report.data_settings
        except RunError as error:
            raise RunError(f"{error}; score the run again") from error
        except (ConfigError, LookupError, TypeError) as error:
            problem = error if isinstance(error, ConfigError) else "training.config.data: missing"
            raise RunError(f"{path}: {problem}; score the run again") from error
        return report


def finite(value: Any) -> Any:
    """The value; None for NaN and infinity, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
