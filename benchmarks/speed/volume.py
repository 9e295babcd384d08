"""What ``covid-jax predict`` takes for a volume, and the shares of decoding, network and writing.

Measured by ``scaling.py``.
"""

import io
import itertools
import math
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from benchmarks.speed.timing import in_turns, spread
from covid_jax.inference import Run
from covid_jax.io.nifti import write_stack
from covid_jax.phantom.dataset import phantom_slices
from covid_jax.prediction.find_scans import find_scans
from covid_jax.prediction.options import PredictOptions
from covid_jax.prediction.pipeline import Predicted, load
from covid_jax.prediction.predict_scans import predict_scans
from covid_jax.prediction.writer import ScanWriter
from covid_jax.runs.config import DataConfig, ModelConfig, TrainConfig
from covid_jax.runs.record import DataRecord, RunRecord
from covid_jax.transforms.preprocessing import Normalization, pack

OPTIONS = PredictOptions()  # the command's own
STAGES = {
    "decoding": "reading the file, slices to the network's size",
    "network": "sending, normalising, computing, fetching",
    "writing": "probabilities to the scan's size, decisions, statistics, mask and JSON files",
}
NOTE = (
    "each stage alone, one after the other; the whole runs them in threads, so that it may take "
    "less than their sum, and also looks for scans, hashes the weights and asks git for the commit"
)


def noisy_slices(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Phantom slices and masks (count, size, size) with noise, as hard to unpack as scans."""
    images, masks = phantom_slices(seed=0, patient=1, num_slices=4, size=size)
    rng, chosen = np.random.default_rng(0), np.arange(count) % 4
    return images[chosen] + rng.normal(0, 20, (count, size, size)).astype(np.int16), masks[chosen]


def untrained_run(features: tuple[int, ...], params: Any, size: int) -> Run:
    """A run as ``load_run`` gives it."""
    config = TrainConfig(data=DataConfig(image_size=size), model=ModelConfig(features))
    record = RunRecord.new(config, DataRecord("none", "", Normalization()))
    return Run(Path("untrained"), record, 0, jax.device_put(params))


def measure_volume(
    features: tuple[int, ...], params: Any, slices: int, size: int, turns: int
) -> dict[str, Any]:
    """Seconds of the whole and of each stage alone, by the functions that the whole calls.

    Args:
      features: of the network.
      params: its parameters.
      slices: of the volume.
      size: side of its slices and of the network's.
      turns: how often all is measured.
    """
    run = untrained_run(features, params, size)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, "scan.nii.gz")
        write_stack(path, noisy_slices(slices, size)[0])
        folders = (Path(temporary, f"out{n}") for n in itertools.count())  # or all were done
        (source,) = find_scans([path], Path(temporary, "out")).scans
        scan = load(run, source, OPTIONS)
        packed = pack(list(scan.stack), size)
        maps = run.predict_network(packed, OPTIONS.batch_size)

        def write() -> dict[str, Any]:
            writer = ScanWriter(scan, OPTIONS, run, next(folders))
            for place, scores in enumerate(maps):
                writer.add(Predicted(scan, place, scores[None, None]))
            return writer.write({})

        def predict() -> None:
            console = Console(file=io.StringIO())
            outcome = predict_scans(run, [path], next(folders), OPTIONS, console)
            assert len(outcome.predicted) == 1, outcome.failures

        seconds = in_turns(
            {
                "whole": predict,
                "decoding": lambda: pack(list(load(run, source, OPTIONS).stack), size),
                "network": lambda: run.predict_network(packed, OPTIONS.batch_size),
                "writing": lambda: write() and None,
            },
            turns,
        )
    return shares(seconds) | {"slices": slices, "size": size, "batch": OPTIONS.batch_size}


def shares(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Each stage's share of the sum of their medians, and the whole beside that sum."""
    found = {name: spread(samples) for name, samples in seconds.items()}
    whole = found.pop("whole")
    total = math.fsum(stage["median"] for stage in found.values())
    return {
        "whole": whole,
        "stages": {
            name: stage | {"share_of_sum": stage["median"] / total, "holds": STAGES[name]}
            for name, stage in found.items()
        },
        "whole_over_sum": whole["median"] / total,
        "note": NOTE,
    }
