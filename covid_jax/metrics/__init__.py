"""Segmentation metrics: arrays and counts in, numbers out. Importing them imports no jax."""

from covid_jax.metrics.bootstrap import bootstrap_interval as bootstrap_interval
from covid_jax.metrics.bootstrap import compare_paired as compare_paired
from covid_jax.metrics.calibration import calibration_scores as calibration_scores
from covid_jax.metrics.confusion import Counts as Counts
from covid_jax.metrics.confusion import best_threshold as best_threshold
from covid_jax.metrics.confusion import confusion_counts as confusion_counts
from covid_jax.metrics.confusion import dice as dice
from covid_jax.metrics.confusion import iou as iou
from covid_jax.metrics.confusion import precision as precision
from covid_jax.metrics.confusion import sensitivity as sensitivity
from covid_jax.metrics.confusion import specificity as specificity
from covid_jax.metrics.confusion import summarize as summarize
from covid_jax.metrics.confusion import threshold_sweep as threshold_sweep
from covid_jax.metrics.covid_semiseg import semiseg_scores as semiseg_scores
from covid_jax.metrics.covid_semiseg import summarize_semiseg as summarize_semiseg
from covid_jax.metrics.lesion_detection import detection_by_size as detection_by_size
from covid_jax.metrics.lesion_detection import match_lesions as match_lesions
from covid_jax.metrics.surface_distance import summarize_surface as summarize_surface
from covid_jax.metrics.surface_distance import surface_scores as surface_scores
