"""What an evaluation found, typed as metrics.json holds it."""

import dataclasses
import json
from pathlib import Path
from typing import Any, TypedDict

from covid_jax.errors import RunError
from covid_jax.files import read_json

Record = dict[str, Any]  # as JSON holds it


class MetricRecord(TypedDict):
    """One overlap metric over many slices; None where it is undefined or not offered.

    Attributes:
      mean: over the slices where it is defined.
      pooled: of all slices' counts added up.
      slices: how many entered the mean.
      empty: how many met the metric's rule for empty masks.
      interval: of the mean, 95 %.
      patients_mean: mean over patients, each one's slices added up.
    """

    mean: float | None
    pooled: float | None
    slices: int
    empty: int
    interval: list[float] | None
    patients_mean: float | None


Overlap = dict[str, MetricRecord]  # by metric


class RegionRecord(TypedDict):
    """The scores of the lesion or of one class: overlap at two sizes, distances, lesions, areas."""

    own_grid: Overlap
    network_size: Overlap
    surface: dict[str, dict[str, Record]]
    lesions: Record
    area: Record


class LesionFreeRecord(TypedDict):
    """What was marked in slices without lesion.

    Attributes:
      slices: how many there are.
      any_marked: share of them with any pixel marked as lesion.
      marked_area: mean share of the picture that was marked.
      with_lesion: overlap of the other slices alone; None where all are of one kind.
    """

    slices: int
    any_marked: float | None
    marked_area: float | None
    with_lesion: Overlap | None


class SourceRecord(TypedDict):
    """One source of a joined dataset: its slices, their overlap, its lesion-free ones."""

    slices: int
    own_grid: Overlap
    lesion_free: LesionFreeRecord


@dataclasses.dataclass(kw_only=True)
class EvaluationReport:
    """The numbers of one evaluation of a run.

    Attributes:
      run, folder: of the run, and where the evaluation's files are.
      epoch: of the weights.
      subset: of the split that was scored.
      data, data_fingerprint: which dataset, in words and as a digest.
      slices, patients: how many; None where no patient is known.
      image_size: of the network.
      threshold, threshold_from: above which a probability is lesion, and what chose it.
      tta: whether probabilities are averages over flips.
      tolerance: of the surface Dice, in the distances' unit.
      split: policy, statement and warnings.
      notes: what limits the meaning of the scores, a sentence each.
      intervals: how they were drawn, or why there are none.
      own_grid, network_size, surface, lesions, area: see ``RegionRecord``; of the whole lesion.
        Means of ``own_grid`` are over all slices, lesion-free ones included.
      lesion_free: the slices without lesion, and the means without them.
      per_patient, per_source: by name; sources only where there are several.
      protocols, calibration: published protocols, and the probabilities' calibration.
      near_duplicates: scores with and without slices that resemble a training slice.
      classes: of each class, where several are told apart.
      attention: mean of each spatial gate over lesion and background.
      training: how the run was trained.
      command, date, device, processor, commit, versions: of this evaluation.
    """

    run: str
    folder: str
    epoch: int
    subset: str
    data: str
    data_fingerprint: str
    slices: int
    patients: int | None
    image_size: int
    threshold: float
    threshold_from: str
    tta: bool = False
    tolerance: float
    split: Record
    notes: list[str]
    intervals: str
    own_grid: Overlap
    network_size: Overlap
    surface: dict[str, dict[str, Record]]
    lesions: Record
    area: Record
    lesion_free: LesionFreeRecord | None = None
    per_patient: dict[str, Record]
    per_source: dict[str, SourceRecord] = dataclasses.field(default_factory=dict)
    protocols: dict[str, Record]
    calibration: Record
    near_duplicates: Record | None
    classes: dict[str, RegionRecord]
    attention: dict[str, dict[str, float | None]] | None = None
    training: Record
    command: str
    date: str
    device: str
    processor: str
    commit: str | None
    versions: dict[str, str]

    @property
    def trained_classes(self) -> list[str]:
        """The classes that the run tells apart; they decide what counts as lesion."""
        return self.training["config"]["data"]["classes"]

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
            _ = report.trained_classes
        except RunError as error:
            raise RunError(f"{error}; score the run again") from error
        except (LookupError, TypeError) as error:
            missing = "training.config.data.classes: missing"
            raise RunError(f"{path}: {missing}; score the run again") from error
        return report
