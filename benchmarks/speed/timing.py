"""Timing for all benchmarks: calls in turns, so that a busy machine slows all alike."""

import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from covid_jax.cli.main import keep_freed_memory


def settings(device: str | None, kept: bool) -> dict[str, Any]:
    """Sets up this process and those to come, and says how; before a device is touched.

    Args:
      device: "cpu", "gpu" (an error where there is none), or None for JAX's first.
      kept: whether freed memory is kept for the next call.
    """
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several processes share a GPU's memory
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # PyTorch's too
    if device is not None:
        platform = {"cpu": "cpu", "gpu": "cuda"}[device]
        os.environ["JAX_PLATFORMS"] = platform
        jax.config.update("jax_platforms", platform)  # jax has read its environment already
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # it forks else, beside JAX's threads
    found: dict[str, Any] = {
        "device": jax.default_backend(),
        "freed_memory_kept": keep_freed_memory() if kept else False,
        "jax_matmul_precision": str(jax.config.jax_default_matmul_precision),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "cores": len(os.sched_getaffinity(0)),
    }
    if importlib.util.find_spec("torch"):
        import torch

        found["torch_matmul_precision"] = torch.get_float32_matmul_precision()
        found["torch_cudnn_tf32"] = torch.backends.cudnn.allow_tf32
        found["torch_threads"] = torch.get_num_threads()
    return found


def in_turns(functions: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """Seconds of each call; the first turn, which compiles and warms up, is left out.

    A call counts as over when what it returns is ready: JAX's arrays are waited for here, other
    libraries' calls must wait by themselves.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(turns + 1):
        for name, call in functions.items():
            time.sleep(0.1)  # the threads of the one before spin on for a while
            started = time.perf_counter()
            jax.block_until_ready(call())
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(samples: Sequence[float]) -> dict[str, Any]:
    """Median, 5th and 95th percentile, and every sample."""
    return {
        "median": statistics.median(samples),
        "p5": float(np.percentile(samples, 5)),
        "p95": float(np.percentile(samples, 95)),
        "samples": list(samples),
    }
