"""The layers' benchmark, on layers small enough for a test."""

import pytest

import layers
from covid_jax.models import winograd


@pytest.mark.parametrize("of", ["level", "network"])
def test_both_ways_are_timed_and_agree(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layers.FEWEST, "winograd", 4)
    if of == "level":
        found = layers.level(size=8, batch=2, channels=4, turns=3)
    else:
        found = layers.network(size=32, batch=2, turns=3, features=(2, 4, 4))
    for part in layers.PARTS:
        assert 0 < found[part]["relative_difference"] < 1e-3  # they round differently
        assert all(len(found[part][name]["samples"]) == 3 for name in layers.WAYS)
    assert winograd.FEWEST_CHANNELS == 128
    assert layers.table([found]).splitlines()[-1].startswith(f"| {found['features']} |")
