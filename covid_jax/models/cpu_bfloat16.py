"""bfloat16 convolutions on a CPU, only for forward passes.

XLA computes a bfloat16 convolution on a CPU in float32 unless an experimental compiler option hands
it to oneDNN, which jaxlib contains. A program compiled so has two faults in jaxlib 0.12: on a
processor with AMX the weight gradient of a convolution is wrong (benchmarks/onednn_gradient.md),
and it cannot be written to the compilation cache. ``jit_forward`` therefore tests the option
before its first use, writes nothing to the cache, and gives functions that cannot be
differentiated.
"""

import functools
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

Function = Callable[..., Any]
OPTION = {"xla_cpu_experimental_onednn_custom_call": True}
_CACHED_FROM = "jax_persistent_cache_min_compile_time_secs"
_COMPILING = threading.Lock()
_KINDS = (  # of the network's convolutions: kernel, stride, dilation, padding
    *((3, stride, dilation, "SAME") for stride, dilation in ((1, 1), (1, 2), (1, 4), (2, 1))),
    (2, 1, 1, ((1, 0), (0, 1))),
)


def jit_forward(function: Function, dtype: DTypeLike, **options: Any) -> Function:
    """``jax.jit`` for a forward pass that computes its bfloat16 convolutions in bfloat16 on a CPU.

    Args:
      function: of arrays alone.
      dtype: of its convolutions.
      options: of ``jax.jit``.

    Returns:
      The compiled function. Where the option is used, it raises TypeError on being differentiated
      or called within another compiled function.
    """
    jitted = jax.jit(function, **options)
    if jnp.dtype(dtype) != jnp.bfloat16 or jax.default_backend() != "cpu" or slow_bfloat16():
        return jitted
    programs: dict[Any, Function] = {}

    def forward(*arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten(arguments)
        signature = (structure, *map(jax.typeof, leaves))
        if signature not in programs:
            programs[signature] = _compile(jitted, arguments)
        return programs[signature](*arguments)

    return forward


@functools.cache
def slow_bfloat16() -> str:
    """Why bfloat16 is not faster than float32 on this device (a CPU is tested once); else empty."""
    if jax.default_backend() != "cpu":
        return ""
    if not {"avx512_bf16", "amx_bf16"} & _processor_flags():
        return "this processor has no bfloat16 instructions"
    try:
        return "" if _is_exact() else "jaxlib's bfloat16 convolutions failed a test on it"
    except jax.errors.JaxRuntimeError:  # an option that it does not know
        return f"the jaxlib of jax {jax.__version__} has no bfloat16 convolutions for a CPU"


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return set()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


def _compile(jitted: Any, arguments: tuple[Any, ...]) -> Any:
    lowered = jitted.lower(*arguments)
    with _COMPILING:
        before = getattr(jax.config, _CACHED_FROM)
        jax.config.update(_CACHED_FROM, math.inf)
        try:
            return lowered.compile(OPTION)
        finally:
            jax.config.update(_CACHED_FROM, before)


def _is_exact() -> bool:
    """Whether oneDNN's convolutions of small whole numbers, exact in bfloat16, are correct."""
    rng = np.random.default_rng(0)
    x = rng.integers(-1, 2, (2, 16, 16, 16)).astype(np.float32)
    kernels = [rng.integers(-1, 2, (k, k, 16, 16)).astype(np.float32) for k, *_ in _KINDS]

    def convolve(x: Any, kernels: Any) -> list[Any]:
        numbers = ("NHWC", "HWIO", "NHWC")
        return [
            jax.lax.conv_general_dilated(x, kernel, (s, s), pad, None, (d, d), numbers)
            for kernel, (_, s, d, pad) in zip(kernels, _KINDS, strict=True)
        ]

    jitted, low = jax.jit(convolve), jax.tree.map(lambda a: a.astype(jnp.bfloat16), (x, kernels))
    fast, expected = _compile(jitted, low), jitted(x, kernels)
    if fast.as_text().count('"__onednn$convolution"') != len(_KINDS):
        raise jax.errors.JaxRuntimeError("the option is known and has no effect")
    return all(
        np.array_equal(found.astype(jnp.float32), right)
        for found, right in zip(fast(*low), expected, strict=True)
    )
