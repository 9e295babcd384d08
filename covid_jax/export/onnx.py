"""A run as an ONNX file that needs neither covid_jax nor JAX: raw slices in, probabilities out."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from covid_jax.errors import need
from covid_jax.export.metadata import channel_names, constants
from covid_jax.export.onnx_graph import NetworkGraph
from covid_jax.files import replacing
from covid_jax.inference import Run
from covid_jax.runs.provenance import NOTICE


def write_onnx(run: Run, out: Path) -> None:
    """Writes a run's network, float32 whatever it was trained with.

    The input ``image`` is (batch, 1, S, S) float32, raw intensities resized to the network's size
    S; the output ``probabilities`` is (batch, C, S, S), a sigmoid for one class, else a softmax
    with the background first. Normalization is part of the graph. The file's metadata hold
    ``covid_jax.export.metadata.constants``, each value as JSON.

    Args:
      run: the trained run.
      out: file to write.

    Raises:
      ConfigError: if onnx is not installed.
    """
    onnx = need("onnx", "--format onnx", "export")
    model = _model(run, onnx)
    onnx.checker.check_model(model, full_check=True)
    with replacing(out) as partial:
        partial.write_bytes(model.SerializeToString())


def _model(run: Run, onnx: ModuleType) -> Any:
    helper, from_array = onnx.helper, onnx.numpy_helper.from_array
    graph = NetworkGraph(run.params, run.config.model, run.normalization)
    size = run.config.data.image_size
    image, probabilities = (
        helper.make_tensor_value_info(name, 1, ["batch", channels, size, size])  # 1: float32
        for name, channels in (("image", 1), ("probabilities", len(channel_names(run))))
    )
    make = helper.make_node
    nodes = [make(kind, inputs, [out], name=out, **a) for kind, inputs, out, a in graph.nodes]
    weights = [from_array(np.asarray(array), name) for name, array in graph.weights.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "SCSEUNet", [image], [probabilities], weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,  # the one opset 17 came with: readers as old as the opset take the file
        producer_name="covid_jax",
        doc_string=NOTICE,
    )
    helper.set_model_props(model, {key: json.dumps(value) for key, value in constants(run).items()})
    return model
