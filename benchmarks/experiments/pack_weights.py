"""Packs a trained run for weights/: a float16 bundle, what must be known of it, and its card.

    python -m benchmarks.experiments.pack_weights runs/x --name lung-ct-covid \
        --out weights/covid_jax_weights --about about.json --default

``--about`` is a JSON file with ``scores`` and ``false_alarms`` (each a mapping of what was measured
to a number or text) and, if they are not those of ``lung-ct-covid`` below, ``pictures``, ``data``
and ``terms``.
"""

import argparse
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from covid_jax.export import export_run
from covid_jax.export.bundle import pack_tensors
from covid_jax.files import read_json
from covid_jax.inference import load_run
from covid_jax.runs.bundle import WEIGHTS, is_bundle
from covid_jax.runs.provenance import NOTICE
from covid_jax.runs.weights import InstalledWeights
from covid_jax.schema import parse

PICTURES = (
    "every training picture with a lesion is 8-bit; HU with lesion masks exist only by calibration "
    "of such pictures"
)
DATA = (
    "COVID-SemiSeg's 50 training slices (Fan et al. 2020, MedSeg); Radiopaedia and Coronacases "
    "slices in the picture form of Inf-Net, with masks of Ma et al. (2021); one LIDC-IDRI scan "
    "without lesions"
)
TERMS = (
    "CC BY-NC-SA 4.0 and the sources' terms: COVID-SemiSeg's and Inf-Net's pictures: "
    "non-commercial research, derived works included; masks of Ma et al.: CC BY-NC-SA 4.0; "
    "Radiopaedia: its own terms, and whether they allow machine learning is unresolved; "
    "LIDC-IDRI: CC BY 3.0"
)


def pack(
    source: Path, name: str, out: Path, about: dict[str, Any], *, default: bool
) -> InstalledWeights:
    """Writes a folder that ``covid_jax.runs.weights`` finds.

    Args:
      source: run folder or bundle.
      name: of the folder to make in ``out``.
      out: the package's folder.
      about: fields of weights.json.
      default: whether ``covid-jax predict`` is to take these weights.
    """
    folder = out / name
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        bundle = source
        if not is_bundle(source):
            (bundle,) = export_run(load_run(source), "bundle", Path(scratch) / "bundle")
        with safe_open(bundle / WEIGHTS, framework="numpy") as file:
            epoch = file.metadata()["epoch"]
            tensors = {key: file.get_tensor(key).astype(np.float16) for key in file.keys()}  # noqa: SIM118
        shutil.copyfile(bundle / "config.json", folder / "config.json")
    weights = pack_tensors(tensors, epoch)
    (folder / WEIGHTS).write_bytes(weights)
    record = {"pictures": PICTURES, "data": DATA, "terms": TERMS, "scores": {}, "false_alarms": {}}
    record |= about | {"sha256": hashlib.sha256(weights).hexdigest(), "default": default}
    packed = parse(InstalledWeights, record | {"name": name, "path": folder})
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (folder / "weights.json").write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(card(packed), encoding="utf-8")
    return packed


def card(weights: InstalledWeights) -> str:
    """The model card: what restricts the weights' use comes first."""
    sections = {
        "Scores": _listed(weights.scores),
        "False alarms on lungs without lesions": _listed(weights.false_alarms),
        "Terms": _sentence(weights.terms),
        "SHA-256": f"`model.safetensors`: `{weights.sha256}`",
        "Not for clinical use": NOTICE,
        "Training data": _sentence(weights.data),
        "Use": f"`covid-jax predict scan.nii.gz --run weights:{weights.name} -o out`, or in "
        f'Python `covid_jax.load_run("weights:{weights.name}")`. Weights are stored in float16 and '
        "used in float32.",
    }
    body = "\n".join(f"## {title}\n\n{text}\n" for title, text in sections.items())
    return f"# {weights.name}\n\n**{_sentence(weights.pictures)}**\n\n{body}"


def _listed(values: dict[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items()) or "Not measured."


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def rounding(source: Path, packed: Path) -> float:
    """The largest change of a probability by float16, on noise."""
    runs = load_run(source), load_run(packed)
    side = runs[0].config.data.image_size
    noise = np.random.default_rng(0).normal(-700, 300, (side, side))
    first, second = (run.predict(noise) for run in runs)
    return float(np.abs(first - second).max())


def main() -> None:
    """Packs, and says what float16 changes."""
    parser = argparse.ArgumentParser(description="Packs a run for weights/.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", type=Path, default=Path("weights/covid_jax_weights"))
    parser.add_argument("--about", type=Path)
    parser.add_argument("--default", action="store_true")
    flags = parser.parse_args()
    about = read_json(flags.about) if flags.about else {}
    folder = pack(flags.run, flags.name, flags.out, about, default=flags.default).path
    size, change = (folder / WEIGHTS).stat().st_size / 1e6, rounding(flags.run, folder)
    print(f"{folder}: {size:.2f} MB; float16 changes a probability by up to {change:.1e}")


if __name__ == "__main__":
    main()
