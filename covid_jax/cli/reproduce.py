"""Trains a recorded run again and compares: same digits, within the spread of seeds, or off."""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape

from covid_jax.cli.commands import open_data, set_up_process
from covid_jax.cli.flags import ReproduceFlags
from covid_jax.cli.study import run_study
from covid_jax.cli.tables import text_table
from covid_jax.ensemble import members_of
from covid_jax.errors import ConfigError, RunError
from covid_jax.files import read_json
from covid_jax.metrics.confusion import METRICS
from covid_jax.runs.config import TrainConfig, differences, flatten, to_dict
from covid_jax.runs.record import read_record
from covid_jax.schema import parse
from covid_jax.training.loggers import read_metrics

SAME = 1e-6  # relative difference of equal digits: tables show four of them
LIMIT = 2.8  # of standard deviations: two repetitions differ by less in 95 % (ISO 5725-6)
Pairs = dict[str, tuple[float, float]]  # of each number, before and now
Entry = dict[str, Any]  # a run: its config, versions, device, curves or best epoch, evaluations


def reproduce(flags: ReproduceFlags, console: Console, command: Sequence[str]) -> None:
    """Trains and tests a recorded run again; exits with 1 if it is off."""
    entries = {entry["run"]: entry for entry in _entries(flags.source)}
    name = flags.run or next(iter(entries), "")
    if (before := entries.get(name)) is None:
        known = ", ".join(entries) or "none"
        raise RunError(f"{flags.source}: no run {name} in it; there are: {known}")
    if own := before.get("custom"):
        raise RunError(f"{flags.source}: its {' and '.join(own)} came from Python: train it there")
    recorded = _config(before, flags.source)
    data = dataclasses.replace(recorded.data, data=flags.data or recorded.data.data)
    config = dataclasses.replace(recorded, data=data, resume=False, profile=0)
    set_up_process(config)
    dataset = open_data(data, console)
    if before["fingerprint"] not in (None, dataset.fingerprint()):
        said = f"the data was {before['fingerprint']}, now it is {dataset.fingerprint()}"
        raise RunError(f"{flags.source}: {said}; name the same data with --data")
    out = flags.out or Path("runs") / f"{flags.source.stem}-again"
    seeds = list(dict.fromkeys((config.seed, *flags.seeds)))
    runs = run_study(config, seeds, dataset, out, console, command)["runs"]
    again = [entry for row in runs for entry in _entries(out / row["run"])]
    ignored = ("seed", "out", "resume", "data", "profile")
    alike = [e for e in entries.values() if not differences(_config(e, out), recorded, ignored)]
    numbers, verdict = compare_entries(before, again[0], alike, again)
    _show(before, again[0], numbers, console)
    console.print(escape(verdict))
    if verdict.startswith("off"):
        raise SystemExit(1)


def compare_entries(before: Entry, again: Entry, *of_seeds: Sequence[Entry]) -> tuple[Pairs, str]:
    """Compares the numbers of two runs with the same settings and seed.

    Args:
      before: a run as it was recorded.
      again: the same run, trained again.
      of_seeds: groups of runs that differ only in the seed; if there are several groups, the first
        is used.

    Returns:
      Each number that both runs have, before and now; and the result with its reason: ``same
      digits``, ``within the seeds' spread`` or ``off``. The last number decides between the latter
      two.
    """
    old, new = _numbers(before), _numbers(again)
    numbers = {name: (old[name], new[name]) for name in old if name in new}
    if not numbers:
        raise RunError(f"{before['run']}: no epoch and no plain test is recorded")
    if all(math.isclose(*pair, rel_tol=SAME) for pair in numbers.values()):
        return numbers, "same digits"
    name, (was, now) = list(numbers.items())[-1]
    differs = f"{name} differs by {abs(now - was):.4f}"
    groups = ([v[name] for v in map(_numbers, group) if name in v] for group in of_seeds)
    spread = next((statistics.stdev(group) for group in groups if len(group) > 1), None)
    if spread is None:
        return numbers, f"off: {differs}; the seeds' spread is unknown: measure it, --seeds 1 2"
    verdict = "within the seeds' spread" if abs(now - was) <= LIMIT * spread else "off"
    return numbers, f"{verdict}: {differs}, two seeds by up to {LIMIT * spread:.4f} (95 %)"


def _entries(source: Path) -> Iterator[Entry]:
    """The runs in a run folder, a study folder, or a file of benchmarks/results."""
    if not source.is_dir():
        content = read_json(source, error=RunError)
        for entry in content.get("runs", [content.get("test", content)]):
            plain = {"run": source.stem, "curves": content.get("curves"), "evaluations": [entry]}
            entry = plain | entry | entry.get("training", {})
            tested = next(iter(entry["evaluations"]), {})
            yield entry | {"fingerprint": tested.get("data_fingerprint")}
        return
    for folder in members_of(source):
        tested = folder / "eval/test/metrics.json"
        evaluations = [read_json(tested, error=RunError)] if tested.exists() else []
        curves = read_metrics(folder / "metrics.jsonl")
        record = to_dict(read_record(folder)) | {"curves": curves, "evaluations": evaluations}
        yield record | {"run": folder.name, "fingerprint": record["data"]["fingerprint"]}


def _config(entry: Entry, source: Path) -> TrainConfig:
    try:
        return parse(TrainConfig, entry["config"])
    except (KeyError, ConfigError) as wrong:
        raise RunError(f"{source}: settings of no or another version ({wrong})") from wrong


def _numbers(entry: Entry) -> dict[str, float]:
    """The numbers of the best epoch, and the test scores (threshold 0.5, own grids), Dice last."""
    numbers = {}
    curves = entry.get("curves") or ()
    if best := entry.get("best") or min(curves, key=lambda row: row["val_loss"], default=None):
        numbers = {name: best[name] for name in ("epoch", "train_loss", "val_loss", "val_dice")}
    for test in entry["evaluations"]:
        how = [test.get(name) for name in ("subset", "threshold_from", "threshold")]
        if how == ["test", "given", 0.5] and not test.get("tta"):
            for name, mean in {name: test["own_grid"][name] for name in reversed(METRICS)}.items():
                mean = mean["mean"] if isinstance(mean, dict) else mean
                numbers |= {} if mean is None else {f"test {name}": mean}
    return numbers


def _show(before: Entry, again: Entry, numbers: Pairs, console: Console) -> None:
    """Prints one row per number, then one row for each version, device or setting that differs."""
    rows = [
        (name, f"{was:.6g}", f"{now:.6g}", f"{now - was:+.1e}" if now != was else "")
        for name, (was, now) in numbers.items()
    ]
    machine = ("device", "processor", "commit")
    old, new = (
        entry.get("versions", {}) | {k: entry.get(k) for k in machine} | flatten(entry["config"])
        for entry in (before, again)
    )
    for name in sorted(new.keys() - {"out", "data", "resume", "profile"}):
        if (was := old.get(name, "not recorded")) != new[name]:
            rows.append((name, str(was), str(new[name]), "differs"))
    console.print(text_table("", ("", "recorded", "now", "difference"), rows, box=SIMPLE_HEAD))
