"""Each convolution of the network on a GPU, forward and both gradients, in bfloat16 and float32.

    python -m benchmarks.speed.gpu.convolutions

Prints the rate of each, or why it failed. Never run on a GPU yet.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

LEVELS = ((32, 512), (64, 256), (128, 128), (256, 64), (512, 32))  # channels, side
KINDS = ((1, 1), (1, 2), (1, 4), (2, 1))  # stride, dilation
BATCH, CALLS = 8, 20


def seconds(call: Callable[[], Any]) -> float:
    """Of one call, when many are begun one after the other."""
    jax.block_until_ready(call())
    started = time.perf_counter()
    jax.block_until_ready([call() for _ in range(CALLS)])
    return (time.perf_counter() - started) / CALLS


def main() -> None:
    """Prints a line for each."""
    print(jax.__version__, jax.devices()[0].device_kind)
    for dtype in (jnp.bfloat16, jnp.float32):
        for channels, side in LEVELS:
            for stride, dilation in KINDS:
                report(dtype, channels, side, stride, dilation)


def report(dtype: Any, channels: int, side: int, stride: int, dilation: int) -> None:
    """Forward, gradient of the input, gradient of the weights."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            "SAME",
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    x = jnp.ones((BATCH, side, side, channels), dtype)
    kernel = jnp.ones((3, 3, channels, channels), dtype)
    g = jnp.ones((BATCH, side // stride, side // stride, channels), dtype)
    ways = {
        "forward": jax.jit(lambda x, k, g: convolve(x, k)),
        "input": jax.jit(lambda x, k, g: jax.vjp(convolve, x, k)[1](g)[0]),
        "weights": jax.jit(lambda x, k, g: jax.vjp(convolve, x, k)[1](g)[1]),
    }
    operations = 2 * kernel.size * g.size / channels
    for name, way in ways.items():
        what = f"{x.dtype} {channels} x {side} stride {stride} dilation {dilation} {name}"
        try:
            taken = seconds(lambda: way(x, kernel, g))  # noqa: B023
            print(f"{what}: {1e6 * taken:.0f} us, {operations / taken / 1e12:.1f} TFLOP/s")
        except jax.errors.JaxRuntimeError as error:
            print(f"{what}: FAILED {str(error)[:200]}")


if __name__ == "__main__":
    main()
