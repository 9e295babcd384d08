"""Operations and least bytes of the network, by its definition, and what rates a machine has."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.speed.timing import in_turns

FEATURES = (32, 64, 128, 256, 512)


def stages(
    size: int, batch: int = 1, features: Sequence[int] = FEATURES
) -> dict[str, dict[str, float]]:
    """Multiply-adds (as two operations) and least bytes of each stage for one slice, float32.

    The convolutions' operations alone: they are 99 %. Least bytes: each stage reads its input and
    writes its output once, and its weights once for a batch, as if all between stayed on the chip.

    Args:
      size: side of the slice.
      batch: slices that share one reading of the weights.
      features: channels of each level.
    """
    found: dict[str, dict[str, float]] = {}

    def stage(
        name: str, side: int, convolutions: Sequence[tuple[int, int, int]], reads: int
    ) -> None:
        weights = sum(k * k * i * o for k, i, o in convolutions)
        out = convolutions[-1][2]
        found[name] = {
            "operations": 2.0 * side * side * weights,
            "bytes": 4.0 * (reads + weights / batch + side * side * out),
        }

    before, side_before = 1, size
    for level, width in enumerate(features):
        side = size // 2**level
        reads = side_before**2 * before
        stage(f"encoder{level + 1}", side, [(3, before, width), *[(3, width, width)] * 2], reads)
        before, side_before = width, side
    for level in range(len(features) - 1, 0, -1):
        width, side = features[level - 1], size // 2 ** (level - 1)
        convolutions = [
            (2, features[level], width),  # folded: 2 x 2 taps for each pixel of the doubled grid
            (3, 2 * width, width),
            *[(3, width, width)] * 2,
        ]
        reads = (side // 2) ** 2 * features[level] + side**2 * width
        stage(f"decoder{level}", side, convolutions, reads)
    return found


def machine_rates(dtype: Any = jnp.float32, turns: int = 5) -> dict[str, float]:
    """Operations a second of a large matrix product, and bytes a second of a large copy."""
    on_cpu = jax.default_backend() == "cpu"
    side, length = (2048, 2**26) if on_cpu else (8192, 2**29)
    times = 1 if on_cpu else 20  # begun one after the other: a launch takes as long as a copy
    a = jnp.ones((side, side), dtype)
    x = jnp.ones(length, jnp.uint8)
    product, copy = jax.jit(lambda a: a @ a), jax.jit(lambda x: x + jnp.uint8(1))
    seconds = in_turns(
        {
            "product": lambda: [product(a) for _ in range(times)][-1],
            "copy": lambda: [copy(x) for _ in range(times)][-1],
        },
        turns,
    )
    return {
        "operations": 2.0 * side**3 * times / min(seconds["product"]),
        "bytes": 2.0 * length * times / min(seconds["copy"]),
    }


def least_seconds(size: int, batch: int, rates: dict[str, float], bytes_each: int) -> float:
    """Time of a slice if every stage ran at the rate of whatever limits it more.

    By the convolutions' definition: Winograd's algorithm multiplies less (models/cpu_conv.py).
    """
    return math.fsum(
        max(s["operations"] / rates["operations"], s["bytes"] * bytes_each / 4 / rates["bytes"])
        for s in stages(size, batch).values()
    )
