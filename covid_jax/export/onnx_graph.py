"""The network as a list of ONNX operators for NCHW, from its parameters. Knows no onnx library.

Equal to ``covid_jax.models.SCSEUNet`` except for rounding. Three simplifications are exact: a bias
that the following norm cancels is omitted; upsampling and the 3x3 convolution after it become one
transposed convolution with a 4x4 kernel of sums of the taps that read the same pixel; and
``z * channel + z * pixel`` is ``z * (channel + pixel)``.
"""

import functools
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from covid_jax.runs.config import ModelConfig
from covid_jax.transforms.preprocessing import Normalization

Params = Mapping[str, Any]
Node = tuple[str, tuple[str, ...], str, dict[str, Any]]  # kind, inputs, output, attributes


class NetworkGraph:
    """From raw intensities ``image`` (B, 1, S, S) to ``probabilities`` (B, C, S, S).

    Names begin with the part of the network they belong to, so that a quantizer can exclude it:
    ``normalization``, or the parameters' own, such as ``encoder1_conv``.

    Args:
      params: of the network.
      config: of the network.
      normalization: of raw intensities.

    Attributes:
      nodes: operators in the order of computation; each uses only what comes before it.
      weights: the arrays they use, by name, float32.
    """

    def __init__(self, params: Params, config: ModelConfig, normalization: Normalization) -> None:
        self.nodes: list[Node] = []
        self.weights: dict[str, np.ndarray] = {}
        self._params, self._config, self._part = params, config, "normalization"
        logits = self._logits(self._normalize("image", normalization))
        one = params["head1"]["bias"].shape == (1,)
        kind, attributes = ("Sigmoid", {}) if one else ("Softmax", {"axis": 1})
        self.nodes.append((kind, (logits,), "probabilities", attributes))

    def _add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Appends an operator; the name of its output."""
        output = f"{self._part}/{kind}_{len(self.nodes)}"
        self.nodes.append((kind, inputs, output, attributes))
        return output

    def _weight(self, name: str, array: Any) -> str:
        """Stores an array under a name, and returns the name."""
        self.weights[name] = np.ascontiguousarray(array, np.float32)
        return name

    def _logits(self, x: str) -> str:
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
        logits = ""
        for level in range(levels - 1, 0, -1):
            name = f"decoder{level}"
            x = self._add("Concat", skips[level - 1], self._up(x, f"{name}_up"), axis=1)
            x = self._conv_block(x, f"{name}_merge")
            x = self._resdil(x, f"{name}_resdil")
            if attention == "encoder_decoder":
                x = self._scse(x, f"{name}_scse")
            if level <= 3:
                head = self._head(x, f"head{level}")
                logits = self._add("Add", self._twice(logits), head) if logits else head
        return logits

    def _conv_block(self, x: str, name: str, strides: int = 1, dilation: int = 1) -> str:
        self._part = name
        # SAME on even sides: at stride 2 all of the padding falls below and right.
        pads = [0, 0, 1, 1] if strides == 2 else [dilation] * 4
        steps = {"strides": [strides, strides], "dilations": [dilation, dilation]}
        kernel = self._kernel(f"{name}.conv.kernel")
        y = self._add("Conv", x, kernel, kernel_shape=[3, 3], pads=pads, **steps)
        return self._norm(y, name)

    def _up(self, x: str, name: str) -> str:
        self._part = name
        kernel = doubled(np.asarray(self._find(f"{name}.conv.kernel"))).transpose(2, 3, 0, 1)
        weight = self._weight(f"{name}.conv.kernel", kernel)
        sizes = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        return self._norm(self._add("ConvTranspose", x, weight, **sizes), name)

    def _norm(self, x: str, name: str) -> str:
        parts = (f"{name}.norm.scale", f"{name}.norm.bias")
        weights = [self._weight(part, self._find(part)) for part in parts]
        y = self._add("InstanceNormalization", x, *weights, epsilon=1e-5)
        return self._add("LeakyRelu", y, alpha=self._config.negative_slope)

    def _resdil(self, x: str, name: str) -> str:
        y = self._conv_block(x, f"{name}.first", dilation=2)
        y = self._conv_block(y, f"{name}.second", dilation=4)
        self._part = name
        return self._add("Add", x, y)

    def _scse(self, x: str, name: str) -> str:
        self._part = name
        mean = self._add("GlobalAveragePool", x)
        squeezed = self._add("Relu", self._pointwise(mean, f"{name}.squeeze"))
        channel = self._add("Sigmoid", self._pointwise(squeezed, f"{name}.excite"))
        pixel = self._add("Sigmoid", self._pointwise(x, f"{name}.spatial"))
        return self._add("Mul", x, self._add("Add", channel, pixel))

    def _pointwise(self, x: str, name: str) -> str:
        """A matrix (in, out) as a 1x1 convolution."""
        matrix = np.asarray(self._find(name))
        return self._add("Conv", x, self._weight(name, matrix.T[:, :, None, None]))

    def _head(self, x: str, name: str) -> str:
        self._part = name
        bias = self._weight(f"{name}.bias", self._find(f"{name}.bias"))
        return self._add("Conv", x, self._kernel(f"{name}.kernel"), bias)

    def _twice(self, x: str) -> str:
        """Each pixel repeated 2 x 2."""
        modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        scale = self._weight("twice", [1, 1, 2, 2])
        return self._add("Resize", x, "", scale, mode="nearest", **modes)

    def _find(self, name: str) -> Any:
        """A parameter, or a group of them, by its name with dots."""
        return functools.reduce(operator.getitem, name.split("."), self._params)

    def _kernel(self, name: str) -> str:
        """Stores a kernel in the order of ONNX: (out, in, rows, columns)."""
        return self._weight(name, np.asarray(self._find(name)).transpose(3, 2, 0, 1))

    def _normalize(self, images: str, normalization: Normalization) -> str:
        """The arithmetic of ``preprocessing.normalize``, on float32 intensities."""
        if normalization.mean is None or normalization.std is None:
            return self._standardize(images)
        above = self._add("Sub", images, self._weight("normalization.mean", normalization.mean))
        x = self._add("Div", above, self._weight("normalization.std", normalization.std))
        if not normalization.clip:
            return x
        limits = self._weight("normalization.low", -1.0), self._weight("normalization.high", 1.0)
        return self._add("Clip", x, *limits)

    def _standardize(self, images: str) -> str:
        """Z-score of each slice; centred twice, as the mean of large values is rounded."""
        magnitude = self._add("GlobalMaxPool", self._add("Abs", images))
        # Squares beyond 1e38 or below 1e-38 leave float32: powers of two keep every digit.
        scale = self._weight("one", 1.0)
        for kind, limit in (("Greater", 50), ("Less", -50)):
            beyond = self._add(kind, magnitude, self._weight(f"normalization.{kind}", 2.0**limit))
            factor = self._weight(f"normalization.{kind}.factor", 2.0 ** (-1.6 * limit))
            scale = self._add("Where", beyond, factor, scale)
        x, magnitude = (self._add("Mul", part, scale) for part in (images, magnitude))
        for _ in range(2):
            x = self._add("Sub", x, self._add("GlobalAveragePool", x))
        spread = self._add("Sqrt", self._add("GlobalAveragePool", self._add("Mul", x, x)))
        rounding = self._add("Mul", magnitude, self._weight("normalization.rounding", 1e-5))
        flat = self._add("LessOrEqual", spread, rounding)
        score = self._add("Div", x, self._add("Where", flat, "one", spread))
        return self._add("Where", flat, self._weight("zero", 0.0), score)


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
