"""All scores of one slice, on its own grid and at the network's size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Num, UInt8

from covid_jax.data import Slice, SliceDataset
from covid_jax.metrics._validation import AnyMask
from covid_jax.metrics.calibration import Calibration, calibration_scores
from covid_jax.metrics.confusion import Counts, confusion_counts, dice, threshold_sweep
from covid_jax.metrics.covid_semiseg import SemiSegScores, semiseg_scores
from covid_jax.metrics.lesion_detection import Lesions, match_lesions
from covid_jax.metrics.surface_distance import SurfaceScores, surface_scores
from covid_jax.transforms.labels import class_masks, class_names, lesion_probability, predict_labels
from covid_jax.transforms.preprocessing import on_grid

HALF = 0.5
Masks = Sequence[AnyMask]  # prediction and truth, or neither
Ids = UInt8[np.ndarray, "_ _"]  # class ids


class RegionScores(NamedTuple):
    """The scores of one region: the lesion, or one class of it.

    Attributes:
      counts: on the slice's own grid.
      network: at the network's size, where the threshold is always 0.5; None without a network.
      surface: by unit: ``px``, and ``mm`` where the spacing is known.
      lesions: with areas in pixels.
    """

    counts: Counts
    network: Counts | None
    surface: dict[str, SurfaceScores]
    lesions: Lesions


class SliceScores(NamedTuple):
    """The scores of one slice.

    Attributes:
      item: the slice.
      regions: by name, the lesion first.
      sweep: the lesion's counts at every threshold of ``threshold_sweep``.
      calibration: of the lesion's probability.
      semiseg: by COVID-SemiSeg's protocol.
      truth, prediction: class ids on the slice's own grid.
      probability: lesion probability on the own grid as round(255 p), for pictures.
    """

    item: Slice
    regions: dict[str, RegionScores]
    sweep: Counts
    calibration: Calibration
    semiseg: SemiSegScores
    truth: UInt8[np.ndarray, "h w"]
    prediction: UInt8[np.ndarray, "h w"]
    probability: UInt8[np.ndarray, "h w"]

    @property
    def lesion(self) -> RegionScores:
        """The scores of the whole lesion; of a run with a single class, those of that class."""
        return next(iter(self.regions.values()))

    @property
    def dice(self) -> float:
        """Dice of the lesion on the slice's own grid."""
        return float(dice(self.lesion.counts))


def score_slice(
    dataset: SliceDataset,
    item: Slice,
    scores: Float32[np.ndarray, "s s c"],
    network_mask: UInt8[np.ndarray, "s s"],
    threshold: float,
    tolerance: float,
) -> SliceScores:
    """Scores a network's prediction of one slice.

    Args:
      dataset: contains the slice, and has the classes.
      item: the slice.
      scores: the network's probabilities of it.
      network_mask: its class ids at the network's size.
      threshold: probabilities above it on the own grid are lesion; with several classes, the most
        probable class is taken instead.
      tolerance: of the surface Dice, in mm, or in pixels for distances in pixels.
    """
    probabilities = on_grid(scores, *item.mask.shape, box=item.form.box)
    network = np.asarray(predict_labels(scores, HALF)), dataset.target_ids(network_mask)
    return score_own_grid(dataset, item, probabilities, threshold, tolerance, network=network)


def score_own_grid(
    dataset: SliceDataset,
    item: Slice,
    probabilities: Float32[np.ndarray, "h w c"],
    threshold: float,
    tolerance: float,
    *,
    network: tuple[Ids, Ids] | None = None,
    greys: Num[np.ndarray, "h w"] | None = None,
) -> SliceScores:
    """Scores probabilities on the slice's own grid, whatever gave them.

    Args:
      dataset: as in ``score_slice``, and so are item, threshold and tolerance.
      item: the slice.
      probabilities: of the lesion, or of the background and each class; 0 and 1 of a mask.
      threshold: of the mask.
      tolerance: of the surface Dice.
      network: class ids predicted and true at the network's size.
      greys: the same probability as the file's grey values, which COVID-SemiSeg compares exactly.
    """
    prediction = np.asarray(predict_labels(probabilities, threshold))
    truth = dataset.target_ids(item.mask)
    classes = max(1, len(dataset.targets))
    parts = (class_masks(ids, classes) for ids in (prediction, truth, *(network or ())))
    probability = lesion_probability(probabilities)
    lesion = np.asarray(truth > 0)
    regions = {
        name: _score_region(masks[:2], masks[2:], item.spacing, tolerance)
        for name, *masks in zip(class_names(dataset.targets), *parts, strict=True)
    }
    sweep = threshold_sweep(probability, lesion)
    calibration = calibration_scores(probability, lesion)
    semiseg = semiseg_scores(probability if greys is None else greys, lesion)
    shown = np.rint(255 * probability).astype(np.uint8)
    return SliceScores(item, regions, sweep, calibration, semiseg, truth, prediction, shown)


def _score_region(
    own: Masks, network: Masks, spacing: tuple[float, float] | None, tolerance: float
) -> RegionScores:
    prediction, truth = own
    surface = {"px": surface_scores(prediction, truth, tolerance)}
    if spacing:
        surface["mm"] = surface_scores(prediction, truth, tolerance, spacing)
    counts = confusion_counts(*own), confusion_counts(*network) if network else None
    return RegionScores(*counts, surface, match_lesions(prediction, truth))
