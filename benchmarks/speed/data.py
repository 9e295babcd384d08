"""What the data path costs: first and second opening, and its share of a training step.

    python -m benchmarks.speed.data --out benchmarks/results/data.json

The dataset is 473 slices of 512 x 512 in the layout of Dataset-1 and Dataset-2 (100 + 373), phantom
slices with noise, so that the files are as hard to unpack as scans. Each opening is a process of
its own; the cache is a temporary folder.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.speed.step_timer import Trainer
from benchmarks.speed.timing import in_turns
from covid_jax.data import SliceDataset, open_dataset
from covid_jax.data.batches import batches
from covid_jax.io.nifti import write_stack
from covid_jax.phantom.dataset import phantom_slices
from covid_jax.runs.provenance import provenance
from covid_jax.transforms.augmentation import AugmentConfig, augment
from covid_jax.transforms.preprocessing import Normalization, normalize

SLICES, SIZE = 473, 512
OPEN = """
import sys, time
from covid_jax.data import open_dataset
started = time.perf_counter()
dataset = open_dataset(sys.argv[1], int(sys.argv[2]), lesion_slices_only=False)
dataset.network
print(len(dataset), time.perf_counter() - started)
"""


def write_dataset(folder: Path, slices: int = SLICES, size: int = SIZE) -> None:
    """Noisy slices, 473 of them as a stack of 100 and nine volumes of 41 or 42."""
    images, masks = phantom_slices(seed=0, patient=1, num_slices=4, size=size)
    rng = np.random.default_rng(0)
    (folder / "rp_im").mkdir()
    (folder / "rp_msk").mkdir()
    stack = round(slices * 100 / SLICES)
    each, more = divmod(slices - stack, 9)
    volumes = [(f"rp_im/{n}", f"rp_msk/{n}", each + (n <= more)) for n in range(1, 10)]
    for image, mask, count in [("tr_im", "tr_mask", stack), *volumes]:
        chosen = rng.integers(len(images), size=count)
        noise = rng.normal(0, 20, (count, size, size)).astype(np.int16)
        write_stack(folder / f"{image}.nii.gz", images[chosen] + noise)
        write_stack(folder / f"{mask}.nii.gz", masks[chosen])


def time_opening(
    folder: Path, cache: str, runs: int, slices: int = SLICES, size: int = SIZE
) -> list[float]:
    """Seconds from a path to mapped slices, own size and network size, import left out."""
    seconds = []
    for _ in range(runs):
        command = [sys.executable, "-c", OPEN, str(folder), str(size)]
        environment = {**os.environ, "XDG_CACHE_HOME": cache}
        out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found, taken = out.stdout.split()
        assert int(found) == slices, found
        seconds.append(float(taken))
    return seconds


def time_step(dataset: SliceDataset, features: tuple[int, ...], batch: int, runs: int) -> dict:
    """The parts of a training step that are the data's, beside the whole step."""
    strengths = AugmentConfig.named("standard")
    trainer = Trainer(features, strengths=strengths)

    @jax.jit
    def prepare(batch: dict[str, Any], key: jax.Array) -> Any:
        keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(batch["position"])
        images = normalize(batch["image"], Normalization())
        return augment(keys, images, batch["label"][..., None], strengths)

    rng, key = np.random.default_rng(0), jax.random.key(1)
    fixed = jax.device_put(next(batches(dataset, range(batch), batch)))
    seconds = in_turns(
        {
            "gather_and_send": lambda: jax.device_put(
                next(batches(dataset, rng.permutation(len(dataset)), batch))
            ),
            "normalize_and_augment": lambda: prepare(fixed, key),
            "whole_step": lambda: trainer.step(fixed),
        },
        runs,
    )
    medians = {name: statistics.median(samples) for name, samples in seconds.items()}
    share = (medians["gather_and_send"] + medians["normalize_and_augment"]) / medians["whole_step"]
    return {
        "features": features,
        "image_size": SIZE,
        "batch_size": batch,
        "median_seconds": medians,
        "data_share_of_step": share,
        "samples": seconds,
    }


def main() -> None:
    """Measures and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache = Path(temporary, "data"), str(Path(temporary, "cache"))
        folder.mkdir()
        write_dataset(folder)
        megabytes = sum(path.stat().st_size for path in folder.rglob("*.gz")) / 1e6
        first = time_opening(folder, cache, 1)
        second = time_opening(folder, cache, arguments.runs)
        os.environ["XDG_CACHE_HOME"] = cache
        dataset = open_dataset(folder, SIZE, lesion_slices_only=False)
        steps = [
            time_step(dataset, features, batch, arguments.runs)
            for features, batch in (((8, 16, 32, 64, 128), 4), ((32, 64, 128, 256, 512), 1))
        ]
    record = {
        "slices": len(dataset),
        "compressed_megabytes": round(megabytes, 1),
        "first_opening_seconds": first,
        "second_opening_seconds": {"median": statistics.median(second), "samples": second},
        "steps": steps,
        **provenance(["python", "-m", "benchmarks.speed.data", *sys.argv[1:]]),
    }
    arguments.out.write_text(json.dumps(record, indent=1))
    print(json.dumps({k: v for k, v in record.items() if k != "versions"}, indent=1))


if __name__ == "__main__":
    main()
