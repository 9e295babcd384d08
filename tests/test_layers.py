"""The layers' benchmark, on a layer small enough for a test."""

import layers


def test_both_ways_are_timed_and_agree() -> None:
    found = layers.level(size=8, batch=2, channels=4, turns=3)
    for part in ("forward", "gradients"):
        assert found[part]["largest_difference"] < 1e-5
        assert all(len(found[part][name]["samples"]) == 3 for name in layers.WAYS)
    assert layers.table([found]).splitlines()[-1].startswith("| 2 x 8^2 x 4 |")
