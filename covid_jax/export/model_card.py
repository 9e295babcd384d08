"""The model card of a bundle: training data, scores, intended use and limits."""

from importlib.resources import files
from string import Template
from typing import Any

import yaml

from covid_jax.evaluation.contents import lines
from covid_jax.inference import Run
from covid_jax.runs.provenance import NOTICE


def card(run: Run, record: dict[str, Any]) -> str:
    """The text of README.md: model_card.md, filled in.

    Args:
      run: the trained run.
      record: the bundle's config.json.
    """
    data, bundle, settings = record["data"], record["bundle"], run.config.data
    split, versions = bundle["split"], record["versions"]
    source = "{source}: {slices} slices, {range[0]:g} to {range[1]:g} ({scale})"
    sources = [source.format(**part) for part in data["sources"]]
    named = [name for name in ("covid_jax", "jax", "flax", "python") if name in versions]
    template = files("covid_jax.export").joinpath("model_card.md").read_text("utf-8")
    texts = {
        "head": yaml.safe_dump(_metadata(record), sort_keys=False).removeprefix("{}\n"),
        "lesions": " and ".join(settings.classes) or "lung lesions",
        "notice": NOTICE,
        "data": _listed([data["layout"], *sources, *data["notes"]]),
        "intensity": settings.intensity,
        "size": settings.image_size,
        "warnings": _listed([f"warning: {text}" for text in split["warnings"]]) + "\n",
        "scores": _scores(bundle["test"]),
        "versions": ", ".join(f"{name} {versions[name]}" for name in named),
        "epoch": bundle["epoch"],
    }
    return Template(template).substitute(record | data | split | split["slices"] | texts)


def _metadata(record: dict[str, Any]) -> dict[str, Any]:
    """Data and scores for the head of a Hugging Face model card; its model-index is the test."""
    data, test = record["data"], record["bundle"]["test"]
    sources = list(dict.fromkeys(part["source"] for part in data["sources"]))
    head: dict[str, Any] = {"datasets": sources} if sources else {}
    if test is None:
        return head
    metrics = []
    for name, row in test["own_grid"].items():
        if row["mean"] is not None:
            about = f"{name}, mean over {row['slices']} slices"
            args = {"threshold": test["threshold"]}
            args |= {"interval_95": row["interval"]} if row.get("interval") else {}
            metrics.append({"type": name, "value": row["mean"], "name": about, "args": args})
    dataset = {"type": data["fingerprint"], "name": data["layout"], "split": "test"}
    result = {"task": {"type": "image-segmentation"}, "dataset": dataset, "metrics": metrics}
    index = [{"name": "covid_jax CT segmentation", "results": [result]}]
    return head | {"metrics": [row["type"] for row in metrics], "model-index": index}


def _listed(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _scores(test: dict[str, Any] | None) -> str:
    if test is None:
        return "None: these weights were not scored on the test part (`eval.py`)."
    patients = test["patients"] or "an unknown number of"
    text = [
        f"{test['slices']} slices of {patients} patients, threshold {test['threshold']:g}.\n",
        "On each slice's own grid:\n",
    ]
    head, *rows = lines(test["own_grid"])
    text += [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]
    return "\n".join([*text, "", _listed([test["intervals"], *test["notes"]])])
