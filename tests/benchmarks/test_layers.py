"""The layers' benchmark, on layers small enough for a test."""

from typing import Any

import pytest

from benchmarks.speed import layers
from covid_jax.models import cpu_conv as winograd


def check(found: dict[str, Any], apart: float) -> None:
    for part in layers.PARTS:
        assert 0 < found[part]["relative_difference"] < apart  # they round differently
        assert all(len(found[part][name]["samples"]) == 3 for name in layers.WAYS)
    assert layers.table([found]).splitlines()[-1].startswith(f"| {found['features']} |")


@pytest.mark.slow
def test_a_layer_is_timed_both_ways() -> None:
    check(layers.level(size=8, batch=2, channels=4, turns=3), apart=1e-5)


@pytest.mark.slow
def test_the_network_is_timed_both_ways_and_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before = winograd.FEWEST_CHANNELS
    monkeypatch.setitem(layers.FEWEST, "winograd", 4)
    check(layers.network(size=32, batch=2, turns=3, features=(2, 4, 4)), apart=1e-3)
    assert before == winograd.FEWEST_CHANNELS
