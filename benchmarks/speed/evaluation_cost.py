"""What judging costs: 473 slices of 512 x 512 in every metric, the network's time left out.

    python -m benchmarks.speed.evaluation_cost --out benchmarks/results/evaluation_cost.json

Phantom slices with their spacing, so that distances are taken in pixels and in mm; the maps
are the truth, blurred, shifted and noisy: as many boundaries as a middling network makes.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import ndimage

from covid_jax.data import Slice, SliceDataset
from covid_jax.evaluation.slice_scores import score_slice
from covid_jax.evaluation.summary import summarize_slices
from covid_jax.phantom.dataset import phantom_slices
from covid_jax.runs.provenance import provenance

SIZE, SLICES = 512, 473


def main() -> None:
    """Measures and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    images, masks = phantom_slices(seed=0, patient=1, num_slices=8, size=SIZE)
    rng = np.random.default_rng(0)
    maps = []
    for mask in masks:
        soft = ndimage.gaussian_filter(np.roll(mask > 0, 4, 0).astype(np.float32), 3)
        noise = ndimage.gaussian_filter(rng.normal(size=mask.shape), 4) * 0.6
        maps.append(np.clip(soft + noise, 0, 1).astype(np.float32)[..., None])
    items = [
        Slice(
            *(str(i), "phantom", f"p{i % 40}", None),
            *(images[i % len(masks)], (masks[i % len(masks)] > 0).astype(np.uint8), (0.7, 0.7)),
        )
        for i in range(SLICES)
    ]
    dataset = SliceDataset("phantom", tuple(items), SIZE)
    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scores = list(
            pool.map(
                lambda i: score_slice(
                    dataset, items[i], maps[i % len(maps)], items[i].mask, 0.5, 3.0
                ),
                range(SLICES),
            )
        )
    judged = time.perf_counter()
    summarize_slices(scores)
    ended = time.perf_counter()
    record = {
        "slices": SLICES,
        "image_size": SIZE,
        "threads": os.cpu_count(),
        "judging_seconds": judged - started,
        "summary_seconds": ended - judged,
        **provenance(["python", "-m", "benchmarks.speed.evaluation_cost", *sys.argv[1:]]),
    }
    arguments.out.write_text(json.dumps(record, indent=1))
    print(json.dumps({k: v for k, v in record.items() if k != "versions"}, indent=1))


if __name__ == "__main__":
    main()
