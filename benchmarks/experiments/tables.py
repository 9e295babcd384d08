"""The pages' tables, made of the JSON files in ``results/`` and of nothing else.

    python -m benchmarks.experiments.tables            writes the pages
    python -m benchmarks.experiments.tables --check    exit status 1 if a page says anything else

A table is between ``<!-- table: name -->`` and ``<!-- end -->``; the text around is by hand.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.experiments import (
    table_ablation,
    table_experiments,
    table_semiseg,
    table_speed,
    table_spread,
)

HERE = Path(__file__).parent
PAGES = (
    HERE.parents[1] / "RESULTS.md",
    HERE.parent / "README.md",
    HERE.parent / "results/history/README.md",
)
TABLES: dict[str, Callable[[], str]] = {
    "installed": table_experiments.installed,
    "alternatives": table_experiments.alternatives,
    "smoothed scans": table_experiments.smoothed_scans,
    "smoothed series": table_experiments.smoothed_series,
    "development": table_experiments.development,
    "leave one out": table_experiments.leave_one_out,
    "input form": table_experiments.input_form,
    "other direction": table_experiments.other_direction,
    "plain unet": table_experiments.plain_unet,
    "paper protocol": table_experiments.paper_protocol,
    "fine tuning": table_experiments.fine_tuning,
    "semiseg": table_semiseg.published,
    "semiseg runs": table_semiseg.runs,
    "lesions": table_semiseg.lesions,
    "calibration": table_semiseg.calibration,
    "table 1": table_ablation.by_patient,
    "claims": table_ablation.claims,
    "sizes": table_ablation.sizes,
    "slice split": table_ablation.slice_split,
    "ablation seeds": table_spread.ablation_seeds,
    "across": table_spread.across,
    "readings": table_spread.readings,
    "placement": table_spread.placement,
    "repeat": table_spread.repeat,
    "latency": table_speed.latency,
    "batches": table_speed.batches,
    "training": table_speed.training,
    "first slice": table_speed.first_slice,
    "waiting": table_speed.waiting,
    "scan": table_speed.scan,
}


def rendered(page: str) -> str:
    """The page with every table made again."""

    def made(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w ]+) -->\n.*?<!-- end -->", made, page, flags=re.DOTALL)


def main() -> None:
    """Writes the pages, or says whether they are as the figures are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    pages = {page: rendered(page.read_text()) for page in PAGES}
    if check:
        sys.exit(any(page.read_text() != text for page, text in pages.items()))
    for page, text in pages.items():
        page.write_text(text)


if __name__ == "__main__":
    main()
