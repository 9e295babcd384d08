"""The network of ``predict`` computed by OpenVINO or ONNX Runtime instead of jax, on the CPU."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

import covid_jax
from covid_jax.data.cache import Plan, open_arrays
from covid_jax.errors import ConfigError, DataError, need
from covid_jax.export.onnx import write_onnx
from covid_jax.files import cache_folder
from covid_jax.inference import Run
from covid_jax.prediction.find_scans import Source
from covid_jax.prediction.options import PredictOptions
from covid_jax.prediction.pipeline import load
from covid_jax.runs.digest import digest, named_leaves
from covid_jax.transforms.labels import predict_labels
from covid_jax.transforms.preprocessing import QuantizedSlices, pack

Program = Callable[[Float32[np.ndarray, "b 1 s s"]], Float32[np.ndarray, "b c s s"]]
_COMPARED = 3  # slices
_AGREE = 1e-4  # share of pixels whose labels may differ: rounding at the threshold


def use_runtime(run: Run, options: PredictOptions, scans: Sequence[Source]) -> str:
    """Makes a run predict by ``options.runtime``.

    Args:
      run: changed.
      options: of the prediction.
      scans: for ``auto``, which compares on the first.

    Returns:
      The runtime that is used from now on.

    Raises:
      ConfigError: if it is not installed, or cannot compute in the run's precision.
    """
    name = options.runtime
    installed = all(map(importlib.util.find_spec, ("openvino", "onnx")))
    if name == "jax" or (name == "auto" and not (installed and jax.default_backend() == "cpu")):
        return "jax"
    size = run.batch_of(2**30, options.batch_size)
    build = _onnxruntime if name == "onnxruntime" else _openvino
    programs = [build(member, size) for member in run.members]

    def forward(_, images: QuantizedSlices) -> np.ndarray:
        raw = np.asarray(images.decode(), np.float32)[:, None]
        return np.stack([np.moveaxis(program(raw), 1, -1) for program in programs], axis=1)

    if name != "auto" or _agree(run, options, scans[0], forward):
        run._forward = forward
        return "openvino" if name == "auto" else name
    return "jax"


def _agree(run: Run, options: PredictOptions, source: Source, forward: Callable[..., Any]) -> bool:
    """Whether jax and the other runtime give the same masks of a scan's middle slices."""
    try:
        scan = load(run, source, options)
    except DataError:  # which is reported when the scan is predicted
        return False
    middle = len(scan.stack) // 2
    chosen = slice(max(0, middle - 1), middle - 1 + _COMPARED)
    images = pack(list(scan.stack[chosen]), run.config.data.image_size, scan.form.slices[chosen])
    by_jax, labels = run._forward, []
    for way in (forward, by_jax):
        run._forward = way
        labels.append(np.asarray(predict_labels(run.predict_network(images), options.threshold)))
    return bool(np.mean(labels[0] != labels[1]) <= _AGREE)


def _graph(run: Run) -> bytes:
    """The exported network, written once for these weights and settings, and checked when read."""
    network = covid_jax.__version__, run.config.model, run.config.data.image_size, run.normalization
    settings = hashlib.blake2b(repr(network).encode(), digest_size=8).hexdigest()

    def build(folder: Path) -> Plan:
        path = folder / "graph.bin"
        write_onnx(run, path)
        return Plan(None, {"graph": ("uint8", (path.stat().st_size,))})

    name = digest(named_leaves(run.params)) + settings
    return open_arrays(cache_folder() / "onnx" / name, build).arrays["graph"].tobytes()


def _openvino(run: Run, batch: int) -> Program:
    # OpenVINO works without it; with it, importing OpenVINO forks a process that reports usage.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    openvino = need("openvino", "--runtime openvino", "openvino")
    hint = {"float32": "f32", "bfloat16": "bf16"}[run.config.model.precision]
    core, size = openvino.Core(), run.config.data.image_size
    network = core.read_model(_graph(run))
    network.reshape([batch if batch == 1 else -1, 1, size, size])
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return lambda images: compiled(images)[0].copy()


def _onnxruntime(run: Run, batch: int) -> Program:
    onnxruntime = need("onnxruntime", "--runtime onnxruntime", "onnxruntime")
    if run.config.model.precision != "float32":
        raise ConfigError("--runtime onnxruntime computes in float32: add --precision float32")
    session = onnxruntime.InferenceSession(_graph(run), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images})[0]
