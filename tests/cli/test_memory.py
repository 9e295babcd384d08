"""Freed memory is kept: the system's count of page faults tells."""

import json
import subprocess
import sys

import pytest

from covid_jax.cli.main import keep_freed_memory

# Asks for 64 MB, writes to it and frees it, eleven times; faults of the last ten.
FAULTS = """
import json, resource, sys
import numpy as np
from covid_jax.cli.main import keep_freed_memory
done = keep_freed_memory() if sys.argv[1] == "keep" else None
for turn in range(11):
    if turn == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(2**23).fill(1.0)
print(json.dumps([done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def faults(how: str) -> tuple[bool | None, int]:
    command = [sys.executable, "-c", FAULTS, how]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(json.loads(out.stdout))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of the GNU C library")
def test_what_is_freed_is_not_asked_for_again() -> None:
    done, kept = faults("keep")
    if not done:
        pytest.skip("not the GNU C library")
    assert kept < 100


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
