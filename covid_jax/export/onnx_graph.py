"""The network as a list of ONNX operators for NCHW, from its parameters. Knows no onnx library.

Equal to ``covid_jax.models.SCSEUNet`` but for rounding. Three things are folded, all exactly: a
bias that a norm takes out again is left away; doubling the grid and the 3x3 convolution after it
are one transposed convolution, whose 4x4 kernel holds the sums of the taps that meet a pixel;
``z * channel + z * pixel`` is ``z * (channel + pixel)``.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from covid_jax.runs.config import ModelConfig
from covid_jax.transforms.preprocessing import Normalization

Params = Mapping[str, Any]


class Node(NamedTuple):
    """One operator: its kind, the names of inputs and output, its attributes."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class Graph:
    """Operators in the order of computation, and the arrays they use, by name.

    Attributes:
      nodes: each uses only what comes before it.
      weights: float32.
      part: what is written now. Names begin with it, so that a quantizer can leave a part alone:
        ``normalization``, or the parameters' own, such as ``encoder1_conv``.
    """

    def __init__(self) -> None:
        self.part = ""
        self.nodes: list[Node] = []
        self.weights: dict[str, np.ndarray] = {}

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Appends an operator; the name of its output."""
        output = f"{self.part}/{kind}_{len(self.nodes)}"
        self.nodes.append(Node(kind, inputs, output, attributes))
        return output

    def weight(self, name: str, array: Any) -> str:
        """Keeps an array under a name, which it returns."""
        self.weights[name] = np.ascontiguousarray(array, np.float32)
        return name


def write_network(
    graph: Graph,
    images: str,
    params: Params,
    config: ModelConfig,
    normalization: Normalization,
    output: str,
) -> None:
    """Appends everything from raw intensities (B, 1, S, S) to probabilities (B, C, S, S).

    Args:
      graph: to append to.
      images: name of the input.
      params: of the network.
      config: of the network.
      normalization: of raw intensities.
      output: name for the result.
    """
    graph.part = "normalization"
    x = _normalize(graph, images, normalization)
    logits = _Network(graph, params, config).logits(x)
    one = params["head1"]["bias"].shape == (1,)
    final = ("Sigmoid", {}) if one else ("Softmax", {"axis": 1})
    graph.nodes.append(Node(final[0], (logits,), output, final[1]))


class _Network:
    """Writes the blocks of covid_jax.models, each under the name of its parameters."""

    def __init__(self, graph: Graph, params: Params, config: ModelConfig) -> None:
        self._graph = graph
        self._params = params
        self._config = config

    def logits(self, x: str) -> str:
        levels, attention = len(self._config.features), self._config.attention
        skips = []
        for level in range(1, levels + 1):
            name = f"encoder{level}"
            x = self._conv_block(x, f"{name}_conv", strides=1 if level == 1 else 2)
            x = skip = self._resdil(x, f"{name}_resdil")
            if attention == "encoder_decoder":
                x = skip = self._scse(x, f"{name}_scse")
            elif attention == "skip" and level < levels:
                skip = self._scse(x, f"{name}_scse")
            skips.append(skip)
        logits = None
        for level in range(levels - 1, 0, -1):
            name = f"decoder{level}"
            x = self._graph.add("Concat", skips[level - 1], self._up(x, f"{name}_up"), axis=1)
            x = self._conv_block(x, f"{name}_merge")
            x = self._resdil(x, f"{name}_resdil")
            if attention == "encoder_decoder":
                x = self._scse(x, f"{name}_scse")
            if level <= 3:
                head = self._head(x, f"head{level}")
                logits = (
                    head if logits is None else self._graph.add("Add", self._twice(logits), head)
                )
        assert logits is not None
        return logits

    def _conv_block(self, x: str, name: str, strides: int = 1, dilation: int = 1) -> str:
        self._graph.part = name
        kernel = np.asarray(self._find(name)["conv"]["kernel"]).transpose(3, 2, 0, 1)
        y = self._graph.add(
            "Conv",
            x,
            self._graph.weight(f"{name}.conv.kernel", kernel),
            kernel_shape=[3, 3],
            strides=[strides, strides],
            dilations=[dilation, dilation],
            # SAME on even sides: at stride 2 all of the padding falls below and right.
            pads=[0, 0, 1, 1] if strides == 2 else [dilation] * 4,
        )
        return self._norm(y, name)

    def _up(self, x: str, name: str) -> str:
        self._graph.part = name
        kernel = np.asarray(self._find(name)["conv"]["kernel"])
        y = self._graph.add(
            "ConvTranspose",
            x,
            self._graph.weight(f"{name}.conv.kernel", doubled(kernel).transpose(2, 3, 0, 1)),
            kernel_shape=[4, 4],
            strides=[2, 2],
            pads=[1, 1, 1, 1],
        )
        return self._norm(y, name)

    def _norm(self, x: str, name: str) -> str:
        norm = self._find(name)["norm"]
        y = self._graph.add(
            "InstanceNormalization",
            x,
            self._graph.weight(f"{name}.norm.scale", norm["scale"]),
            self._graph.weight(f"{name}.norm.bias", norm["bias"]),
            epsilon=1e-5,
        )
        return self._graph.add("LeakyRelu", y, alpha=self._config.negative_slope)

    def _resdil(self, x: str, name: str) -> str:
        y = self._conv_block(x, f"{name}.first", dilation=2)
        y = self._conv_block(y, f"{name}.second", dilation=4)
        self._graph.part = name
        return self._graph.add("Add", x, y)

    def _scse(self, x: str, name: str) -> str:
        self._graph.part = name
        mean = self._graph.add("GlobalAveragePool", x)
        squeezed = self._graph.add("Relu", self._pointwise(mean, f"{name}.squeeze"))
        channel = self._graph.add("Sigmoid", self._pointwise(squeezed, f"{name}.excite"))
        pixel = self._graph.add("Sigmoid", self._pointwise(x, f"{name}.spatial"))
        return self._graph.add("Mul", x, self._graph.add("Add", channel, pixel))

    def _pointwise(self, x: str, name: str) -> str:
        """A matrix (in, out) as a 1x1 convolution."""
        matrix = np.asarray(self._find(name))
        return self._graph.add("Conv", x, self._graph.weight(name, matrix.T[:, :, None, None]))

    def _head(self, x: str, name: str) -> str:
        self._graph.part = name
        node = self._find(name)
        kernel = np.asarray(node["kernel"]).transpose(3, 2, 0, 1)
        return self._graph.add(
            "Conv",
            x,
            self._graph.weight(f"{name}.kernel", kernel),
            self._graph.weight(f"{name}.bias", node["bias"]),
        )

    def _twice(self, x: str) -> str:
        """Each pixel repeated 2 x 2."""
        return self._graph.add(
            "Resize",
            x,
            "",
            self._graph.weight("twice", [1, 1, 2, 2]),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def _find(self, name: str) -> Any:
        node: Any = self._params
        for part in name.split("."):
            node = node[part]
        return node


def doubled(kernel: Float[np.ndarray, "3 3 i o"]) -> Float[np.ndarray, "4 4 i o"]:
    """The transposed convolution (stride 2) that repeats pixels 2 x 2 and then convolves.

    A pixel's copy at offset 0 or 1 meets tap k of the kernel at output ``offset - k + 1``: tap
    ``offset - k + 2`` of the transposed kernel, which begins one output earlier.
    """
    taps = np.zeros((4, 4, *kernel.shape[2:]))
    for row in range(3):
        for column in range(3):
            taps[2 - row : 4 - row, 2 - column : 4 - column] += kernel[row, column]
    return taps


def _normalize(graph: Graph, images: str, normalization: Normalization) -> str:
    """The arithmetic of ``preprocessing.normalize``, on float32 intensities."""
    if normalization.mean is None or normalization.std is None:
        return _standardize(graph, images)
    above = graph.add("Sub", images, graph.weight("normalization.mean", normalization.mean))
    x = graph.add("Div", above, graph.weight("normalization.std", normalization.std))
    if not normalization.clip:
        return x
    limits = graph.weight("normalization.low", -1.0), graph.weight("normalization.high", 1.0)
    return graph.add("Clip", x, *limits)


def _standardize(graph: Graph, images: str) -> str:
    """Z-score of each slice; centred twice, as the mean of large values is rounded."""
    magnitude = graph.add("GlobalMaxPool", graph.add("Abs", images))
    # Squares of values beyond 1e19 or below 1e-19 leave float32: powers of two keep every digit.
    scale = graph.weight("one", 1.0)
    for kind, limit in (("Greater", 50), ("Less", -50)):
        beyond = graph.add(kind, magnitude, graph.weight(f"normalization.{kind}", 2.0**limit))
        factor = graph.weight(f"normalization.{kind}.factor", 2.0 ** (-1.6 * limit))
        scale = graph.add("Where", beyond, factor, scale)
    x, magnitude = (graph.add("Mul", part, scale) for part in (images, magnitude))
    for _ in range(2):
        x = graph.add("Sub", x, graph.add("GlobalAveragePool", x))
    spread = graph.add("Sqrt", graph.add("GlobalAveragePool", graph.add("Mul", x, x)))
    rounding = graph.add("Mul", magnitude, graph.weight("normalization.rounding", 1e-5))
    flat = graph.add("LessOrEqual", spread, rounding)
    divisor = graph.add("Where", flat, "one", spread)
    score = graph.add("Div", x, divisor)
    return graph.add("Where", flat, graph.weight("zero", 0.0), score)
