"""bfloat16 convolutions on a CPU, and their gradients.

XLA computes a bfloat16 convolution on a CPU in float32 unless an experimental compiler option hands
it to oneDNN, which jaxlib contains. A program compiled so has two faults in jaxlib 0.12: on a
processor with AMX the weight gradient of a 3x3 convolution of stride 1 is wrong
(benchmarks/onednn_gradient.md), and it cannot be written to the compilation cache.
``jit_bfloat16`` therefore tests the option before its first use, gradients among it, writes nothing
to the cache, and gives functions that cannot be differentiated; ``conv3x3_bfloat16`` has a gradient
rule of its own.
"""

import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from covid_jax.parallel import processor

Function = Callable[..., Any]
OPTION = {"xla_cpu_experimental_onednn_custom_call": True}
_CACHED_FROM = "jax_persistent_cache_min_compile_time_secs"
_COMPILING = threading.Lock()
_KINDS: list[Any] = [  # of the network's convolutions: kernel, stride, dilation, padding
    *((3, stride, dilation, "SAME") for stride, dilation in ((1, 1), (1, 2), (1, 4), (2, 1))),
    (2, 1, 1, ((1, 0), (0, 1))),
]


def _convolve(
    x: Array, kernel: Array, stride: int = 1, dilation: int = 1, padding: Any = "SAME"
) -> Array:
    steps = (stride, stride), padding, None, (dilation, dilation), ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, *steps)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv3x3_bfloat16(x: Array, kernel: Array, dilation: int) -> Array:
    """A 3x3 convolution (SAME, zero padding, stride 1) with a weight gradient of its own.

    That is nine products, one for each tap, of the shifted features and the output's gradient. They
    are computed one after the other, so that only one shifted copy of x is in memory.

    Args:
      x: features (B, H, W, C).
      kernel: 3x3 kernel (HWIO).
      dilation: distance between the kernel's taps.

    Returns:
      Features (B, H, W, F), in x's dtype.
    """
    return _convolve(x, kernel, dilation=dilation)


def _backward(dilation: int, kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    of_x = jax.linear_transpose(lambda x: _convolve(x, kernel, dilation=dilation), x)(gradient)[0]
    padded = jnp.pad(x, ((0, 0), (dilation, dilation), (dilation, dilation), (0, 0)))
    columns = gradient.reshape(-1, gradient.shape[-1])

    def tap(nothing: None, place: Array) -> tuple[None, Array]:
        rows = jax.lax.dynamic_slice(padded, (0, *place, 0), x.shape).reshape(-1, x.shape[-1])
        return nothing, jnp.matmul(rows.T, columns, preferred_element_type=jnp.float32)

    places = jnp.asarray([(dilation * row, dilation * column) for row, column in np.ndindex(3, 3)])
    taps = jax.lax.scan(tap, None, places)[1]
    return of_x, taps.reshape(kernel.shape).astype(kernel.dtype)


conv3x3_bfloat16.defvjp(lambda *given: (conv3x3_bfloat16(*given), given[:2]), _backward)


def jit_bfloat16(function: Function, dtype: DTypeLike, **options: Any) -> Function:
    """``jax.jit`` for a function that computes its bfloat16 convolutions in bfloat16 on a CPU.

    Args:
      function: of arrays alone; its 3x3 convolutions of stride 1 are ``conv3x3_bfloat16`` if it
        computes gradients.
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

    def call(*arguments: Any) -> Any:
        leaves, structure = jax.tree.flatten(arguments)
        signature = (structure, *map(jax.typeof, leaves))
        if signature not in programs:
            programs[signature] = _compile(jitted, arguments)
        return programs[signature](*arguments)

    return call


@functools.cache
def slow_bfloat16() -> str:
    """Why bfloat16 is not faster than float32 on this device (a CPU is tested once); else empty."""
    if jax.default_backend() != "cpu":
        return ""
    if not {"avx512_bf16", "amx_bf16"} & set(processor("flags").split()):
        return "this processor has no bfloat16 instructions"
    try:
        return "" if _is_exact() else "jaxlib's bfloat16 convolutions failed a test on it"
    except jax.errors.JaxRuntimeError:  # an option that it does not know
        return f"the jaxlib of jax {jax.__version__} has no bfloat16 convolutions for a CPU"


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
    """Whether convolutions and gradients of small whole numbers, exact in bfloat16, are correct."""
    rng = np.random.default_rng(0)
    x = rng.integers(-1, 2, (2, 16, 16, 16)).astype(np.float32)
    kernels = [rng.integers(-1, 2, (k, k, 16, 16)).astype(np.float32) for k, *_ in _KINDS]

    def convolve(x: Array, kernels: Any) -> list[Array]:
        ours = x.dtype == jnp.bfloat16
        return [
            conv3x3_bfloat16(x, kernel, dilation)
            if ours and (side, stride) == (3, 1)
            else _convolve(x, kernel, stride, dilation, padding)
            for kernel, (side, stride, dilation, padding) in zip(kernels, _KINDS, strict=True)
        ]

    def results(x: Array, kernels: Any) -> Any:
        out, gradients = jax.vjp(convolve, x, kernels)
        return out, gradients(jax.tree.map(jnp.sign, out))

    jitted, low = jax.jit(results), jax.tree.map(lambda a: a.astype(jnp.bfloat16), (x, kernels))
    fast, expected = _compile(jitted, low), jitted(x, kernels)
    if fast.as_text().count('"__onednn$convolution"') < len(_KINDS):
        raise jax.errors.JaxRuntimeError("the option is known and has no effect")
    pairs = zip(jax.tree.leaves(fast(*low)), jax.tree.leaves(expected), strict=True)
    return all(np.array_equal(found, right.astype(jnp.bfloat16)) for found, right in pairs)
