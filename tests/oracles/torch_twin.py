"""The network and its loss once more, in PyTorch: an oracle for the JAX ones.

Written from the method's description, not from covid_jax, so that an error in one of the two shows
as a difference: same parameters, same images, same logits, same gradients. "The paper" is Zhou,
Canu and Ruan (2020), arXiv 2004.06673; "inferred" marks a choice on which it is silent.
Arrays are NCHW here, NHWC in covid_jax; the only thing shared is the names of the parameters.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

ATTENTIONS = ("encoder_decoder", "skip", "none")

Path = tuple[str, ...]


class ConvBlock(nn.Module):
    """3x3 convolution, instance norm, LeakyReLU: (B, I, H, W) -> (B, O, H/stride, W/stride).

    The norm's place, its 1e-5 and the slope are inferred. Padding is Keras' SAME: what an axis
    lacks is split in two and the odd pixel goes below and right, so that stride 2 on an even size
    pads nothing above and left.
    """

    def __init__(self, inputs: int, outputs: int, slope: float, stride: int = 1, dilation: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, dilation=dilation)
        self.norm = nn.InstanceNorm2d(outputs, eps=1e-5, affine=True)
        self.slope, self.stride, self.dilation = slope, stride, dilation

    def _padding(self, size: int) -> tuple[int, int]:
        reach = 2 * self.dilation + 1
        lacking = max((-(-size // self.stride) - 1) * self.stride + reach - size, 0)
        return lacking // 2, lacking - lacking // 2

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = map(self._padding, x.shape[-2:])
        even = (top, left) == (bottom, right)
        if not even:  # the convolution itself can only pad both sides alike
            x = functional.pad(x, (left, right, top, bottom))
        x = functional.conv2d(
            x,
            self.conv.weight,
            self.conv.bias,
            self.stride,
            (top, left) if even else 0,
            self.dilation,
        )
        return functional.leaky_relu(self.norm(x), self.slope)


class ResDil(nn.Module):
    """Two blocks of dilations 2 and 4 plus their input: (B, C, H, W) -> the same shape.

    The paper, Fig. 3 and Eq. 3. No activation follows the sum (inferred).
    """

    def __init__(self, channels: int, slope: float):
        super().__init__()
        self.first = ConvBlock(channels, channels, slope, dilation=2)
        self.second = ConvBlock(channels, channels, slope, dilation=4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class SCSE(nn.Module):
    """The sum of channel and spatial attention: (B, C, H, W) -> the same shape. The paper, Eq. 7.

    A gate per channel, from the global average through C -> C/2 -> C, and a gate per pixel, from
    its C channels. None of the three maps has a bias.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 2, bias=False)
        self.excite = nn.Linear(channels // 2, channels, bias=False)
        self.spatial = nn.Linear(channels, 1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        per_channel = torch.sigmoid(self.excite(torch.relu(self.squeeze(z.mean(dim=(2, 3))))))
        per_pixel = torch.sigmoid(functional.conv2d(z, self.spatial.weight[:, :, None, None]))
        return z * per_channel[:, :, None, None] + z * per_pixel


class TorchTwin(nn.Module):
    """Encoder, decoder and summed heads: images (B, 1, H, W) -> logits (B, C, H, W).

    C is 1 for one lesion class and K + 1, background first, for K > 1. Levels count from 1, the
    finest, to L = len(features); H and W are multiples of 2 ** (L - 1).

    Args:
      num_classes: the number K of lesion classes.
      features: channels per level, finest first.
      attention: where scSE stands. "encoder_decoder": after every level of both, and its output
        goes on to the next level and to the skip; "skip": on the skips alone; "none": nowhere.
      negative_slope: LeakyReLU's (inferred: 0.3, as in Keras).
    """

    def __init__(
        self,
        num_classes: int = 1,
        features: Sequence[int] = (32, 64, 128, 256, 512),
        attention: str = "encoder_decoder",
        negative_slope: float = 0.3,
    ):
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {ATTENTIONS}, got {attention!r}")
        if len(features) < 2:
            raise ValueError(f"features needs two levels or more, got {tuple(features)}")
        self.levels, self.attention = len(features), attention
        self.heads = min(3, self.levels - 1)
        outputs = num_classes + 1 if num_classes > 1 else 1
        parts: dict[str, nn.Module] = {}
        before = 1
        for i, width in enumerate(features, start=1):
            stride = 1 if i == 1 else 2
            parts[f"encoder{i}_conv"] = ConvBlock(before, width, negative_slope, stride=stride)
            parts[f"encoder{i}_resdil"] = ResDil(width, negative_slope)
            here = attention == "encoder_decoder" or (attention == "skip" and i < self.levels)
            parts[f"encoder{i}_scse"] = SCSE(width) if here else nn.Identity()
            before = width
        for i in range(self.levels - 1, 0, -1):
            width = features[i - 1]
            parts[f"decoder{i}_up"] = ConvBlock(features[i], width, negative_slope)
            parts[f"decoder{i}_merge"] = ConvBlock(2 * width, width, negative_slope)
            parts[f"decoder{i}_resdil"] = ResDil(width, negative_slope)
            here = attention == "encoder_decoder"
            parts[f"decoder{i}_scse"] = SCSE(width) if here else nn.Identity()
            if i <= self.heads:
                parts[f"head{i}"] = nn.Conv2d(width, outputs, 1)
        self.parts = nn.ModuleDict(parts)
        for path, parameter in _leaves(self).items():  # glorot-uniform, biases zero (inferred)
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            elif path[-1] == "bias":
                nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        parts, x, skips = self.parts, images, []
        for i in range(1, self.levels + 1):
            x = parts[f"encoder{i}_resdil"](parts[f"encoder{i}_conv"](x))
            skips.append(parts[f"encoder{i}_scse"](x))
            if self.attention == "encoder_decoder":
                x = skips[-1]
        logits = None
        for i in range(self.levels - 1, 0, -1):
            up = parts[f"decoder{i}_up"](_twice(x))
            x = parts[f"decoder{i}_merge"](torch.cat([skips[i - 1], up], dim=1))
            x = parts[f"decoder{i}_scse"](parts[f"decoder{i}_resdil"](x))
            if i <= self.heads:  # deep supervision: the heads' sum is the output
                head = parts[f"head{i}"](x)
                logits = head if logits is None else head + _twice(logits)
        return logits


def focal_tversky_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float = 0.7,
    beta: float = 0.3,
    gamma: float = 4 / 3,
    smooth: float = 1e-6,
) -> Tensor:
    """The paper's (1 - TI) ** (1 / gamma), one class: logits and labels (B, 1, H, W) -> (B,).

    In the Tversky index TI alpha weights the false negatives and beta the false positives. Left as
    the formula stands: where TI = 1 its gradient is not finite.
    """
    if logits.shape != labels.shape or logits.ndim != 4 or logits.shape[1] != 1:
        raise ValueError(f"expected twice (B, 1, H, W), got {logits.shape} and {labels.shape}")
    p, g = torch.sigmoid(logits), labels.to(logits.dtype)
    overlap, missed, invented = (x.sum(dim=(1, 2, 3)) for x in (p * g, (1 - p) * g, p * (1 - g)))
    tversky = (overlap + smooth) / (overlap + alpha * missed + beta * invented + smooth)
    return (1 - tversky) ** (1 / gamma)


def load_jax_params(twin: TorchTwin, params: Mapping[str, Any]) -> None:
    """Copies covid_jax's parameter tree, nested mappings of arrays, into the twin, in place.

    Raises:
      ValueError: a leaf is missing, left over or of another shape.
    """
    given, wanted = _flatten(params), _leaves(twin)
    if given.keys() != wanted.keys():
        missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
        raise ValueError(f"the trees differ: missing {missing}, left over {extra}")
    with torch.no_grad():
        for path, parameter in wanted.items():
            array = _to_torch(np.asarray(given[path]))
            if array.shape != tuple(parameter.shape):
                raise ValueError(f"{path}: {array.shape} for {tuple(parameter.shape)} in torch")
            parameter.copy_(torch.from_numpy(array))


def load_bundle(folder: str | pathlib.Path) -> TorchTwin:
    """The twin of a network that was exported with ``covid-jax export --format bundle``."""
    from safetensors.numpy import load_file

    settings = json.loads((pathlib.Path(folder) / "config.json").read_text(encoding="utf-8"))[
        "config"
    ]
    model = settings["model"]
    twin = TorchTwin(
        num_classes=max(1, len(settings["data"]["classes"])),
        features=model["features"],
        attention=model["attention"],
        negative_slope=model["negative_slope"],
    )
    tensors = load_file(pathlib.Path(folder) / "model.safetensors")
    params = _unflatten({tuple(name.split(".")): array for name, array in tensors.items()})
    load_jax_params(twin, params)
    return twin


def export_params(twin: TorchTwin) -> dict[str, Any]:
    """The parameters as a tree of arrays, named and shaped as covid_jax's."""
    return _unflatten({path: _to_jax(p.detach().numpy()) for path, p in _leaves(twin).items()})


def export_grads(twin: TorchTwin) -> dict[str, Any]:
    """The gradients that `backward()` left, as a tree like that of `export_params`."""
    return _unflatten({path: _to_jax(p.grad.numpy()) for path, p in _leaves(twin).items()})


def _twice(x: Tensor) -> Tensor:
    """Nearest-neighbour upsampling: (B, C, H, W) -> (B, C, 2H, 2W)."""
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def _leaves(twin: TorchTwin) -> dict[Path, nn.Parameter]:
    """The twin's parameters under the names of covid_jax's tree."""
    leaves: dict[Path, nn.Parameter] = {}
    for name, module in twin.parts.named_modules():
        path = tuple(name.split("."))
        if isinstance(module, nn.Linear):
            leaves[path] = module.weight
        elif isinstance(module, nn.Conv2d | nn.InstanceNorm2d):
            weight = "kernel" if isinstance(module, nn.Conv2d) else "scale"
            leaves |= {(*path, weight): module.weight, (*path, "bias"): module.bias}
    return leaves


def _flatten(tree: Mapping[str, Any], parents: Path = ()) -> dict[Path, Any]:
    leaves: dict[Path, Any] = {}
    for name, node in tree.items():
        path = (*parents, name)
        leaves |= _flatten(node, path) if isinstance(node, Mapping) else {path: node}
    return leaves


def _unflatten(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (*parents, name), leaf in leaves.items():
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def _to_torch(array: np.ndarray) -> np.ndarray:
    """(h, w, in, out) -> (out, in, h, w); (in, out) -> (out, in); vectors stay as they are."""
    return np.array(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T)


def _to_jax(array: np.ndarray) -> np.ndarray:
    """The inverse of `_to_torch`."""
    return np.array(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T)
