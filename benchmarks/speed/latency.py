"""What a slice costs: this network against PyTorch, ONNX Runtime and OpenVINO, on the same weights.

    python -m benchmarks.speed.latency --out benchmarks/results/latency.json [--cases 512:1 256:4]

All contenders take their turns in one run, each in a process of its own; outputs are compared, so
that nobody is fast by being wrong; each is put beside the least time that this machine's matrix
products and copies allow. With a GPU (``pip install -e ".[export,cuda13]" --group bench`` and a
CUDA build of torch): ``--device gpu --calls 50``. Writes JSON, a Markdown table and a plot.
"""

import argparse
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.comparison import (
    OURS,
    Build,
    Case,
    Comparison,
    flags,
    installed,
    kind_of,
    plot,
    table,
    torch_ways,
    write,
)
from benchmarks.speed.roofline import least_seconds, machine_rates, stages
from benchmarks.speed.timing import spread
from benchmarks.speed.workers import Contender, device_peak, torch_peak
from covid_jax.models import SCSEUNet
from covid_jax.models.cpu_bfloat16 import jit_bfloat16

PAPER = 0.29  # seconds a slice on a Quadro P5000 (Zhou, Canu, Ruan 2020)
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
print(imported - started, ready - imported, time.perf_counter() - ready)
"""


def variables_of() -> dict[str, Any]:
    """The same weights for all contenders, on the host."""
    model = SCSEUNet()
    return jax.device_get(jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 1))))


def images_of(size: int, batch: int) -> np.ndarray:
    """Noise, z-scored, as the exported graphs do it themselves: (B, H, W, 1)."""
    images = np.random.default_rng(0).normal(size=(batch, size, size, 1)).astype(np.float32)
    axes = (1, 2, 3)
    return (images - images.mean(axes, keepdims=True)) / images.std(axes, keepdims=True)


def ours(dtype: Any, variables: Any, size: int, batch: int) -> Contender:
    """The network as users call it, jitted; bfloat16 of the convolutions."""
    apply = jit_bfloat16(SCSEUNet(dtype=dtype).apply, dtype)
    x = jnp.asarray(images_of(size, batch))
    placed = jax.device_put(variables)
    return Contender(
        start=lambda: apply(placed, x),
        wait=jax.block_until_ready,
        fetch=lambda logits: np.asarray(jax.nn.sigmoid(logits), np.float32),
        peak_gib=device_peak,
    )


def twin(
    last: bool, mode: str | None, half: bool, variables: Any, size: int, batch: int
) -> Contender:
    """PyTorch's: channels_last or not, compiled in a mode or eager, bfloat16 by autocast or not."""
    import torch

    from tests.oracles.torch_twin import TorchTwin, load_jax_params

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True  # XLA tries algorithms too
    layout = torch.channels_last if last else torch.contiguous_format
    network = TorchTwin().eval()
    load_jax_params(network, variables["params"])
    network = network.to(device, memory_format=layout)
    x = torch.from_numpy(images_of(size, batch).transpose(0, 3, 1, 2).copy())
    x = x.to(device).contiguous(memory_format=layout)
    if mode:
        torch._inductor.config.freezing = True  # weights are constants of the compiled network
    call = torch.compile(network, mode=mode) if mode else network

    def start() -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # the logits before may be overwritten
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=half):
            return call(x)

    def wait(logits: Any) -> Any:
        if device == "cuda":
            torch.cuda.synchronize()
        return logits

    def fetch(logits: Any) -> np.ndarray:
        return torch.sigmoid(logits.float()).cpu().numpy().transpose(0, 2, 3, 1)

    return Contender(start, wait, fetch, torch_peak)


def onnx_graph(variables: Any, size: int) -> bytes:
    """What ``covid-jax export`` writes: image in, probabilities out."""
    from covid_jax.export import export_run
    from covid_jax.inference import Run
    from covid_jax.runs.config import DataConfig, TrainConfig
    from covid_jax.runs.record import DataRecord, RunRecord
    from covid_jax.transforms.preprocessing import Normalization

    config = TrainConfig(data=DataConfig(image_size=size))
    record = RunRecord.new(config, DataRecord("none", "", Normalization()))
    run = Run(Path(), record, 0, jax.device_put(variables["params"]))
    with tempfile.TemporaryDirectory() as folder:
        (path,) = export_run(run, "onnx", Path(folder, "network.onnx"))
        return path.read_bytes()


def onnxruntime_fits() -> bool:
    """Whether ONNX Runtime has the device that JAX has."""
    import onnxruntime

    on_cpu = jax.default_backend() == "cpu"
    return on_cpu or "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def onnxruntime_session(graph: bytes, size: int, batch: int) -> Contender:
    """ONNX Runtime on the exported graph; input and output stay on the device (IO binding)."""
    import onnxruntime

    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    gpu = ["CUDAExecutionProvider"] if device == "cuda" else []
    fixed = onnxruntime.SessionOptions()
    fixed.add_free_dimension_override_by_name("batch", batch)
    providers = [*gpu, "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(graph, fixed, providers=providers)
    x = images_of(size, batch).transpose(0, 3, 1, 2).copy()
    bound = session.io_binding()
    bound.bind_ortvalue_input("image", onnxruntime.OrtValue.ortvalue_from_numpy(x, device, 0))
    bound.bind_output(session.get_outputs()[0].name, device)

    def wait(_: None) -> Any:
        bound.synchronize_outputs()
        return bound

    return Contender(
        start=lambda: session.run_with_iobinding(bound),
        wait=wait,
        fetch=lambda bound: bound.copy_outputs_to_cpu()[0].transpose(0, 2, 3, 1),
    )


def openvino_model(hint: str, graph: bytes, size: int, batch: int) -> Contender:
    """OpenVINO on the exported graph, on the CPU; hint: f32 or bf16."""
    import openvino

    core = openvino.Core()
    network = core.read_model(graph)
    network.reshape([batch, 1, size, size])
    model = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    x = images_of(size, batch).transpose(0, 3, 1, 2).copy()
    return Contender(
        start=lambda: model(x)[0], fetch=lambda found: found.transpose(0, 2, 3, 1).copy()
    )


def contenders(size: int, batch: int) -> dict[str, Build]:
    """All whose libraries are installed and use the device.

    OpenVINO takes its input from the host and gives its output back to it, where it runs.
    """
    variables = variables_of()
    arguments = {"variables": variables, "size": size, "batch": batch}
    found: dict[str, Build] = {
        OURS["float32"]: functools.partial(ours, jnp.float32, **arguments),
        OURS["bfloat16"]: functools.partial(ours, jnp.bfloat16, **arguments),
    }
    for name, way in torch_ways().items():
        found[name] = functools.partial(twin, *way, **arguments)
    if installed("onnxruntime", "onnx") and onnxruntime_fits():
        arguments = {"graph": onnx_graph(variables, size), "size": size, "batch": batch}
        found["onnxruntime float32"] = functools.partial(onnxruntime_session, **arguments)
        if installed("openvino") and jax.default_backend() == "cpu":
            found["openvino float32"] = functools.partial(openvino_model, "f32", **arguments)
            found["openvino bfloat16"] = functools.partial(openvino_model, "bf16", **arguments)
    return found


def measure(case: Case, rates: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One size and batch: every contender's row, how far its output is from ours, the limit."""
    size, batch = case
    comparison = Comparison(contenders(size, batch), batch, options)
    comparison.run()
    _, reference = ours(jnp.float32, variables_of(), size, batch).first()
    for name, row in comparison.rows.items():
        row["largest_difference"] = float(np.abs(comparison.outputs[name] - reference).max())
    least = {"float32": least_seconds(size, batch, rates["float32"], bytes_each=4)}
    if rates["bfloat16"]["operations"] > rates["float32"]["operations"]:  # else it is no limit
        least["bfloat16"] = least_seconds(size, batch, rates["bfloat16"], bytes_each=2)
    return {"size": size, "batch": batch, "contenders": comparison.rows, "least_seconds": least}


def first_slice(size: int, turns: int = 3) -> dict[str, dict[str, Any]]:
    """Seconds of import, of the backend with weights, and of the first slice in a fresh process.

    Without the compilation cache, and with the one that the process before it left.
    """
    samples: dict[str, list[list[float]]] = {"cold": [], "cached": []}
    for _ in range(turns):
        with tempfile.TemporaryDirectory() as cache:
            for taken in samples.values():
                out = subprocess.run(
                    [sys.executable, "-c", FIRST_SLICE, str(size)],
                    env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                taken.append([float(word) for word in out.stdout.split()])
    stages = ("import", "backend_and_weights", "first_slice")
    return {
        name: {stage: spread([turn[place] for turn in taken]) for place, stage in enumerate(stages)}
        for name, taken in samples.items()
    }


def share_of_limit(part: dict[str, Any], name: str) -> str:
    """A cell of the table; empty where XLA's product is no faster in that precision."""
    least = part["least_seconds"].get(kind_of(name))
    return f"{least / part['contenders'][name]['median']:.0%}" if least else ""


def difference(part: dict[str, Any], name: str) -> str:
    """Another."""
    return f"{part['contenders'][name]['largest_difference']:.1e}"


COLUMNS = {"share of the limit": share_of_limit, "largest difference": difference}


def main() -> None:
    """Measures and writes JSON, Markdown and plot."""
    options = flags(__doc__.splitlines()[0], [(512, 1)])
    rates = {
        kind: machine_rates(dtype)
        for kind, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16))
    }
    measured: list[dict[str, Any]] = []
    record = {
        "measured": measured,
        "machine_rates": rates,
        "stages_at_512": stages(512),
        "first_slice": first_slice(512),
        "paper_seconds": PAPER,
    }
    for case in options.cases:
        measured.append(measure(case, rates, options))
        print(table(measured[-1:], COLUMNS), flush=True)
        write(options, "latency", record, table(measured, COLUMNS))  # should the next one fail
    plot(measured, options.out.with_suffix(".png"), line=("the paper: 0.29 s, Quadro P5000", PAPER))


if __name__ == "__main__":
    main()
