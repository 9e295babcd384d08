"""What a reader must know before believing a score: split, leaks, what the data leaves out."""

from collections.abc import Sequence
from typing import Any

from covid_jax.data import SliceDataset
from covid_jax.errors import shorten
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.evaluation.summary import resampled, summarize_region
from covid_jax.splits.policies import Split


def notes(
    part: SliceDataset, split: Split, own_data: bool, subset: str, trained_on: str
) -> list[str]:
    """A sentence for each thing that limits what the scores mean.

    Args:
      part: the slices that were scored.
      split: the run's.
      own_data: whether they are from the data the run was trained on.
      subset: of the split.
      trained_on: what data that was, in words.
    """
    found = list(part.notes)
    if part.lesion_slices_only():
        found.append(
            "every slice evaluated shows a lesion: false alarms on others are not measured"
        )
    if not own_data:
        found.append(f"data the run was not trained on ({trained_on})")
        if known := split.trained_on(part):
            found.append(
                f"{len(known)} of these slices, pixel for pixel, were in the run's training or "
                f"validation part ({shorten(known)})"
            )
    elif subset in ("train", "all"):
        found.append("the run was trained on slices in this subset: no test of it")
    elif subset == "val":
        found.append("the run's weights were chosen by these slices: no test of it")
    return found


def split_record(split: Split, own_data: bool) -> dict[str, Any]:
    """How it was drawn, for the report."""
    if own_data:
        return {name: getattr(split, name) for name in ("policy", "statement", "warnings")}
    statement = "every slice of data that the run was not trained on"
    return {"policy": None, "statement": statement, "warnings": ()}


def near_duplicates(
    scores: Sequence[SliceScores], split: Split, region: str
) -> dict[str, Any] | None:
    """Slices with all but a copy in the training part, and the means of these and of the others."""
    trained = near_trained(split)
    near_duplicates = [one for one in scores if one.item.id in trained]
    if not near_duplicates:
        return None
    others = [one for one in scores if one.item.id not in trained]
    means = {
        name: _own_grid(part, region) if part else None
        for name, part in (("among_them", near_duplicates), ("without_them", others))
    }
    return {"slices": [one.item.id for one in near_duplicates], **means}


def _own_grid(scores: Sequence[SliceScores], region: str) -> dict[str, Any]:
    draws = resampled([one.item.patient for one in scores])
    return summarize_region(scores, region, draws)["own_grid"]


def near_trained(split: Split) -> dict[str, str]:
    """Slices outside the training part that resemble one in it, and which."""
    found = {}
    for pair in split.similar:
        if pair.first_subset == "train" and pair.second_subset != "train":
            found[pair.second] = pair.first
        elif pair.second_subset == "train" and pair.first_subset != "train":
            found[pair.first] = pair.second
    return found
