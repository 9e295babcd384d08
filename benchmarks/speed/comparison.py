"""What ``latency.py`` and ``training.py`` share: their flags, and the comparison of contenders."""

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.experiments import markdown_table
from benchmarks.speed.timing import settings, spread
from benchmarks.speed.workers import Contender, Worker, alternated
from covid_jax.cli.main import keep_freed_memory
from covid_jax.reporting.drawing import FALSE_ALARM, HIT, MISS
from covid_jax.reporting.figures import new_figure, save_figure
from covid_jax.runs.provenance import provenance

Build = Callable[[], Contender]
OURS = {kind: f"covid_jax {kind}" for kind in ("float32", "bfloat16")}
TORCH = {  # channels_last, mode of torch.compile, bfloat16 by autocast
    "torch eager float32": (False, None, False),
    "torch channels_last float32": (True, None, False),
    "torch compile float32": (False, "default", False),
    "torch channels_last compile float32": (True, "default", False),
    "torch channels_last bfloat16": (True, None, True),
    "torch channels_last compile bfloat16": (True, "default", True),
}
CUDA_GRAPHS = "reduce-overhead"  # the mode that replays them
TORCH_GPU = {
    "torch channels_last compile, CUDA graphs, float32": (True, CUDA_GRAPHS, False),
    "torch channels_last compile, CUDA graphs, bfloat16": (True, CUDA_GRAPHS, True),
}
Case = tuple[int, int]  # side of a slice, slices in a batch
Column = Callable[[dict[str, Any], str], str]  # of a case and a contender: a cell


def flags(description: str, cases: Sequence[Case]) -> argparse.Namespace:
    """The command line; sets up this process and those to come."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--cases",
        type=lambda text: tuple(map(int, text.split(":"))),
        nargs="+",
        default=cases,
        metavar="SIDE:BATCH",
    )
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--calls", type=int, default=1, help="begun one after the other, a turn")
    parser.add_argument("--device", choices=["cpu", "gpu"], help="JAX's first if not given")
    parser.add_argument("--keep-freed-memory", action="store_true", help="as train.py does")
    parser.add_argument("--only", nargs="*", default=[], help="parts of contenders' names")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)  # now: an hour later would be too late
    options.settings = settings(options.device, options.keep_freed_memory)
    if options.calls > 1 and options.settings["device"] == "cpu":
        parser.error("--calls: on a CPU some contenders would overlap their calls, others not")
    if options.settings["device"] != "cpu" and installed("torch"):
        import torch

        if not torch.cuda.is_available():
            parser.error("JAX has a GPU and PyTorch has not: install a CUDA build of torch")
    return options


def installed(*libraries: str) -> bool:
    """Whether all of them are."""
    return all(importlib.util.find_spec(library) for library in libraries)


def torch_ways() -> dict[str, tuple[bool, str | None, bool]]:
    """PyTorch's contenders on JAX's device; none where PyTorch is not installed."""
    if not installed("torch"):
        return {}
    return TORCH | (TORCH_GPU if jax.default_backend() == "gpu" else {})


class Comparison:
    """Contenders against ours of their precision, two processes at a time.

    Args:
      builders: of all contenders, ours among them.
      batch: slices in a call.
      options: the flags.

    After ``run``, ``rows`` holds for each contender seconds a slice; seconds of building it, which
    imports its library and with some compiles, and of the first call, which compiles with others;
    the process's largest memory, JAX's import included; and the median of our time over its time in
    the same turn (our own median is over the turns against all). ``outputs`` has its first result.
    Our bfloat16 is put against our float32.
    """

    def __init__(
        self, builders: Mapping[str, Build], batch: int, options: argparse.Namespace
    ) -> None:
        self._builders, self._batch, self._options = builders, batch, options
        self._samples: dict[str, list[float]] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.outputs: dict[str, Any] = {}

    def run(self) -> None:
        """Measures all pairs."""
        words = self._options.only
        wanted = [n for n in self._builders if not words or any(word in n for word in words)]
        if not set(wanted) - {OURS["float32"]}:
            raise SystemExit(f"--only {' '.join(words)}: nobody to compare with")
        for kind, ours in OURS.items():
            others = [n for n in wanted if n not in OURS.values() and kind_of(n) == kind]
            if kind == "float32" and OURS["bfloat16"] in wanted:
                others.append(OURS["bfloat16"])
            if others:
                with self._begun(ours) as mine:
                    for name in others:
                        self._against(ours, mine, name)
                    self._ended(ours, mine)
        for name, samples in self._samples.items():
            self.rows[name] |= spread([seconds / self._batch for seconds in samples])
        self.rows = {name: self.rows[name] for name in self._builders if name in self.rows}

    def _against(self, ours: str, mine: Worker, name: str) -> None:
        with self._begun(name) as other:
            pairs = alternated(mine, other, self._options.turns, self._options.calls)
            self._ended(name, other)
        for place, one in enumerate((ours, name)):
            self._samples.setdefault(one, []).extend(pair[place] for pair in pairs)
        self.rows[name]["ours_in_these_turns"] = [pair[0] / self._batch for pair in pairs]
        self.rows[name]["ours_over_it"] = statistics.median(a / b for a, b in pairs)

    def _begun(self, name: str) -> Worker:
        build = functools.partial(_build, self._builders[name], self._options.keep_freed_memory)
        worker = Worker(name, build)
        first, self.outputs[name] = worker.ask("first")
        row = {"build_seconds": worker.ask("built"), "first_call_seconds": first}
        self.rows.setdefault(name, row)
        print(f"{name}: first call {first:.1f} s", flush=True)
        return worker

    def _ended(self, name: str, worker: Worker) -> None:
        self.rows[name]["peak_memory_gib"] = worker.ask("peak_gib")


def _build(build: Build, kept: bool) -> Contender:
    if kept:
        keep_freed_memory()
    return build()


def table(measured: Sequence[dict[str, Any]], more: Mapping[str, Column]) -> str:
    """For a reader: a row for each contender of each case, with columns of the caller's own."""
    columns = ["size", "batch", "contender", "ms a slice (median, 5-95 %)", "covid_jax over it"]
    rows = []
    for part in measured:
        for name, row in part["contenders"].items():
            over = row.get("ours_over_it")
            of = " (float32)" if name == OURS["bfloat16"] else ""
            median, low, high = (1000 * row[key] for key in ("median", "p5", "p95"))
            rows.append(
                [
                    str(part["size"]),
                    str(part["batch"]),
                    name,
                    f"{median:.4g} ({low:.4g} to {high:.4g})",
                    "" if over is None else f"{over:.2f} x{of}",
                    f"{row['build_seconds']:.1f} s",
                    f"{row['first_call_seconds']:.1f} s",
                    f"{row['peak_memory_gib']:.1f} GiB",
                    *[write_cell(part, name) for write_cell in more.values()],
                ]
            )
    columns += ["build", "first call", "peak memory", *more]
    return markdown_table.table(columns, rows) + "\n"


def plot(
    measured: Sequence[dict[str, Any]], path: Path, line: tuple[str, float] | None = None
) -> None:
    """Bars of every contender, a panel for each case.

    Args:
      measured: the cases.
      path: of the PNG.
      line: a name and seconds a slice of 512 x 512, to compare with.
    """
    figure = new_figure(7.2, sum(0.7 + 0.18 * len(part["contenders"]) for part in measured))
    heights = [len(part["contenders"]) for part in measured]
    axes = figure.subplots(len(measured), 1, squeeze=False, height_ratios=heights)
    for axis, part in zip(axes[:, 0], measured, strict=True):
        rows = part["contenders"]
        places = np.arange(len(rows))
        colours = [HIT if name.startswith("covid_jax") else MISS for name in rows]
        axis.barh(places, [row["median"] for row in rows.values()], color=colours)
        axis.set_yticks(places, list(rows))
        axis.invert_yaxis()
        if line and part["size"] == 512:
            axis.axvline(line[1], color=FALSE_ALARM, linewidth=1, label=line[0])
            axis.legend(fontsize=7, loc="lower right")  # framed, as it lies on the bars
        axis.set_title(f"{part['size']} x {part['size']}, batch {part['batch']}", fontsize=8)
        axis.set_xlabel("seconds a slice", fontsize=8)
        axis.tick_params(labelsize=7)
    save_figure(figure, path)


def kind_of(name: str) -> str:
    """A contender's precision."""
    return "bfloat16" if "bfloat16" in name else "float32"


def write(options: argparse.Namespace, script: str, record: dict[str, Any], text: str) -> None:
    """JSON with versions, device and command; the table beside it."""
    record = {**record, "settings": options.settings}
    record |= {"turns": options.turns, "calls": options.calls}
    record |= provenance(["python", "-m", f"benchmarks.speed.{script}", *sys.argv[1:]])
    for library in ("torch", "onnxruntime", "openvino"):
        if installed(library):
            record["versions"][library] = importlib.metadata.version(library)
    if options.settings.get("torch_cudnn_tf32") and options.settings["device"] != "cpu":
        text += "\nOn this GPU float32 convolutions are computed in TF32 by all contenders.\n"
    options.out.write_text(json.dumps(record, indent=1))
    options.out.with_suffix(".md").write_text(text)
