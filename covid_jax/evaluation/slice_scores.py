"""All scores of one slice, on its own grid and at the network's size."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

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
Masks = tuple[AnyMask, AnyMask]  # prediction and truth


class RegionScores(NamedTuple):
    """The scores of one region: the lesion, or one class of it.

    Attributes:
      counts: on the slice's own grid.
      network: at the network's size, where the threshold is always 0.5.
      surface: by unit: ``px``, and ``mm`` where the spacing is known.
      lesions: with areas in pixels.
    """

    counts: Counts
    network: Counts
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
    """Scores one slice.

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
    prediction = np.asarray(predict_labels(probabilities, threshold))
    truth = dataset.target_ids(item.mask)
    classes = max(1, len(dataset.targets))
    network = np.asarray(predict_labels(scores, HALF)), dataset.target_ids(network_mask)
    parts = (class_masks(mask, classes) for mask in (prediction, truth, *network))
    probability = lesion_probability(probabilities)
    lesion = np.asarray(truth > 0)
    return SliceScores(
        item,
        {
            name: _score_region((p, t), (q, u), item.spacing, tolerance)
            for name, p, t, q, u in zip(class_names(dataset.targets), *parts, strict=True)
        },
        threshold_sweep(probability, lesion),
        calibration_scores(probability, lesion),
        semiseg_scores(probability, lesion),
        truth,
        prediction,
        np.rint(255 * probability).astype(np.uint8),
    )


def _score_region(
    own: Masks, network: Masks, spacing: tuple[float, float] | None, tolerance: float
) -> RegionScores:
    surface = {"px": surface_scores(*own, tolerance)}
    if spacing:
        surface["mm"] = surface_scores(*own, tolerance, spacing)
    counts = confusion_counts(*own), confusion_counts(*network)
    return RegionScores(*counts, surface, match_lesions(*own))
