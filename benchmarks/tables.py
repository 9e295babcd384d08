"""RESULTS.md's tables, made of the JSON files in ``results/`` and of nothing else.

    python benchmarks/tables.py            writes them into RESULTS.md
    python benchmarks/tables.py --check    exit status 1 if RESULTS.md says anything else

A table stands between ``<!-- table: name -->`` and ``<!-- end -->``; the text around is a person's.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

import table_ablation
import table_semiseg
import table_spread

PAGE = Path(__file__).parents[1] / "RESULTS.md"
TABLES: dict[str, Callable[[], str]] = {
    "semiseg": table_semiseg.published,
    "semiseg runs": table_semiseg.runs,
    "table 1": table_ablation.by_patient,
    "claims": table_ablation.claims,
    "sizes": table_ablation.sizes,
    "slice split": table_ablation.slice_split,
    "ablation seeds": table_spread.ablation_seeds,
    "across": table_spread.across,
    "readings": table_spread.readings,
    "repeat": table_spread.repeat,
}


def rendered(page: str) -> str:
    """The page with every table made anew."""

    def anew(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table: ([\w ]+) -->\n.*?<!-- end -->", anew, page, flags=re.DOTALL)


def main() -> None:
    """Writes the page, or says whether it is as the figures are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    before = PAGE.read_text()
    after = rendered(before)
    if check:
        sys.exit(before != after)
    PAGE.write_text(after)


if __name__ == "__main__":
    main()
