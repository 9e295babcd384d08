"""RESULTS.md says what the kept figures say; its tables' arithmetic on figures made by hand."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import tables


def evaluation(names: list[str], dice: list[float | None], **changed: object) -> dict:
    count = len(names)
    columns = {
        "slice": names,
        "source": ["COVID-SemiSeg" if name.startswith("c") else "Dataset-2" for name in names],
        "patient": ["unknown" if name.startswith("c") else name[:2] for name in names],
        "height": [10.0] * count,
        "width": [20.0] * count,
        "lesion_pixels": [20.0 * (i + 1) for i in range(count)],
        "dice": dice,
        "sensitivity": dice,
        "specificity": dice,
    }
    plain = {"subset": "test", "tta": False, "threshold_from": "given", "slices": columns}
    return plain | changed


def test_every_table_is_what_the_kept_figures_say() -> None:
    page = tables.PAGE.read_text()
    assert tables.rendered(page) == page
    assert re.search(r"<!-- table: [\w ]+ -->\n\|", page)
    assert page.count("<!-- table:") == page.count("<!-- end -->") >= len(tables.TABLES)
    assert all(f"<!-- table: {name} -->" in page for name in tables.TABLES)


def test_slices_of_several_runs_and_their_groups() -> None:
    found = tables.slices_of([evaluation(["p1-2", "p1-1"], [0.2, 0.4]), evaluation(["c9"], [None])])
    assert found.ids == ["c9", "p1-1", "p1-2"]
    assert found.groups == ["c9", "p1", "p1"]  # an unknown patient is its slice's own
    np.testing.assert_allclose(found.values["dice"], [np.nan, 0.4, 0.2])
    np.testing.assert_allclose(found.share, [0.1, 0.2, 0.1])
    assert found.of("Dataset-2").ids == ["p1-1", "p1-2"]
    assert found.part(found.share > 0.15).groups == ["p1"]
    assert tables.mean(found.values["dice"]) == "0.300"
    with pytest.raises(ValueError, match="c9: tested twice"):
        tables.slices_of([evaluation(["c9"], [0.2]), evaluation(["c9"], [0.4])])


def test_a_difference_is_second_less_first_of_the_same_slices() -> None:
    names = [f"c{i:02d}" for i in range(12)]
    first = tables.slices_of([evaluation(names, [0.5] * 12)])
    second = tables.slices_of([evaluation(names[::-1], [0.6] * 11 + [0.7])])
    change, interval, p, counts = tables.difference(first, second, "dice")
    assert (change, counts) == ("+0.108", "12 / 12")
    low, high = map(float, interval.split(" to "))
    assert 0.1 <= low <= 0.108 <= high < 0.14
    assert float(p) < 0.01
    with pytest.raises(ValueError, match="not the same slices"):
        tables.difference(first.part(np.arange(12) < 6), second, "dice")


def test_slices_of_one_patient_count_as_one() -> None:
    names = [f"p{i % 3}-{i:02d}" for i in range(12)]
    pair = [tables.slices_of([evaluation(names, [value] * 12)]) for value in (0.5, 0.6)]
    change, interval, _, counts = tables.difference(*pair, "dice")
    assert (change, interval, counts) == ("+0.100", "", "12 / 3")  # three are too few


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Table 1 with 30 slices of two sources; the rows' Dice differ by known amounts."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    names = [f"c{i:02d}" for i in range(15)] + [f"p{i:02d}-1" for i in range(15)]
    rows = {"baseline-dl": 0.5, "baseline-ftl": 0.6, "ours-dl": 0.55, "ours-ftl": 0.7}
    runs = []
    for folder, dice in rows.items():
        for fold in (0, 1):
            part = names[fold::2]
            gains = [dice + (dice - 0.5) * (place >= 5) for place in range(len(part))]
            runs.append(
                {"run": f"runs/t/{folder}/{fold}", "evaluations": [evaluation(part, gains)]}
            )
    (tmp_path / "table1.json").write_text(json.dumps({"runs": runs}))
    (tmp_path / "slice_split.json").write_text(json.dumps({"runs": runs[2:4]}))
    return tmp_path


def cells(table: str, start: str) -> list[str]:
    """Of the row that starts so."""
    (row,) = (line for line in table.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in row.split("|")[1:-1]]


@pytest.mark.usefixtures("kept")
def test_table_1_by_hand() -> None:
    """Ours + FTL: 10 slices at 0.7, 20 at 0.9, of them all but 7 or 8 of each source."""
    found = cells(tables.table1(), "ours + FTL")
    assert found[:2] == ["ours + FTL", "30"]
    assert found[2].startswith("0.833 (")
    assert float(found[5]) + float(found[6]) == pytest.approx(2 * 0.8333, abs=2e-3)
    assert found[7:] == ["0.831", "0.867", "0.993"]
    assert cells(tables.table1(), "baseline + DL")[2].startswith("0.500")


@pytest.mark.usefixtures("kept")
def test_claims_and_sizes_by_hand() -> None:
    claims = tables.claims()
    assert len(claims.splitlines()) == 2 + 2 * len(tables.CLAIMS)
    # Of COVID-SemiSeg's 15 slices ten gain 0.15, the five after each fold's first five 0.3.
    row = cells(claims, "both together are best | dice: ours + FTL less ours + DL | COVID-SemiSeg")
    assert row[3] == "+0.200"
    assert row[6] == "15 / 15"
    gain = cells(tables.sizes(), "COVID-SemiSeg | gain of the smallest")[1]
    assert re.search(r"largest's: -0\.\d+ \(", gain)


def test_the_split_comparison_by_hand(kept: Path) -> None:
    """The slice split's runs stand in by the baseline's with FTL: less by a known amount."""
    found = cells(tables.slice_split(), "Dataset-2 | dice")
    assert float(found[4]) == pytest.approx(float(found[3]) - float(found[2]), abs=1.1e-3)
    assert found[4].startswith("-")
    (kept / "slice_split.json").write_text('{"runs": []}')
    with pytest.raises(ValueError, match=r"slice_split\.json: no run"):
        tables.slice_split()


def test_the_evaluation_asked_for_is_the_one_taken() -> None:
    ways = [
        evaluation(["c1"], [value], tta=tta, threshold_from=source)
        for value, tta, source in ((0.1, False, "given"), (0.2, True, "given"), (0.3, False, "val"))
    ]
    run = {"evaluations": ways}
    assert tables.scored(run) is ways[0]
    assert tables.scored(run, tta=True) is ways[1]
    assert tables.scored(run, val=True) is ways[2]
    with pytest.raises(ValueError, match="not enough"):
        tables.scored(run, tta=True, val=True)


def test_mean_and_deviation_of_the_sample() -> None:
    assert tables.mean_sd([0.70, 0.72, 0.74]) == "0.720 ± 0.020"
    assert tables.mean_sd([0.7]) == "0.700"
