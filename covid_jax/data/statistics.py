"""Statistics of a dataset: sizes, spacing, intensities, labels, patients."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Num

from covid_jax.data.dataset import Slice, SliceDataset
from covid_jax.errors import DataError
from covid_jax.runs.record import RunRecord, SourceRecord
from covid_jax.transforms.grey_scale import hounsfield_problem, spread

Scale = Literal["HU", "8-bit", "unknown"]
LESION_SIZES = (0.001, 0.003, 0.01, 0.03, 0.1)  # edges of the histogram, shares of the slice

_ADVICE: dict[tuple[Scale, Scale], str] = {  # trained on, found
    ("HU", "8-bit"): "give the scan itself, not pictures of it, or use a run trained on pictures",
    ("HU", "unknown"): "if the intercept was lost (HU + 1024), subtract it; else convert it again",
    ("8-bit", "HU"): "window the scan to 8 bits as in training, or use a run trained on HU",
}


def survey(dataset: SliceDataset) -> list[SourceRecord]:
    """Statistics of each source of a dataset, in order of appearance."""
    sources: dict[str, list[Slice]] = {}
    for item in dataset.slices:
        sources.setdefault(item.source, []).append(item)
    return [_survey(slices, dataset.classes) for slices in sources.values()]


def _survey(slices: Sequence[Slice], classes: Sequence[str]) -> SourceRecord:
    shapes = sorted((item.image.shape for item in slices), key=lambda shape: shape[0] * shape[1])
    known = [spacing for item in slices for spacing in item.spacing or ()]
    span = min(item.range[0] for item in slices), max(item.range[1] for item in slices)
    counts = np.zeros(1 + len(classes), int)
    for item in slices:
        counts[: len(item.label_pixels)] += item.label_pixels
    shares = [item.lesion_share for item in slices]
    bins = np.searchsorted(LESION_SIZES, [share for share in shares if share], side="right")
    histogram = np.bincount(bins, minlength=len(LESION_SIZES) + 1)
    return SourceRecord(
        source=slices[0].source,
        slices=len(slices),
        patients=len({item.patient for item in slices} - {None}),
        unknown=sum(item.patient is None for item in slices),
        sizes=(shapes[0], shapes[-1]),
        spacings=(min(known), max(known)) if known else None,
        range=span,
        scale=scale_of(*span),
        label_pixels=dict(zip(classes, counts[1:].tolist(), strict=True)),
        lesion_sizes=(shares.count(0.0), *histogram.tolist()),
    )


def scale_of(low: float, high: float) -> Scale:
    """The kind of intensities in this range: values far below 0 can only be Hounsfield units."""
    if low < -200:
        return "HU"
    return "8-bit" if low >= 0 and high <= 255 else "unknown"


def require_hu(dataset: SliceDataset) -> None:
    """Refuses data that cannot be in HU, as a window needs.

    Raises:
      DataError: naming the source and its range.
    """
    wrong = [part for part in survey(dataset) if part.scale != "HU"]
    problems = [f"{p.source} holds {p.range[0]:g} to {p.range[1]:g} ({p.scale})" for p in wrong]
    for problem in problems or source_problems(dataset):
        advice = "use --intensity slice, or convert the data"
        raise DataError(f"--intensity window needs Hounsfield units; {problem}: {advice}")


def intensity_warning(record: RunRecord, stack: Num[np.ndarray, "n h w"]) -> str | None:
    """Why a scan's intensities may not be what a run was trained on.

    Args:
      record: the run's config.json.
      stack: the scan's slices.

    Returns:
      A sentence with advice; None where the scan fits, or the training data's intensities
      are not known.
    """
    sources, intensity = record.data.sources, record.config.data.intensity
    trained = {part.scale for part in sources}
    found = scale_of(float(stack.min()), float(stack.max()))
    doubt = "its mask may be empty or wrong"
    if found != "8-bit" and "HU" in trained and (problem := hounsfield_problem(stack)):
        advice = _ADVICE.get(("HU", found), "convert the scan to Hounsfield units")
        return f"{problem}: {doubt}; {advice}"
    if trained and found not in trained and intensity != "lung":
        usual = sources[0].scale
        span = f"{min(s.range[0] for s in sources):g} to {max(s.range[1] for s in sources):g}"
        advice = _ADVICE.get((usual, found), "give scans of the kind that the run was trained on")
        values = f"intensities from {stack.min():g} to {stack.max():g} ({found})"
        kinds = " and ".join(sorted(trained))
        return f"{values}, but the run was trained on {span} ({kinds}): {doubt}; {advice}"
    mean, deviation = record.data.normalization.mean, record.data.normalization.std
    if intensity != "dataset" or mean is None or deviation is None:
        return None
    if abs(stack.mean() - mean) < 3 * deviation < 15 * stack.std():
        return None
    values = f"intensities of mean {stack.mean():g} and standard deviation {stack.std():g}"
    usual = f"the run was trained on {mean:g} and {deviation:g} (--intensity dataset)"
    return f"{values}, but {usual}: {doubt}; bring the scan onto the scale of the training data"


def source_problems(dataset: SliceDataset) -> list[str]:
    """A sentence for each source with intensities that look like HU on a wrong scale."""
    problems = []
    for part in survey(dataset):
        if part.scale == "8-bit":
            continue
        images = (item.image for item in dataset.slices if item.source == part.source)
        if problem := hounsfield_problem(np.concatenate([spread(one, 2000) for one in images])):
            problems.append(f"{part.source}: {problem}")
    return problems
