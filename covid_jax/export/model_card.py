"""The model card of a bundle: what was trained on what, how well, for what, and for what not."""

import math
from typing import Any

import yaml

from covid_jax.inference import Run
from covid_jax.runs.config import DataConfig
from covid_jax.runs.provenance import NOTICE

_LIMITS = (
    "It saw the data named above and no other; scanners, protocols, populations and diseases that "
    "are not in it were not tested. Other lung disease can look like these lesions.",
    "Intensities must be of the kind it was trained on (HU, or 8-bit pictures).",
    "Each slice is judged by itself, at the network's size: lesions of a few pixels can vanish in "
    "the resize.",
    "Its probabilities were not calibrated.",
    "Weights can betray what they were trained on, and the data's licence may bind them too: see "
    "to both before sharing.",
)
_PAPER = (
    "T. Zhou, S. Canu, S. Ruan: An automatic COVID-19 CT segmentation network using spatial and "
    "channel attention mechanism. International Journal of Imaging Systems and Technology (2020). "
    "arXiv:2004.06673. The method; the authors published no code and have no part in this model."
)


def card(run: Run, record: dict[str, Any]) -> str:
    """The text of README.md, Markdown.

    Args:
      run: the trained run.
      record: the bundle's config.json.
    """
    sections = {
        "Intended use": _intended(run),
        "Training data": _data(record["data"], run.config.data),
        "Split": _split(record["bundle"]["split"]),
        "Test results": _scores(record["bundle"]["test"]),
        "Limits": "\n".join(f"- {text}" for text in _LIMITS),
        "Use": _use(run),
        "Origin": _origin(record),
        "Citation": f"- {_PAPER}\n- The covid_jax authors: covid_jax, CT segmentation of COVID-19 "
        "lesions in JAX.",
    }
    head = f"---\n{yaml.safe_dump(_metadata(record), sort_keys=False)}---\n"
    title = f"# CT segmentation of {_lesions(run)}\n\n**{NOTICE}**\n"
    body = "\n".join(f"## {name}\n\n{text}\n" for name, text in sections.items())
    return f"{head}\n{title}\n{body}"


def _metadata(record: dict[str, Any]) -> dict[str, Any]:
    """The head of a Hugging Face model card; scores of the test part are its model-index."""
    data, test = record["data"], record["bundle"]["test"]
    sources = list(dict.fromkeys(part["source"] for part in data.get("sources", ())))
    head: dict[str, Any] = {
        "library_name": "covid_jax",
        "pipeline_tag": "image-segmentation",
        "license": "other",
        "license_name": "terms-of-the-training-data",
        "tags": ["image-segmentation", "medical", "computed-tomography", "covid-19", "jax", "flax"],
    }
    if sources:
        head["datasets"] = sources
    if test is None:
        return head
    metrics = [
        {
            "type": name,
            "value": row["mean"],
            "name": f"{name}, mean over {row['slices']} slices",
            "args": {"threshold": test["threshold"]}
            | ({"interval_95": row["interval"]} if row.get("interval") else {}),
        }
        for name, row in test["own_grid"].items()
        if row["mean"] is not None
    ]
    dataset = {"type": data["fingerprint"], "name": data["layout"], "split": "test"}
    result = {"task": {"type": "image-segmentation"}, "dataset": dataset, "metrics": metrics}
    index = [{"name": "covid_jax CT segmentation", "results": [result]}]
    return head | {"metrics": [row["type"] for row in metrics], "model-index": index}


def _lesions(run: Run) -> str:
    return " and ".join(run.config.data.classes) or "lung lesions"


def _intended(run: Run) -> str:
    return (
        f"Research on segmenting {_lesions(run)} in axial chest CT slices: comparing methods, "
        "starting points for training, teaching. Not for diagnosis, triage, treatment or any other "
        "decision about a person."
    )


def _data(data: dict[str, Any], settings: DataConfig) -> str:
    sources = [
        f"- {part['source']}: {part['slices']} slices, {part['range'][0]:g} to "
        f"{part['range'][1]:g} ({part['scale']})"
        for part in data.get("sources", [])
    ]
    notes = [f"- {note}" for note in data.get("notes", [])]
    lines = [
        f"- {data['layout']}",
        *sources,
        *notes,
        f"- fingerprint of every image and mask: `{data['fingerprint']}`",
        f"- intensities: `--intensity {settings.intensity}`; network size "
        f"{settings.image_size} x {settings.image_size}",
    ]
    return "\n".join(lines)


def _split(split: dict[str, Any]) -> str:
    sizes = ", ".join(f"{split['slices'][name]} {name}" for name in ("train", "val", "test"))
    lines = [f"- policy `{split['policy']}`: {split['statement']}", f"- slices: {sizes}"]
    return "\n".join([*lines, *(f"- warning: {text}" for text in split["warnings"])])


def _scores(test: dict[str, Any] | None) -> str:
    if test is None:
        return "None: these weights were not scored on the test part (`eval.py`)."
    rows = [
        "| on each slice's own grid | mean | 95 % interval | pooled | slices |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| {name} | {_number(row['mean'])} | {_interval(row)} | {_number(row['pooled'])} "
        f"| {row['slices']} |"
        for name, row in test["own_grid"].items()
    ]
    patients = test["patients"] or "an unknown number of"
    about = f"{test['slices']} slices of {patients} patients, threshold {test['threshold']:g}."
    said = [*filter(None, [test["intervals"]]), *test["notes"]]
    notes = "\n".join(f"- {note}" for note in said)
    return "\n".join([about, "", *rows, "", notes]).rstrip()


def _interval(row: dict[str, Any]) -> str:
    interval = row.get("interval")
    return " to ".join(map(_number, interval)) if interval else "not computed"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def _use(run: Run) -> str:
    return (
        "```python\n"
        "from covid_jax.inference import load_run\n\n"
        'run = load_run("path/to/this/folder")\n'
        "probabilities = run.predict(image)  # raw intensities: (H, W), (N, H, W) or a list\n"
        "```\n\n"
        "`model.safetensors` holds the parameters (float32, kernels as height, width, in, out), "
        "`config.json` the network's settings. The network in PyTorch reads them too: "
        "`load_bundle` in covid_jax's `tests/oracles/torch_twin.py`."
    )


def _origin(record: dict[str, Any]) -> str:
    versions = ", ".join(
        f"{name} {record['versions'][name]}"
        for name in ("covid_jax", "jax", "flax", "python")
        if name in record["versions"]
    )
    return "\n".join(
        [
            f"- command: `{record['command']}`",
            f"- {record['date']}, {record['device']}; {versions}",
            f"- weights of epoch {record['bundle']['epoch']}",
        ]
    )
