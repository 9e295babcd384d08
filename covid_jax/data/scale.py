"""Whether a scan's intensities are of the kind that a run was trained on."""

from typing import Any

from covid_jax.data.survey import Scale, scale_of

_ADVICE: dict[tuple[Scale, Scale], str] = {  # trained on, found
    ("HU", "8-bit"): "give the scan itself (DICOM, or NIfTI in Hounsfield units), not pictures of "
    "it, or use a run trained on pictures",
    ("HU", "unknown"): "if the rescale intercept was lost (HU + 1024), subtract it; else convert "
    "the scan anew",
    ("8-bit", "HU"): "window the scan to 8 bits as the training pictures were, or use a run "
    "trained on Hounsfield units",
}


def scale_warning(record: dict[str, Any], low: float, high: float) -> str | None:
    """What is to be said of a scan whose intensities are not the training data's.

    Args:
      record: a run's config.json.
      low: the scan's least intensity.
      high: its greatest.

    Returns:
      A sentence that says what to do; None where the scan fits, or nobody knows what was trained
      on.
    """
    sources = record["data"].get("sources", ())
    found, trained = scale_of(low, high), {part["scale"] for part in sources}
    if not trained or found in trained:
        return None
    usual = sources[0]["scale"]
    span = f"{min(s['range'][0] for s in sources):g} to {max(s['range'][1] for s in sources):g}"
    advice = _ADVICE.get((usual, found), "give scans of the kind that the run was trained on")
    return (
        f"intensities from {low:g} to {high:g} ({found}), but the run was trained on {span} "
        f"({' and '.join(sorted(trained))}): its mask may be empty or wrong; {advice}"
    )
