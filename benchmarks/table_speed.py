"""Latency and training, each measured twice: this network's time over every other's."""

import json
from collections.abc import Sequence
from typing import Any

import kept
from markdown_table import table

RUNS = ("", "_again")  # endings of the two runs' files
Row = dict[str, Any]  # a contender, as ``comparison.py`` measured it


def latency() -> str:
    """Milliseconds a slice, forward."""
    return speed("latency")


def training() -> str:
    """Milliseconds a slice, one step."""
    return speed("training")


def speed(name: str) -> str:
    """Median milliseconds a slice in either run, and ours over it in the same turns."""
    first, second = (_cases(f"{name}{ending}") for ending in RUNS)
    rows = []
    for case in {**first, **second}:
        found = first.get(case, {}), second.get(case, {})
        for contender in {**found[0], **found[1]}:
            pair = [contenders.get(contender) for contenders in found]
            cells = [*map(_median, pair), *map(_ratio, pair)]
            rows.append([*map(str, case), contender, *cells])
    columns = ["size", "batch", "contender", "ms a slice", "again"]
    return table([*columns, "covid_jax over it (least to most)", "again"], rows)


def first_slice() -> str:
    """Seconds until a fresh process has its first slice, without and with compiled code kept."""
    records = [_record(f"latency{ending}")["first_slice"] for ending in RUNS]
    rows = []
    for name in ("cold", "cached"):
        for stage in ("import", "backend_and_weights", "first_slice"):
            cells = [f"{record[name][stage]['median']:.2f}" for record in records]
            rows.append([name, stage.replace("_", " "), *cells])
    return table(["compilation cache", "seconds of", "", "again"], rows)


def _record(name: str) -> dict[str, Any]:
    return json.loads((kept.RESULTS / f"{name}.json").read_text())


def _cases(name: str) -> dict[tuple[int, int], dict[str, Row]]:
    measured = _record(name)["measured"]
    return {(case["size"], case["batch"]): case["contenders"] for case in measured}


def _median(row: Row | None) -> str:
    return f"{1000 * row['median']:.4g}" if row else ""


def _ratio(row: Row | None) -> str:
    """Median and range of the turns; nothing for ours itself, and for one left out."""
    if not row or "ours_over_it" not in row:
        return ""
    turns = _turns(row["ours_in_these_turns"], row["samples"])
    return f"{row['ours_over_it']:.2f} ({min(turns):.2f} to {max(turns):.2f})"


def _turns(ours: Sequence[float], its: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(ours, its, strict=True)]
