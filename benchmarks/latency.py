"""What a slice costs: this network against PyTorch, ONNX Runtime and OpenVINO, on the same weights.

    python benchmarks/latency.py --out benchmarks/results/latency.json [--sizes 512] [--batches 1 4]

All contenders take their turns in one run; outputs are compared, so that nobody is fast by being
wrong; each is put beside the least time that this machine's matrix products and copies allow. With
a GPU visible to JAX and PyTorch (``pip install "covid_jax[bench,cuda13]"`` and a CUDA build of
torch) the same command measures that. Writes JSON, a Markdown table and a plot beside it.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from limits import least_seconds, machine_rates, stages
from timing import in_turns, ratio, settings, spread

from covid_jax.models import SCSEUNet
from covid_jax.provenance import provenance

PAPER = 0.29  # seconds a slice on a Quadro P5000 (Zhou, Canu, Ruan 2020)
Contender = Callable[[], Any]
FIRST_SLICE = """
import sys, time
started = time.perf_counter()
import jax, jax.numpy as jnp
from covid_jax.models import SCSEUNet
imported = time.perf_counter()
size = int(sys.argv[1])
model = SCSEUNet()
images = jnp.zeros((1, size, size, 1))
shapes = jax.eval_shape(model.init, jax.random.key(0), images)
params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), shapes)
jax.block_until_ready(params)
ready = time.perf_counter()
jax.jit(model.apply)(params, images).block_until_ready()
print(imported - started, time.perf_counter() - ready)
"""


def jax_contenders(variables: Any, images: np.ndarray) -> dict[str, Contender]:
    """Ours, jitted, in float32 and with bfloat16 convolutions; logits (B, H, W, 1)."""
    x = jnp.asarray(images)
    found = {}
    for name, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16)):
        apply = jax.jit(SCSEUNet(dtype=dtype).apply)
        found[f"covid_jax {name}"] = lambda apply=apply: apply(variables, x)
    return found


def torch_contenders(variables: Any, images: np.ndarray) -> dict[str, Contender]:
    """The twin: eager, channels_last, compiled, bfloat16; logits (B, 1, H, W)."""
    import torch
    from torch_twin import TorchTwin, load_jax_params

    device = "cuda" if torch.cuda.is_available() else "cpu"
    twin = TorchTwin().eval()
    load_jax_params(twin, jax.tree.map(np.asarray, variables["params"]))
    twin = twin.to(device)
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(device)
    last = x.contiguous(memory_format=torch.channels_last)
    twin_last = TorchTwin().eval()
    twin_last.load_state_dict(twin.state_dict())
    twin_last = twin_last.to(device, memory_format=torch.channels_last)
    compiled = torch.compile(twin_last)

    def call(network: Any, images: Any, half: bool = False) -> Contender:
        def run() -> Any:
            with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=half):
                logits = network(images)
            if device == "cuda":
                torch.cuda.synchronize()
            return logits.float().cpu().numpy().transpose(0, 2, 3, 1)

        return run

    return {
        "torch eager float32": call(twin, x),
        "torch channels_last float32": call(twin_last, last),
        "torch compile float32": call(compiled, last),
        "torch channels_last bfloat16": call(twin_last, last, half=True),
        "torch compile bfloat16": call(compiled, last, half=True),
    }


def exported_contenders(variables: Any, images: np.ndarray) -> dict[str, Contender]:
    """ONNX Runtime and OpenVINO on the graph that ``covid-jax export`` writes; probabilities."""
    import onnxruntime
    import openvino

    from covid_jax.config import DataConfig, TrainConfig
    from covid_jax.data.preprocess import Normalization
    from covid_jax.export import export_run
    from covid_jax.inference import Run

    config = TrainConfig(data=DataConfig(image_size=images.shape[1]))
    data = {"layout": "none", "fingerprint": "", "normalization": Normalization().record()}
    run = Run(Path(), config, {"data": data}, 0, variables["params"])
    with tempfile.TemporaryDirectory() as folder:
        (path,) = export_run(run, "onnx", Path(folder, "network.onnx"))
        session = onnxruntime.InferenceSession(
            path.read_bytes(), providers=onnxruntime.get_available_providers()
        )
        network = openvino.Core().read_model(path)
        compiled = {
            name: openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": hint})
            for name, hint in (("float32", "f32"), ("bfloat16", "bf16"))
        }
    x = images.transpose(0, 3, 1, 2).copy()
    return {
        "onnxruntime float32": lambda: session.run(None, {"image": x})[0].transpose(0, 2, 3, 1),
        **{
            f"openvino {name}": lambda model=model: model(x)[0].transpose(0, 2, 3, 1)
            for name, model in compiled.items()
        },
    }


def measure(size: int, batch: int, turns: int, only: list[str]) -> dict[str, Any]:
    """One size and batch: every contender's seconds a slice, and how far it is from ours."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, size, size, 1)).astype(np.float32)
    # Z-scored, as the exported graphs do it themselves.
    images = (images - images.mean((1, 2, 3), keepdims=True)) / images.std((1, 2, 3), keepdims=True)
    model = SCSEUNet()
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    contenders = jax_contenders(variables, images)
    if importlib.util.find_spec("torch"):
        contenders |= torch_contenders(variables, images)
    if importlib.util.find_spec("openvino") and importlib.util.find_spec("onnxruntime"):
        contenders |= exported_contenders(variables, images)
    contenders = {n: c for n, c in contenders.items() if not only or any(w in n for w in only)}
    reference = np.asarray(jax.nn.sigmoid(jax.jit(model.apply)(variables, images)))
    seconds = in_turns(contenders, turns)
    rows = {}
    for name, call in contenders.items():
        outputs = np.asarray(call(), np.float32)
        if not name.startswith(("onnx", "openvino")):
            outputs = np.asarray(jax.nn.sigmoid(outputs))
        per_slice = [s / batch for s in seconds[name]]
        rows[name] = spread(per_slice) | {
            "largest_difference": float(np.abs(outputs - reference).max())
        }
        for other in ("covid_jax float32", "covid_jax bfloat16"):
            if other in seconds:
                rows[name][f"{other} over it"] = ratio(seconds[other], seconds[name])
    return {"size": size, "batch": batch, "contenders": rows}


def first_slice(size: int) -> dict[str, dict[str, float]]:
    """Seconds of import and of the first slice in a fresh process, without and with the cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
        found = {}
        for name in ("cold", "cached"):
            out = subprocess.run(
                [sys.executable, "-c", FIRST_SLICE, str(size)],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            imported, first = map(float, out.stdout.split())
            found[name] = {"import": imported, "first_slice": first}
    return found


def markdown(record: dict[str, Any]) -> str:
    """The table for a reader."""
    lines = [
        "| size | batch | contender | s a slice (median, 5-95 %) | covid_jax of its precision is | "
        "share of the limit | largest difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for part in record["measured"]:
        for name, row in part["contenders"].items():
            kind = "bfloat16" if "bfloat16" in name else "float32"
            over = row.get(f"covid_jax {kind} over it")
            least = part["least_seconds"][kind]
            lines.append(
                f"| {part['size']} | {part['batch']} | {name} | {row['median']:.3f} "
                f"({row['p5']:.3f} to {row['p95']:.3f}) | "
                f"{'' if over is None else f'{over:.2f} x'} | {least / row['median']:.0%} | "
                f"{row['largest_difference']:.1e} |"
            )
    return "\n".join(lines) + "\n"


def plot(record: dict[str, Any], path: Path) -> None:
    """Bars of every contender, a panel for each size and batch; the paper's 0.29 s as a line."""
    from covid_jax.drawing import FALSE_ALARM, HIT, MISS, new_figure, save_figure

    parts = record["measured"]
    figure = new_figure(7.2, 2.4 * len(parts))
    for axis, part in zip(figure.subplots(len(parts), 1, squeeze=False)[:, 0], parts, strict=True):
        rows = part["contenders"]
        places = np.arange(len(rows))
        colours = [HIT if name.startswith("covid_jax") else MISS for name in rows]
        axis.barh(places, [row["median"] for row in rows.values()], color=colours)
        axis.set_yticks(places, list(rows), fontsize=7)
        axis.invert_yaxis()
        axis.axvline(PAPER, color=FALSE_ALARM, linewidth=1, label="the paper: 0.29 s, Quadro P5000")
        axis.set_title(f"{part['size']} x {part['size']}, batch {part['batch']}", fontsize=8)
        axis.set_xlabel("seconds a slice", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7, frameon=False)
    save_figure(figure, path)


def main() -> None:
    """Measures and writes JSON, Markdown and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512])
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--device", choices=["cpu", "gpu"], help="JAX's first if not given")
    parser.add_argument("--keep-freed-memory", action="store_true", help="as train.py does")
    parser.add_argument("--only", nargs="*", default=[], help="parts of contenders' names")
    arguments = parser.parse_args()
    setting = settings(arguments.device, arguments.keep_freed_memory)
    started = time.perf_counter()
    rates = {
        kind: machine_rates(dtype)
        for kind, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16))
    }
    measured = []
    for size in arguments.sizes:
        least = {
            "float32": least_seconds(size, rates["float32"]),
            "bfloat16": least_seconds(size, rates["bfloat16"], bytes_each=2),
        }
        for batch in arguments.batches:
            part = measure(size, batch, arguments.turns, arguments.only)
            measured.append(part | {"least_seconds": least})
            print(markdown({"measured": measured[-1:]}), flush=True)
    record = {
        "measured": measured,
        "machine_rates": rates,
        "stages_at_512": stages(512),
        "settings": setting,
        "first_slice": first_slice(512),
        "paper_seconds": PAPER,
        "seconds_taken": time.perf_counter() - started,
        **provenance(["python", "benchmarks/latency.py", *sys.argv[1:]]),
    }
    arguments.out.write_text(json.dumps(record, indent=1))
    arguments.out.with_suffix(".md").write_text(markdown(record))
    plot(record, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
