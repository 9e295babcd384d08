"""The benchmarks' comparison, with contenders whose seconds and results are known beforehand."""

import argparse
import time
from functools import partial

import numpy as np
import pytest

from benchmarks.speed import workers
from benchmarks.speed.comparison import Comparison, table
from benchmarks.speed.workers import Contender, Worker


class Clock:
    """Stands for the module ``time`` in a contender's process: work alone makes it go on."""

    sleep = staticmethod(time.sleep)

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def worker_of(seconds: float) -> Contender:
    """Its work is begun at once and done by the end of the wait for it."""
    workers.time = clock = Clock()
    begun = [0]

    def start() -> float:
        begun[0] += 1
        return seconds

    def wait(result: float) -> float:
        clock.now += begun.pop() * seconds
        begun.append(0)
        return result

    return Contender(start, wait, fetch=np.asarray, peak_gib=lambda: 0.5)


def broken() -> Contender:
    raise OSError("no such library")


@pytest.mark.parametrize("calls", [1, 3])
def test_calls_are_begun_one_after_the_other_and_waited_for_once(calls: int) -> None:
    events = []
    contender = Contender(lambda: events.append("start"), lambda _: events.append("wait"))
    contender.seconds(calls)
    assert events == ["start"] * calls + ["wait"]


def test_seconds_are_of_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "time", workers.time)  # is put back at the end
    assert worker_of(0.1).seconds(3) == pytest.approx(0.1)


@pytest.mark.slow  # each of them is a process of its own
def test_each_contender_against_ours_of_its_precision() -> None:
    builders = {
        "covid_jax float32": partial(worker_of, 0.10),
        "covid_jax bfloat16": partial(worker_of, 0.05),
        "slow float32": partial(worker_of, 0.20),
        "slow bfloat16": partial(worker_of, 0.10),
        "unwanted float32": broken,
    }
    only = ["covid_jax", "slow"]
    options = argparse.Namespace(turns=3, calls=1, keep_freed_memory=False, only=only)
    comparison = Comparison(builders, 2, options)
    comparison.run()
    rows = comparison.rows
    assert list(rows) == list(builders)[:4]
    for name, over in (("slow float32", 0.5), ("slow bfloat16", 0.5), ("covid_jax bfloat16", 2.0)):
        assert rows[name]["ours_over_it"] == pytest.approx(over)
    assert rows["covid_jax float32"]["median"] == pytest.approx(0.05)  # a slice of two
    assert len(rows["covid_jax float32"]["samples"]) == 6  # against two others
    assert len(rows["slow float32"]["samples"]) == 3
    assert {name: float(out) for name, out in comparison.outputs.items()} == {
        "covid_jax float32": 0.10,
        "covid_jax bfloat16": 0.05,
        "slow float32": 0.20,
        "slow bfloat16": 0.10,
    }
    part = {"size": 64, "batch": 2, "contenders": rows}
    lines = table([part], {"more": lambda _, name: name.upper()}).splitlines()
    assert len(lines) == 6
    assert "0.5 GiB | SLOW FLOAT32 |" in lines[4]


def test_a_contender_that_cannot_be_built_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    said = "the broken one: its process has ended"
    with Worker("the broken one", broken) as worker, pytest.raises(RuntimeError, match=said):
        worker.ask("seconds", 1)
    assert "no such library" in capfd.readouterr().err
