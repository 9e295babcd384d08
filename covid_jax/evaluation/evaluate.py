"""Scores a run on one subset of its data: metrics.json, slices.csv, masks.npz."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from covid_jax.data import SliceDataset
from covid_jax.data.statistics import require_hu
from covid_jax.errors import ConfigError, RunError, shorten
from covid_jax.evaluation.report import EvaluationReport
from covid_jax.evaluation.slice_scores import HALF, SliceScores, score_slice
from covid_jax.evaluation.slice_table import save_masks, write_rows
from covid_jax.evaluation.summary import dice_by_threshold, near_duplicates, summarize_slices
from covid_jax.files import replace_text, writing_to
from covid_jax.inference import Run
from covid_jax.metrics.confusion import best_threshold
from covid_jax.runs.config import EvalConfig, to_dict
from covid_jax.runs.provenance import provenance
from covid_jax.splits.split import Split

FIGURES = ("examples", "area", "threshold", "reliability")  # that reporting may add
_AT_ONCE = 4  # slices whose probability maps are held and scored in threads
_STRANGE = "every slice of data that the run was not trained on"
_TRAINING = ("command", "date", "device", "versions", "config")  # of the run, for the report


class Evaluation(NamedTuple):
    """The result of ``evaluate``.

    Attributes:
      report: the content of metrics.json.
      slices: the scores of each slice, with its masks and its probability map.
      resembled: by slice id, the training slice of which it is a near-duplicate.
    """

    report: EvaluationReport
    slices: list[SliceScores]
    resembled: dict[str, str]


def evaluate(
    run: Run,
    dataset: SliceDataset,
    config: EvalConfig | None = None,
    *,
    out: Path | None = None,
    command: Sequence[str] = (),
) -> Evaluation:
    """Predicts the slices of a subset, scores them and writes the numbers.

    Probabilities are resized linearly to each slice's own grid, then thresholded (several classes:
    the most probable one). The scores at the network's size, as in the paper, are reported too.
    Every mean is over slices, every pooled value over all pixels; the modules of
    ``covid_jax.metrics`` state what empty masks do. Lesion-free slices enter the mean Dice with 1
    if nothing is marked, else with 0; ``report.lesion_free`` has their own numbers and the means
    without them. Of several classes, each is scored in addition to the whole lesion.

    Args:
      run: a trained run.
      dataset: opened at the run's image size, with its classes. Data that the run was not trained
        on has no subsets: ``config.subset`` must be ``all``.
      config: which subset of the run's split, and how it is scored; by default the test part.
      out: folder of the files; by default ``eval/<subset>`` in the run, with ``-latest``,
        ``-unaveraged``, ``-tta`` or another precision appended; ``eval/<fingerprint>-all`` for
        other data. Required for a bundle and for an ensemble.
      command: the command line, recorded in the report.

    Raises:
      RunError: if the dataset is not the run's and ``config.subset`` is not ``all``; if its image
        size or classes differ; if a bundle is scored on one subset or without ``out``; if a member
        of an ensemble was trained or validated on a scored slice; or if a file cannot be written.
      ConfigError: if the threshold is given for several classes, would be chosen on slices that are
        scored, or on validation slices that the members of an ensemble do not share.
    """
    config = config or EvalConfig()
    if out is None and (run.record.bundle or len(run.members) > 1):
        raise RunError(f"{run.folder}: give a folder with --out, as for any bundle or ensemble")
    own_data = dataset.fingerprint() == run.record.data.fingerprint
    indices = _find(run, dataset, config, own_data)
    if not (chosen := config.threshold == "val"):
        run.check_threshold(config.threshold)
    threshold = _best_threshold(run, dataset, config, own_data) if chosen else config.threshold
    scores = list(_score(run, dataset, indices, config, float(threshold)))
    subset = config.subset if own_data else f"{dataset.fingerprint()}-all"
    precision = run.config.model.precision
    other = precision != run.record.config.model.precision
    name = subset + run.variant + "-tta" * config.tta + f"-{precision}" * other
    trained_on = None if own_data else run.record.data.layout
    sentences = notes(dataset.select(indices), run.split, config.subset, trained_on)
    sentences += _averages(run, config)
    return write_evaluation(
        out or run.folder / "eval" / name,
        dataset,
        scores,
        run.split if own_data else _STRANGE,
        command,
        run=str(run.folder),
        epoch=run.epoch,
        **{name: getattr(config, name) for name in ("subset", "tta", "tolerance")},
        image_size=dataset.image_size,
        threshold=float(threshold),
        threshold_from="the validation slices" if chosen else "given",
        precision=precision,
        notes=sentences,
        training={name: to_dict(getattr(run.record, name)) for name in _TRAINING},
    )


def _averages(run: Run, config: EvalConfig) -> list[str]:
    """A sentence on what the probabilities are averages over, if they are."""
    over = ["left-right and up-down flips"] * config.tta
    if len(run.members) > 1:
        over += [f"{member.folder} (epoch {member.epoch})" for member in run.members]
    return [f"probabilities are averages over {', '.join(over)}"] * bool(over)


def write_evaluation(
    folder: Path,
    dataset: SliceDataset,
    scores: list[SliceScores],
    split: Split | str,
    command: Sequence[str],
    **fields: Any,
) -> Evaluation:
    """Writes the numbers of an evaluation; deletes all files of an earlier one, figures included.

    Args:
      folder: of the files.
      dataset: contains the slices.
      scores: of each slice.
      split: of the run; without a split, a description of the slices.
      command: the command line.
      fields: all other fields of ``EvaluationReport``.

    Raises:
      RunError: if a file cannot be written.
    """
    resembled, about = {}, {"policy": None, "statement": split, "warnings": ()}
    if isinstance(split, Split):
        resembled, about = near_trained(split), {name: getattr(split, name) for name in about}
    report = EvaluationReport(
        folder=str(folder),
        data=dataset.layout,
        data_fingerprint=dataset.fingerprint(),
        slices=len(scores),
        patients=len({scored.item.patient for scored in scores} - {None}) or None,
        split=about,
        **summarize_slices(scores),
        near_duplicates=near_duplicates(scores, resembled),
        **fields,
        **provenance(command),
    )
    # Version 0.2 drew attention, too.
    figures = [f"{name}.{end}" for name in (*FIGURES, "attention") for end in ("png", "pdf")]
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("metrics.json", "report.html", *figures):
            (folder / name).unlink(missing_ok=True)
        write_rows(folder / "slices.csv", scores)
        save_masks(folder / "masks.npz", scores)
        replace_text(folder / "metrics.json", report.to_json())  # last: its presence means complete
    return Evaluation(report, scores, resembled)


def near_trained(split: Split) -> dict[str, str]:
    """Maps validation and test slices that nearly duplicate a training slice to it, by id."""
    resembled = {}
    for pair in split.similar:
        ids = {pair.first_subset: pair.first, pair.second_subset: pair.second}
        if trained := ids.pop("train", None):
            resembled |= dict.fromkeys(ids.values(), trained)
    return resembled


def notes(
    part: SliceDataset, split: Split | None, subset: str = "test", trained_on: str | None = None
) -> list[str]:
    """A sentence for each thing that limits what the scores mean.

    Args:
      part: the slices that were scored.
      split: of the run that was scored; None for masks from elsewhere.
      subset: of the split.
      trained_on: description of the other data the run was trained on; None if it was this.
    """
    sentences = list(part.notes)
    if all(part.target_ids(item.mask).any() for item in part.slices):
        alarms = "every slice evaluated shows a lesion: false alarms on others are not measured"
        sentences.append(alarms)
    if split is not None and trained_on is not None:
        sentences.append(f"data the run was not trained on ({trained_on})")
        if known := split.trained_on(part):
            where = "pixel for pixel, were in the run's training or validation part"
            sentences.append(f"{len(known)} of these slices, {where} ({shorten(known)})")
    elif split is not None and subset in ("train", "all"):
        sentences.append("the run was trained on slices in this subset: no test of it")
    elif split is not None and subset == "val":
        sentences.append("the run's weights were chosen by these slices: no test of it")
    return sentences


def _find(run: Run, dataset: SliceDataset, config: EvalConfig, own_data: bool) -> list[int]:
    """Finds the slices of the dataset to score."""
    trained = run.config.data
    if (dataset.image_size, dataset.targets) != (trained.image_size, trained.classes):
        made = f"{trained.image_size}, classes {' '.join(trained.classes) or 'merged'}"
        raise RunError(f"{run.folder}: was trained at {made}; open the data with these settings")
    if trained.intensity == "window":
        require_hu(dataset)
    bundle = any(member.record.bundle for member in run.members)
    if config.subset != "all" and (bundle or not own_data):
        kind = "a bundle" if bundle else "trained on other data"
        unknown = f"{kind}, so that its {config.subset} subset is unknown"
        raise RunError(f"{run.folder}: {unknown}; --subset all scores every slice")
    indices = run.split.indices(dataset, config.subset)
    for member in run.members if len(run.members) > 1 else ():
        if known := member.split.trained_on(dataset.select(indices)):
            seen = f"was trained or validated on {len(known)} of these slices ({shorten(known)})"
            raise RunError(f"{member.folder}: {seen}; score an ensemble on slices new to all of it")
    return indices


def _score(
    run: Run, dataset: SliceDataset, indices: Sequence[int], config: EvalConfig, threshold: float
) -> Iterator[SliceScores]:
    """Predicts and scores one batch after the other, so that few probability maps are in memory."""
    network = dataset.network
    size = config.batch_size or _AT_ONCE

    def score(position: int, probabilities: Float32[np.ndarray, "s s c"]) -> SliceScores:
        item, mask = dataset.slices[position], network.masks[position]
        return score_slice(dataset, item, probabilities, mask, threshold, config.tolerance)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(indices), size):
            part = np.asarray(indices[start : start + size])
            images = network.images.take(part)
            maps = run.predict_views(images, config.batch_size, flips=config.tta).mean(axis=(1, 2))
            yield from pool.map(score, part, maps)


def _best_threshold(run: Run, dataset: SliceDataset, config: EvalConfig, own_data: bool) -> float:
    """The threshold with the highest mean Dice over the validation slices with lesion.

    A slice without lesion has Dice 0 or 1, so that a few marked pixels on such slices would lead to
    thresholds near 1.
    """
    if len(dataset.targets) > 1:
        raise ConfigError("--threshold val: only for one class (of several: the most probable)")
    if not own_data:
        raise ConfigError("--threshold val: this data has no validation slices of the run")
    if len({tuple(member.split.val) for member in run.members}) > 1:
        raise ConfigError("--threshold val: the ensemble's runs differ in their validation slices")
    if run.split.policy == "paper" or config.subset in ("val", "all"):
        raise ConfigError("--threshold val: the slices scored are among those that would choose it")
    validation = run.split.indices(dataset, "val")
    scores = [one for one in _score(run, dataset, validation, config, HALF) if one.truth.any()]
    if not scores:
        raise ConfigError("--threshold val: no validation slice shows a lesion")
    return best_threshold(dice_by_threshold(scores)).threshold
