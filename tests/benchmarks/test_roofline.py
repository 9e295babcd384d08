"""Operations that the benchmarks count against XLA's own count; powers and shares by hand."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.speed.roofline import least_seconds, stages
from benchmarks.speed.scaling_fit import growth, markdown
from benchmarks.speed.volume import shares
from covid_jax.models import SCSEUNet
from covid_jax.models import cpu_conv as winograd


def test_operations_are_nearly_all_that_xla_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """XLA leaves out taps that fall outside, few on a large slice, and counts all else too."""
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", 10**6)  # we count by the definition
    model = SCSEUNet()
    images = jax.ShapeDtypeStruct((1, 2048, 2048, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    cost = jax.jit(model.apply).lower(variables, images).cost_analysis()
    assert isinstance(cost, dict)
    counted = sum(stage["operations"] for stage in stages(2048).values())
    assert 0.99 * cost["flops"] < counted < 1.01 * cost["flops"]


def test_the_first_stage_by_hand() -> None:
    """3 x 3 taps: 1 to 4 channels, and twice 4 to 4, on 8 x 8 pixels; two operations each."""
    first = stages(8, batch=2, features=(4, 6))["encoder1"]
    weights = 9 * (1 * 4 + 4 * 4 + 4 * 4)
    assert first["operations"] == 2 * 64 * weights
    assert first["bytes"] == 4 * (64 * 1 + weights / 2 + 64 * 4)


def test_each_stage_takes_the_slower_of_work_and_traffic() -> None:
    parts = stages(32).values()
    work = sum(part["operations"] for part in parts)
    traffic = sum(part["bytes"] for part in parts)
    fast, slow = 1e30, 1.0
    assert least_seconds(32, 1, {"operations": slow, "bytes": fast}, 4) == pytest.approx(work)
    half = least_seconds(32, 1, {"operations": fast, "bytes": slow}, 2)
    assert half == pytest.approx(traffic / 2)


def test_cost_that_grows_with_the_square() -> None:
    seconds = {at: [at**2 / 100] * 3 for at in (1, 2, 4)}
    found = growth("side", {"a call": seconds}, {1: 1, 2: 1, 4: 2}, expected=2)
    assert found["series"]["a call"]["exponent"] == pytest.approx(2)
    assert found["series"]["a call"]["rows"][2]["seconds_a_slice"] == pytest.approx(0.08)
    assert "| a call | 4 | 0.1600 (0.1600 to 0.1600) | 80.00 | 2.00 (2) |" in markdown({"x": found})


def test_shares_of_the_stages_and_the_whole_beside_them() -> None:
    seconds = {"whole": [3.0], "decoding": [1.0], "network": [2.5], "writing": [0.5]}
    found = shares(seconds)
    assert found["stages"]["network"]["share_of_sum"] == pytest.approx(2.5 / 4)
    assert found["whole_over_sum"] == pytest.approx(3 / 4)
