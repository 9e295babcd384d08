"""What logging costs a training step: epochs with and without it, in turns.

    python -m benchmarks.speed.logging_cost --out benchmarks/results/logging_cost.json

Both run the loop's own epoch on the phantom at the quick preset's size. With logging the progress
bar lives and every step reports to it; a third kind waits for the device after each step, as a loop
that reads its loss every step would.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from covid_jax.data import open_dataset
from covid_jax.data.batches import batches
from covid_jax.models import SCSEUNet
from covid_jax.parallel import Devices
from covid_jax.phantom.dataset import write_phantom
from covid_jax.runs.config import TrainConfig
from covid_jax.runs.provenance import provenance
from covid_jax.training import trainer as loop
from covid_jax.training.compiled_run import compile_run, make_loss
from covid_jax.training.loggers import Logs, NoLogs
from covid_jax.transforms.preprocessing import Normalization


class Waits(NoLogs):
    """Stands for a loop that looks at each step's result."""

    def __init__(self, wait: Callable[[], Any]) -> None:
        super().__init__()
        self.step = wait


def measure(folder: Path, steps: int, turns: int) -> dict[str, list[float]]:
    """Seconds a step, a sample for each epoch of ``steps`` steps."""
    config = TrainConfig.quick()
    dataset = open_dataset(folder, config.data.image_size)
    devices = Devices()
    model = SCSEUNet(**config.model.arguments())
    loss = make_loss(config.loss)
    compiled = compile_run(config, model, loss, Normalization(), 1, devices, steps)
    order = np.arange(steps * config.batch_size) % len(dataset)
    sent = [devices.place(batch) for batch in batches(dataset, order, config.batch_size)]
    state = compiled.init(jax.random.key(0))
    newest: list[Any] = []

    def step(state: Any, batch: Any, key: Any) -> Any:
        newest[:] = compiled.step(state, batch, key)
        return tuple(newest)

    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    seconds: dict[str, list[float]] = {"without": [], "with": [], "waiting": []}
    with tempfile.TemporaryDirectory() as run:
        logs = Logs(Path(run), console, turns, steps, 0)
        kinds = {
            "without": NoLogs(),
            "with": logs,
            "waiting": Waits(lambda: float(newest[1]["loss"])),
        }
        with logs:
            for turn in range(turns + 1):
                for name, kind in kinds.items():
                    started = time.perf_counter()
                    key = jax.random.key(turn)
                    state, *_ = loop.run_steps(step, state, sent, key, kind, lambda: None)
                    if turn:  # the first turn compiles
                        seconds[name].append((time.perf_counter() - started) / steps)
    return seconds


def main() -> None:
    """Measures and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--turns", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_phantom(Path(temporary, "phantom"))
        seconds = measure(folder, arguments.steps, arguments.turns)
    paired = {
        name: statistics.median(a / b for a, b in zip(samples, seconds["without"], strict=True))
        for name, samples in seconds.items()
    }
    record = {
        "median_seconds_a_step": {name: statistics.median(s) for name, s in seconds.items()},
        "median_ratio_to_without": paired,
        "samples": seconds,
        **provenance(["python", "-m", "benchmarks.speed.logging_cost", *sys.argv[1:]]),
    }
    arguments.out.write_text(json.dumps(record, indent=1))
    print(json.dumps({k: v for k, v in record.items() if k != "versions"}, indent=1))


if __name__ == "__main__":
    main()
