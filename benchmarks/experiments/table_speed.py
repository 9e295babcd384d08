"""Latency and training, each measured twice: this network's time over every other's."""

from typing import Any

from benchmarks.experiments import results_store as kept
from benchmarks.experiments.markdown_table import table

RUNS = ("", "_earlier")  # endings of the two runs' files
Row = dict[str, Any]  # a contender, as ``comparison.py`` measured it


def latency() -> str:
    """Milliseconds a slice, forward."""
    return speed("latency")


def training() -> str:
    """Milliseconds a slice, one step."""
    return speed("training")


def batches() -> str:
    """Milliseconds a slice, forward, for larger batches and slices: one run."""
    rows = [
        [*map(str, case), contender, _median(row), _ratio(row)]
        for case, contenders in _cases("latency_batches").items()
        for contender, row in contenders.items()
    ]
    columns = ["size", "batch", "contender", "ms a slice", "covid_jax over it (least to most)"]
    return table(columns, rows)


def speed(name: str) -> str:
    """Median milliseconds a slice in either run, and ours over it in the same turns."""
    latest, earlier = (_cases(f"{name}{ending}") for ending in RUNS)
    rows = []
    for case in {**latest, **earlier}:
        found = latest.get(case, {}), earlier.get(case, {})
        for contender in {**found[0], **found[1]}:
            pair = [contenders.get(contender) for contenders in found]
            cells = [*map(_median, pair), *map(_ratio, pair)]
            rows.append([*map(str, case), contender, *cells])
    columns = ["size", "batch", "contender", "ms a slice", "earlier"]
    return table([*columns, "covid_jax over it (least to most)", "earlier"], rows)


def first_slice() -> str:
    """Seconds until a fresh process has its first slice, without and with compiled code kept."""
    found = kept.read("latency")["first_slice"]
    stages = list(found["cold"])
    rows = [
        [name, *(f"{of[stage]['median']:.2f} s" for stage in stages)] for name, of in found.items()
    ]
    return table(["compilation cache", *(stage.replace("_", " ") for stage in stages)], rows)


def waiting() -> str:
    """Seconds from the start of a command to its first step or to the end of a one-slice scan."""
    record, rows = kept.read("waiting"), []
    for name in ("train, paper preset", "predict, one slice"):
        cold, warm = record[name]["cold_seconds"], record[name]["warm_seconds"]
        step = [f"{seconds:.1f}" for _, *steps in (cold, warm) for seconds in steps] or ["", ""]
        rows.append([name, f"{cold[0]:.1f}", f"{warm[0]:.1f}", *step])
    columns = ["command", "cold cache, s", "warm cache, s", "of it the first step, cold", "warm"]
    return table(columns, rows)


def scan() -> str:
    """A scan from file to mask, each way a process of its own."""
    rows = [
        [
            way,
            f"{row['median_seconds']:.1f}",
            f"{row['cpu_seconds']:.1f}",
            f"{row['peak_mebibytes'] / 1024:.1f} GiB",
            f"{row['dice_with_float32']:.4f}",
        ]
        for way, row in kept.read("scan")["ways"].items()
    ]
    columns = ["way", "seconds", "CPU seconds", "peak memory", "Dice with float32's mask"]
    return table(columns, rows)


def _cases(name: str) -> dict[tuple[int, int], dict[str, Row]]:
    measured = kept.read(name)["measured"]
    return {(case["size"], case["batch"]): case["contenders"] for case in measured}


def _median(row: Row | None) -> str:
    return f"{1000 * row['median']:.4g}" if row else ""


def _ratio(row: Row | None) -> str:
    """Median and range of the turns; nothing for ours itself, and for one left out."""
    if not row or "ours_over_it" not in row:
        return ""
    pairs = zip(row["ours_in_these_turns"], row["samples"], strict=False)  # bfloat16 of ours has
    turns = [ours / its for ours, its in pairs]  # more samples, against others, after these
    return f"{row['ours_over_it']:.2f} ({min(turns):.2f} to {max(turns):.2f})"
