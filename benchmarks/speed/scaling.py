"""How cost grows: with slices, image size, batch and devices; opening a dataset; a whole volume.

    python -m benchmarks.speed.scaling --out benchmarks/results/scaling.json [--parts size batch]

Phantom slices, a small network, no augmentation (``training.py`` tells its price); compilation is
left out. Each part is fitted by a power: an exponent of 1 is cost in proportion. Writes JSON, a
Markdown table and a plot beside it.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.speed.data import time_opening, write_dataset
from benchmarks.speed.scaling_fit import growth, markdown, plot
from benchmarks.speed.step_timer import Trainer, first_devices, initial_params
from benchmarks.speed.timing import in_turns, settings
from benchmarks.speed.volume import measure_volume, noisy_slices
from covid_jax.data import Slice, SliceDataset
from covid_jax.data.batches import batches, sent_ahead
from covid_jax.models import SCSEUNet
from covid_jax.runs.provenance import provenance
from covid_jax.transforms.preprocessing import Normalization, normalize

BATCH, GLOBAL_BATCH = 4, 8
Call = Callable[[], Any]
SAME_CORES = (
    "simulated devices share the same cores: they show no speed-up, only the overhead of cutting "
    "the batch and summing gradients (0 is none)"
)
SIMULATED = """
import json, sys
from benchmarks.speed.scaling import time_devices
from benchmarks.speed.timing import settings
kept, *rest = json.loads(sys.argv[1])
settings("cpu", kept)
print(json.dumps(time_devices(*rest)))
"""


def make_dataset(count: int, size: int) -> SliceDataset:
    """Noisy slices in memory."""
    pairs = zip(*noisy_slices(count, size), strict=True)
    slices = [Slice(str(i), "phantom", None, None, *pair) for i, pair in enumerate(pairs)]
    return SliceDataset("phantom", tuple(slices), size)


def epoch(trainer: Trainer, dataset: SliceDataset) -> list[jax.Array]:
    """Every slice once, batches sent ahead and at most two steps waiting."""
    totals: list[jax.Array] = []
    for batch in sent_ahead(batches(dataset, range(len(dataset)), BATCH), trainer.place):
        totals.append(trainer.step(batch))
        if len(totals) > 2:
            totals[-3].block_until_ready()
    return totals


def step_and_forward(features: tuple[int, ...], size: int, batch: int) -> dict[str, Call]:
    """A training step and a forward pass of one batch that lies on the device."""
    trainer, dataset = Trainer(features), make_dataset(batch, size)
    fixed = trainer.place(next(batches(dataset, range(batch), batch)))
    images = jax.block_until_ready(normalize(fixed.images, Normalization()))
    variables = jax.device_put({"params": initial_params(features)})
    apply = jax.jit(SCSEUNet(features=features).apply)
    return {
        "training step": lambda: trainer.step(fixed),
        "forward pass": lambda: apply(variables, images),
    }


def timed(calls: Mapping[int, Mapping[str, Call]], turns: int) -> dict[str, dict[int, list[float]]]:
    """Seconds of all calls, in turns: of each series at each value."""
    flat = {f"{name}|{at}": call for at, of in calls.items() for name, call in of.items()}
    found: dict[str, dict[int, list[float]]] = {}
    for key, seconds in in_turns(flat, turns).items():
        name, at = key.split("|")
        found.setdefault(name, {})[int(at)] = seconds
    return found


def measure_slices(options: argparse.Namespace) -> dict[str, Any]:
    """One pass of training steps over datasets of several lengths."""
    trainer = Trainer(options.features)
    datasets = {count: make_dataset(count, options.size) for count in options.slices}
    for dataset in datasets.values():
        _ = dataset.network  # resized once, before the first epoch
    calls = {
        n: {"training pass": functools.partial(epoch, trainer, dataset)}
        for n, dataset in datasets.items()
    }
    return growth("slices in the dataset", timed(calls, options.turns), {n: n for n in calls})


def measure_size(options: argparse.Namespace) -> dict[str, Any]:
    """Training step and forward pass against the pixels of a slice."""
    calls = {n * n: step_and_forward(options.features, n, BATCH) for n in options.sizes}
    return growth("pixels in a slice", timed(calls, options.turns), dict.fromkeys(calls, BATCH))


def measure_batch(options: argparse.Namespace) -> dict[str, Any]:
    """Training step and forward pass against the batch."""
    calls = {n: step_and_forward(options.features, options.size, n) for n in options.batches}
    return growth("slices in a batch", timed(calls, options.turns), {n: n for n in calls})


def time_devices(features: Sequence[int], size: int, turns: int) -> dict[int, list[float]]:
    """Seconds of a training step of the global batch, cut over 1, 2, 4 and 8 devices, in turns."""
    dataset, calls = make_dataset(GLOBAL_BATCH, size), {}
    for count in (n for n in (1, 2, 4, 8) if n <= jax.device_count()):
        trainer = Trainer(tuple(features), first_devices(count))
        fixed = trainer.place(next(batches(dataset, range(GLOBAL_BATCH), GLOBAL_BATCH)))
        calls[count] = {"step": functools.partial(trainer.step, fixed)}
    return timed(calls, turns)["step"]


def simulated_devices(kept: bool, *arguments: Any) -> dict[int, list[float]]:
    """``time_devices`` in a process whose CPU poses as eight devices; ``kept``: freed memory."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    out = subprocess.run(
        [sys.executable, "-c", SIMULATED, json.dumps([kept, *arguments])],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {int(count): samples for count, samples in json.loads(out.stdout).items()}


def measure_devices(options: argparse.Namespace) -> dict[str, Any]:
    """A fixed batch over more and more devices: real ones if there are several, else simulated."""
    simulated = jax.device_count() == 1
    arguments = options.features, options.size, options.turns
    kept = options.keep_freed_memory
    seconds = simulated_devices(kept, *arguments) if simulated else time_devices(*arguments)
    found = growth(
        "devices",
        {"training step": seconds},
        dict.fromkeys(seconds, GLOBAL_BATCH),
        expected=0 if simulated else -1,
        note=SAME_CORES if simulated else "real devices: -1 is a perfect speed-up",
    )
    return found | {"simulated": simulated}


def measure_opening(options: argparse.Namespace) -> dict[str, Any]:
    """First and second opening of datasets of several lengths, each in a process of its own."""
    samples: dict[str, dict[int, list[float]]] = {"first opening": {}, "second opening": {}}
    for count in options.opening_slices:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary, "data")
            folder.mkdir()
            write_dataset(folder, count, options.opening_size)
            for turn in range(options.turns):
                for of in samples.values():  # the second finds the cache that the first leaves
                    cache = str(Path(temporary, f"cache{turn}"))
                    (taken,) = time_opening(folder, cache, 1, count, options.opening_size)
                    of.setdefault(count, []).append(taken)
    note = f"{options.opening_size} x {options.opening_size}; the files lie in memory, import apart"
    slices = {count: count for count in options.opening_slices}
    return growth("slices in the dataset", samples, slices, note=note)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "slices": measure_slices,
    "size": measure_size,
    "batch": measure_batch,
    "devices": measure_devices,
    "opening": measure_opening,
    "volume": lambda options: measure_volume(
        options.features,
        initial_params(options.features),
        options.volume_slices,
        options.volume_size,
        options.turns,
    ),
}


def main() -> None:
    """Measures and writes JSON, Markdown and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--features", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--slices", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--size", type=int, default=128, help="where it is not what grows")
    parser.add_argument("--opening-slices", type=int, nargs="+", default=[32, 128, 473])
    parser.add_argument("--opening-size", type=int, default=512)
    parser.add_argument("--volume-slices", type=int, default=40)
    parser.add_argument("--volume-size", type=int, default=512, help="of scan and network")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "gpu"], help="JAX's first if not given")
    parser.add_argument("--keep-freed-memory", action="store_true", help="as train.py does")
    options = parser.parse_args()
    setting = settings(options.device, options.keep_freed_memory)
    options.features = tuple(options.features)
    measured = {}
    for name in options.parts:
        measured[name] = PARTS[name](options)
        print(markdown({name: measured[name]}), flush=True)
    record = {
        "features": options.features,
        "size": options.size,
        "settings": setting,
        "measured": measured,
        **provenance(["python", "-m", "benchmarks.speed.scaling", *sys.argv[1:]]),
    }
    options.out.write_text(json.dumps(record, indent=1))
    options.out.with_suffix(".md").write_text(markdown(measured))
    plot(measured, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
