"""What a user waits for: train to its first step, predict to its first slice.

    python -m benchmarks.speed.waiting --bundle BUNDLE --out benchmarks/results/waiting.json

Each time is that of a process of its own from its start, imports included: with an empty cache of
compiled programs, and then with what the first process left in it. The phantom is there already.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from covid_jax.io.nifti import write_stack
from covid_jax.phantom.dataset import write_phantom
from covid_jax.runs.provenance import provenance

# Runs a command, ends it after its first step, and prints when that was and how long it took.
FIRST_STEP = """
import os, sys, time
from covid_jax.cli.main import main
from covid_jax.files import cache_folder
# As main sets it; jax reads it when it is imported, which main does later.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache_folder() / "compiled")
import jax
from covid_jax.training import trainer
compile_run = trainer.compile_run
def timed(*arguments, **options):
    run = compile_run(*arguments, **options)
    def step(*given):
        begun = time.perf_counter()
        jax.block_until_ready(run.step(*given))
        print("first", time.time(), time.perf_counter() - begun, flush=True)
        os._exit(0)
    return run._replace(step=step)
trainer.compile_run = timed
main(sys.argv[1:])
"""
PAPER = ("--preset", "paper")  # full width, 512 x 512


def first_step(data: Path, cache: Path, folder: Path, flags: tuple[str, ...]) -> tuple[float, ...]:
    """Seconds to the end of the first step, and of the step itself with its compilation."""
    arguments = ["train", "--data", str(data), "--out", str(folder), *flags]
    begun = time.time()
    out = _run([sys.executable, "-c", FIRST_STEP, *arguments], cache)
    (line,) = (line.split() for line in out.splitlines() if line.startswith("first "))
    return float(line[1]) - begun, float(line[2])


def first_slice(scan: Path, cache: Path, folder: Path, bundle: Path) -> tuple[float, ...]:
    """Seconds of predicting a scan of one slice, its files written."""
    begun = time.time()
    command = [sys.executable, "-m", "covid_jax", "predict", scan, "--run", bundle, "-o", folder]
    _run(list(map(str, command)), cache)
    return (time.time() - begun,)


def _run(command: list[str], cache: Path) -> str:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def main() -> None:
    """Measures each once cold and some times warm, and writes the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True, help="of predict")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    record = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        phantom, scan = write_phantom(root / "phantom"), root / "scan.nii.gz"
        write_stack(scan, np.random.default_rng(0).integers(-1000, 200, (1, 512, 512), np.int16))
        for name, measure, given in (
            ("train, paper preset", first_step, (phantom,)),
            ("predict, one slice", first_slice, (scan,)),
        ):
            last = options.bundle if measure is first_slice else PAPER
            cache, found = root / f"cache-{name}", []
            for turn in range(options.turns + 1):
                out = root / f"{name}-{turn}"
                found.append(measure(*given, cache, out, last))  # type: ignore[arg-type]
            record[name] = {
                "cold_seconds": found[0],
                "warm_seconds": [
                    statistics.median(column) for column in zip(*found[1:], strict=True)
                ],
                "samples": found,
            }
            print(name, {k: v for k, v in record[name].items() if k != "samples"}, flush=True)
    record |= provenance(["python", "-m", "benchmarks.speed.waiting", *sys.argv[1:]])
    options.out.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
