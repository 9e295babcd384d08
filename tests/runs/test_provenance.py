"""What stands beside a number: whether it is true of the process that made it."""

import os
import platform
from importlib.metadata import version

import pytest

from covid_jax.runs.provenance import provenance


def test_versions_and_command_are_this_processs() -> None:
    found = provenance(["train.py", "--out", "a folder"])
    assert found["command"] == "train.py --out 'a folder'"
    assert found["versions"]["jax"] == version("jax")
    assert found["versions"]["python"] == platform.python_version()


@pytest.mark.parametrize(("usable", "said"), [({3}, "1 core, "), ({0, 5, 6}, "3 cores, ")])
def test_cores_are_those_it_may_use(
    usable: set[int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: usable, raising=False)
    assert provenance([])["processor"].startswith(said)


def test_where_the_system_does_not_tell_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert provenance([])["processor"].startswith("7 cores, ")
