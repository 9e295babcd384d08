"""Devices and hosts. Each device computes a part of every batch and has a copy of the state."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from covid_jax.errors import ConfigError, RunError

# Set by srun and mpirun, with the number of processes: only then are there others to wait for.
# (SLURM_NTASKS would not do: a batch script that starts one process has it too.)
_LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_GOODBYE = 30  # seconds that a process which has ended waits for the others to end


def processor(field: str) -> str:
    """A field of the first processor in Linux' list of them, such as ``flags``; "" elsewhere."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(field)).partition(": ")[2]
    return ""


def join_hosts(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: int = 300,
) -> None:
    """Connects the processes of one run; does nothing if there is only one.

    Call it before any use of a device.

    Args:
      coordinator: ``host:port`` of process 0; not needed under Slurm or Open MPI.
      num_processes: of the run; only with a coordinator.
      process_id: of this process, from 0; only with a coordinator.
      timeout: seconds to wait for the others.

    Raises:
      ConfigError: if one of the three flags is missing or impossible, or the coordinator cannot be
        reached.
    """
    given = (coordinator, num_processes, process_id)
    if any(value is not None for value in given) and None in given:
        raise ConfigError("--coordinator, --num-processes and --process-id go together")
    if coordinator is None and not any(os.environ.get(name, "1") != "1" for name in _LAUNCHERS):
        return
    if coordinator is not None and num_processes is not None and process_id is not None:
        host, _, port = coordinator.rpartition(":")
        if not (host and port.isdigit() and int(port) < 2**16):
            raise ConfigError(f"--coordinator {coordinator}: expected host:port")
        if not 0 <= process_id < num_processes:
            raise ConfigError(f"--process-id {process_id}: expected 0 to {num_processes - 1}")
        if process_id:
            _find(host.strip("[]"), int(port), timeout)
    # Its SIGTERM handler would take the signal from ours, and Orbax asks it every epoch.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *given, initialization_timeout=timeout, shutdown_timeout_seconds=_GOODBYE
        )
        # Now, when all are here: some backends give up where one comes half a minute later.
        multihost_utils.sync_global_devices("joined")
    except (RuntimeError, ValueError, IndexError) as error:
        advice = "give --coordinator host:port, --num-processes and --process-id"
        raise ConfigError(f"these processes cannot be joined ({error}); {advice}") from error


def _find(host: str, port: int, timeout: float) -> None:
    """Waits until process 0 accepts connections; without it JAX would abort the process."""
    end = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), timeout).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                found = f"no process 0 answers there after {timeout} s ({error.strerror or error})"
                raise ConfigError(f"--coordinator {host}:{port}: {found}") from error
            time.sleep(0.2)


class Devices:
    """All devices of all processes, along which a batch is split.

    Args:
      some: the devices to use; by default all.

    Attributes:
      replicated: the sharding of the state: a copy on each device.
      batch_sharding: the sharding of a batch: equal parts of the first axis.
    """

    def __init__(self, some: Sequence[Any] | None = None) -> None:
        mesh = Mesh(np.asarray(some or jax.devices()), ("batch",))
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.batch_sharding = NamedSharding(mesh, PartitionSpec("batch"))

    def rows(self, batch_size: int) -> tuple[int, slice]:
        """The next size that can be split into equal parts, and the rows this process reads."""
        rows = -(-batch_size // self.replicated.num_devices) * self.replicated.num_devices
        part = rows // jax.process_count()
        return rows, slice(jax.process_index() * part, (jax.process_index() + 1) * part)

    def place(self, share: Any) -> Any:
        """Global arrays of a tree with this process's rows; starts the transfer."""
        return jax.tree.map(
            lambda rows: jax.make_array_from_process_local_data(self.batch_sharding, rows), share
        )


def is_primary_process() -> bool:
    """Whether this is process 0, the only one that writes files."""
    return jax.process_index() == 0


def is_multiprocess() -> bool:
    """Whether this run has more than one process."""
    return jax.process_count() > 1


@contextlib.contextmanager
def together(what: str) -> Iterator[None]:
    """A block that fails in all processes of the run if it fails in one.

    Args:
      what: description of the block, for the message.

    Raises:
      RunError: in the processes that succeeded, if another one failed.
    """
    try:
        yield
    except Exception:
        _failed(True)
        raise
    if failed := _failed(False):
        raise RunError(f"{what}: process {failed[0]} of this run failed; see its message")


def _failed(here: bool) -> list[int]:
    """Waits for all processes; the indices of those that failed."""
    return np.flatnonzero(multihost_utils.process_allgather(np.array(here))).tolist()


def any_process(here: bool) -> bool:
    """Whether the argument is true in any process; waits for all of them."""
    return bool(_failed(here))
