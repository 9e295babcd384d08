"""Limits of an evaluation's scores: training slices among them, near-duplicates, missing cases."""

from collections.abc import Mapping, Sequence

from covid_jax.data import SliceDataset
from covid_jax.errors import plural, shorten
from covid_jax.evaluation.report import Record
from covid_jax.evaluation.slice_scores import SliceScores
from covid_jax.evaluation.summary import overlap_of
from covid_jax.splits.policies import Split


def notes(
    part: SliceDataset, split: Split | None, subset: str = "test", trained_on: str | None = None
) -> list[str]:
    """A sentence for each thing that limits what the scores mean.

    Args:
      part: the slices that were scored.
      split: of the run that was scored; None for masks from elsewhere.
      subset: of the split.
      trained_on: what other data the run was trained on, in words; None if it was this.
    """
    sentences = list(part.notes)
    if part.lesion_slices_only():
        alarms = "every slice evaluated shows a lesion: false alarms on others are not measured"
        sentences.append(alarms)
    if split is not None and trained_on is not None:
        sentences.append(f"data the run was not trained on ({trained_on})")
        if known := split.trained_on(part):
            sentences.append(
                f"{len(known)} of these slices, pixel for pixel, were in the run's training or "
                f"validation part ({shorten(known)})"
            )
    elif split is not None and subset in ("train", "all"):
        sentences.append("the run was trained on slices in this subset: no test of it")
    elif split is not None and subset == "val":
        sentences.append("the run's weights were chosen by these slices: no test of it")
    return sentences


def lesion_free_words(record: Record | None) -> str:
    """What was marked in lesion-free slices, without full stop; "" if there are none."""
    if not record or not record["slices"]:
        return ""
    return (
        f"{plural(record['slices'], 'lesion-free slice')}: any lesion marked in "
        f"{100 * record['any_marked']:.1f} %, mean marked area "
        f"{100 * record['marked_area']:.3g} % of the picture"
    )


def near_duplicates(scores: Sequence[SliceScores], resembled: Mapping[str, str]) -> Record | None:
    """Overlap metrics of the slices that resemble a training slice, and of the others.

    Args:
      scores: of each slice.
      resembled: by slice id, the training slice that it resembles (``near_trained``).
    """
    similar = [scored for scored in scores if scored.item.id in resembled]
    if not similar:
        return None
    others = [scored for scored in scores if scored.item.id not in resembled]
    return {
        "slices": [scored.item.id for scored in similar],
        "among_them": overlap_of(similar),
        "without_them": overlap_of(others) if others else None,
    }


def near_trained(split: Split) -> dict[str, str]:
    """By id of a validation or test slice, the training slice that it resembles."""
    resembled = {}
    for pair in split.similar:
        if pair.first_subset == "train" and pair.second_subset != "train":
            resembled[pair.second] = pair.first
        elif pair.second_subset == "train" and pair.first_subset != "train":
            resembled[pair.first] = pair.second
    return resembled
