"""Contenders in processes of their own: none meets another's threads, memory or compiler."""

import contextlib
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import numpy as np

PAUSE = 0.1  # seconds between two turns, in which the threads of the one before come to rest


def process_peak() -> float:
    """Largest memory of this process so far, in GiB (getrusage's begins with its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def device_peak() -> float:
    """The same of JAX's device; on a CPU, of the process."""
    stats = jax.local_devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] / 2**30 if stats else process_peak()


def torch_peak() -> float:
    """The same of PyTorch's GPU where it has one; else of the process."""
    import torch

    on_gpu = torch.cuda.is_available()
    return torch.cuda.max_memory_allocated() / 2**30 if on_gpu else process_peak()


@dataclass(frozen=True)
class Contender:
    """What is timed, as its process holds it.

    start: begins a call and returns what ``wait`` takes; may return before the call is done.
    wait: returns when the call, and all before it, are done.
    fetch: the call's result on the host, to be compared between contenders.
    peak_gib: largest memory so far.
    """

    start: Callable[[], Any]
    wait: Callable[[Any], Any] = lambda result: result
    fetch: Callable[[Any], np.ndarray] = np.asarray
    peak_gib: Callable[[], float] = process_peak

    def seconds(self, calls: int) -> float:
        """Of one call, when so many are begun one after the other."""
        started = time.perf_counter()
        for _ in range(calls - 1):
            self.start()
        self.wait(self.start())
        return (time.perf_counter() - started) / calls

    def first(self) -> tuple[float, np.ndarray]:
        """Seconds of the first call, which compiles, and its result."""
        started = time.perf_counter()
        result = self.wait(self.start())
        return time.perf_counter() - started, self.fetch(result)


class Worker(contextlib.AbstractContextManager):
    """A contender's process.

    Args:
      name: of the contender.
      build: makes it, in the process; a function of a module, for another process must find it.
    """

    def __init__(self, name: str, build: Callable[[], Contender]) -> None:
        self._name = name
        spawn = multiprocessing.get_context("spawn")
        self._pipe, other = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(other, build), daemon=True)
        self._process.start()
        other.close()

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the contender's method returns; ``built``: seconds that building it took.

        Raises:
          RuntimeError: if the process has ended; it has said why.
        """
        try:
            self._pipe.send((method, arguments))
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"{self._name}: its process has ended") from error

    def __exit__(self, *_: object) -> None:
        """Ends the process and gives its memory back."""
        self._pipe.close()
        self._process.join(timeout=30)
        self._process.kill()


def _serve(pipe: Connection, build: Callable[[], Contender]) -> None:
    started = time.perf_counter()
    contender = build()
    built = time.perf_counter() - started
    with contextlib.suppress(EOFError, BrokenPipeError):  # the other side has closed
        while True:
            method, arguments = pipe.recv()
            pipe.send(built if method == "built" else getattr(contender, method)(*arguments))


def alternated(one: Worker, other: Worker, turns: int, calls: int) -> list[tuple[float, float]]:
    """Seconds of a call of each, turn by turn; a turn before them warms up, the first changes."""
    found = []
    for turn in range(turns + 1):
        seconds = {}
        for worker in (one, other)[:: 1 if turn % 2 else -1]:
            time.sleep(PAUSE)
            seconds[worker] = worker.ask("seconds", calls)
        found.append((seconds[one], seconds[other]))
    return found[1:]
