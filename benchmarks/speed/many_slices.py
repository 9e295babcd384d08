"""Time and memory of a large dataset: opened, split by groups of near-duplicates, one epoch.

    python -m benchmarks.speed.many_slices --slices 20000 --out benchmarks/results/many_slices.json

The slices are pictures of random texture without known patients, a tenth of them shifted copies of
the one before, so that all are compared with all. ``--tree`` trains with another checkout of this
project, by the flags that both understand; ``--limit`` ends a run that takes too long.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from covid_jax.runs.provenance import provenance

SIDE = 64
TINY = "--image-size 32 --features 4 8 12 16 --epochs 1 --batch-size 64 --seed 0"


def write_pictures(folder: Path, count: int) -> int:
    """Writes textures with a disc as lesion; returns how many are copies of the one before."""
    rng, copies = np.random.default_rng(0), 0
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    texture = np.zeros((SIDE, SIDE))
    for number in range(count):
        if number and rng.random() < 0.1:
            texture, copies = np.roll(texture, 1, axis=1), copies + 1
        else:
            texture = gaussian_filter(rng.normal(size=(SIDE, SIDE)), 1.5)
        x, y = rng.integers(16, SIDE - 16, 2)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < 64
        grey = np.clip(128 + 200 * texture + 60 * disc, 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"images/{number:05}.png")
        Image.fromarray(np.uint8(255 * disc)).save(folder / f"masks/{number:05}.png")
    return copies


def train(tree: Path, data: Path, work: Path, limit: int) -> dict[str, object]:
    """Trains one epoch in a process of its own, with an empty cache of slices."""
    command = [sys.executable, "train.py", "--data", str(data), *TINY.split()]
    environment = {**os.environ, "XDG_CACHE_HOME": str(work / "cache"), "PYTHONPATH": str(tree)}
    started = time.perf_counter()
    with (work / "log").open("w") as log:
        process = subprocess.Popen(
            ["timeout", str(limit), *command, "--out", str(work / "run")],
            cwd=tree,
            env=environment,
            stdout=log,
            stderr=log,
        )
        _, status, usage = os.wait4(process.pid, 0)
    return {
        "exit": os.waitstatus_to_exitcode(status),
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mebibytes": round(usage.ru_maxrss / 1024),
        "last_lines": (work / "log").read_text()[-600:].splitlines()[-6:],
    }


def main() -> None:
    """Measures and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--slices", type=int, default=20000)
    parser.add_argument("--tree", type=Path, nargs="*", default=[Path(__file__).parents[2]])
    parser.add_argument("--limit", type=int, default=1800, help="seconds a run may take")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary, "data")
        copies = write_pictures(data, arguments.slices)
        for number, tree in enumerate(arguments.tree):
            work = Path(temporary, str(number))
            work.mkdir()
            results.append(train(tree.resolve(), data, work, arguments.limit))
            print(json.dumps(results[-1], indent=1))
    record = {"slices": arguments.slices, "copies": copies, "side": SIDE, "runs": results}
    record |= provenance(["python", "-m", "benchmarks.speed.many_slices", *sys.argv[1:]])
    arguments.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
