"""What stands on the terminal: the numbers given, whole words, and no name taken for markup."""

import dataclasses
import io
import re
import types
import typing
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from covid_jax import terminal
from covid_jax.cli.settings_shown import show_settings
from covid_jax.cli.tables import (
    show_comparison,
    show_notes,
    show_pairs,
    show_scores,
    show_survey,
)
from covid_jax.evaluation.report import EvaluationReport
from covid_jax.runs.config import DataConfig, ModelConfig, TrainConfig
from covid_jax.runs.record import SourceRecord
from covid_jax.schema import parse
from tests.support.hand_made import make_dataset


class Screen(Console):
    """A terminal whose lines can be read."""

    def __init__(self, columns: int = 140, **settings: Any) -> None:
        super().__init__(file=io.StringIO(), width=columns, highlight=False, **settings)

    @property
    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()

    @staticmethod
    def cells(line: str) -> list[str]:
        """Between lines, where the table has any, else between two spaces or more."""
        if "│" in line:
            return [cell.strip() for cell in line.split("│")[1:-1]]
        return re.split(" {2,}", line.strip())

    def row(self, start: str) -> list[str]:
        """The cells after the first of the one table row that starts so."""
        rows = [self.cells(line) for line in self.lines]
        (found,) = [row for row in rows if row and row[0] == start]
        return found[1:]


PART = SourceRecord(
    source="Dataset [2]",
    slices=1373,
    patients=9,
    unknown=0,
    sizes=((512, 400), (630, 630)),
    spacings=(0.6836, 0.75),
    range=(-1024.0, 1250.5),
    scale="HU",
    label_pixels={"ground_glass": 1234567, "effusion": 0},
    lesion_sizes=(4, 5, 6, 7, 8, 9, 10),
)


def test_a_survey_is_a_table_with_a_column_a_source() -> None:
    screen = Screen()
    pictures = dataclasses.replace(
        PART,
        source="pictures",
        patients=0,
        unknown=98,
        sizes=((512, 512), (512, 512)),
        spacings=None,
        range=(0.0, 255.0),
        scale="8-bit",
        label_pixels={"lesion": 7},
    )
    show_survey([PART, pictures], screen)
    assert any("Dataset [2]" in line and "pictures" in line for line in screen.lines)
    assert screen.row("known patients") == ["9", "0"]
    assert screen.row("slices of unknown patients") == ["0", "98"]
    assert screen.row("size in pixels") == ["512x400 to 630x630", "512x512"]
    assert screen.row("spacing in mm") == ["0.684 to 0.75", "unknown"]
    assert screen.row("intensities") == ["-1024 to 1250.5 (HU)", "0 to 255 (8-bit)"]
    assert screen.row("ground_glass pixels") == ["1,234,567", "0"]
    assert screen.row("effusion pixels") == ["0", "0"]
    assert screen.row("lesion pixels") == ["0", "7"]
    assert screen.row("no lesion") == ["4", "4"]
    assert screen.row("lesion under 0.1 % of the slice") == ["5", "5"]
    assert screen.row("0.3 % to 1 %") == ["7", "7"]
    assert screen.row("10 % and more") == ["10", "10"]


def test_pairs_of_one_patient_are_no_news() -> None:
    """Nor are those of two known ones, unless all but equal; s03 and s04 are nobody knows whose."""
    screen = Screen()
    dataset = make_dataset(["a", "a", "b", None, None])
    show_pairs(dataset, [(0, 1, 0.99), (0, 2, 0.75), (1, 2, 0.96), (3, 4, 0.8)], screen)
    assert screen.lines == [
        "near-duplicate slices not known to be of one patient: 2 pairs",
        "  0.96  s01  s02",
        "  0.80  s03  s04",
    ]


def test_of_many_pairs_the_ten_closest_are_shown() -> None:
    screen = Screen()
    pairs = [(0, i, 0.7 + i / 100) for i in range(1, 13)]
    show_pairs(make_dataset([None] * 13), pairs, screen)
    assert [line.split()[-1] for line in screen.lines[1:-1]] == [
        f"s{i:02d}" for i in range(12, 2, -1)
    ]
    assert screen.lines[-1].strip() == "and 2 more"


def overlap(mean: float | None, pooled: float | None, **changes: Any) -> dict[str, Any]:
    row = {"mean": mean, "pooled": pooled, "slices": 3, "empty": 1}
    return {"dice": row | {"interval": None, "patients_mean": None} | changes}


def report(own: dict[str, Any], **changes: Any) -> EvaluationReport:
    """As small a report as can be shown."""
    distance = {"mean": 12.5, "interval": None, "slices": 3, "one_empty": 2, "both_empty": 1}
    protocol = {"dice": 0.25772, "sensitivity": None, "definition": "by slice"}
    size_bin = {"detected": 2, "missed": 3, "lesions": 5, "false": 7}
    shown = {
        "slices": 3,
        "subset": "test",
        "image_size": 64,
        "threshold": 0.437,
        "threshold_from": "the validation slices",
        "tolerance": 3.0,
        "own_grid": own,
        "network_size": overlap(0.7, 0.6),
        "surface": {"px": {"hd95": distance, "nsd": distance | {"mean": 0.5}}},
        "lesions": {"bins": [size_bin, size_bin]},
        "classes": {},
        "per_patient": {"[p1]": {"slices": 1, "dice": 0.4}, "p2": {"slices": 2, "dice": None}},
        "protocols": {"paper": protocol},
        "calibration": {"ece": 0.125, "brier": 0.25, "mae": 0.5},
        "near_duplicates": None,
        "intervals": "no [intervals]: too few",
        "split": {"statement": "by hand [sic]", "warnings": ["a leak"]},
        "notes": ["a phantom"],
        "folder": "runs/[odd]/eval/test",
        "training": {"command": "train.py", "date": "", "device": "", "config": {"epochs": 7}},
    }
    rest = {}  # which is not shown
    for name, kind in typing.get_type_hints(EvaluationReport).items():
        optional = types.NoneType in typing.get_args(kind)
        rest[name] = None if optional else (typing.get_origin(kind) or kind)()
    return EvaluationReport(**(rest | shown | changes))


def tables(screen: Screen) -> dict[str, list[str]]:
    """The lines below the headings of each table of scores, by its title, notes included."""
    rule = "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
    ends = [i for i, line in enumerate(screen.lines) if line.startswith(rule)]
    return {
        screen.lines[i - 2]: screen.lines[i + 1 : end - 2]
        for i, end in zip(ends, [*ends[1:], len(screen.lines)], strict=True)
    }


def test_scores_are_tables_and_a_line_for_each_other_thing() -> None:
    screen = Screen(soft_wrap=True)
    show_scores(report(overlap(0.81234, 0.9)), screen)
    assert screen.lines[0] == "3 test slices"
    own, network, distances = tables(screen).items()
    assert own[0].strip() == "On each slice's own grid at threshold 0.437 (the validation slices)"
    assert network[0].strip() == "At the network's size, 64 x 64, threshold 0.5"
    assert distances[0].strip() == "Distances between boundaries, in px"
    assert screen.cells(screen.lines[2]) == [
        *("Metric", "Mean", "95 % interval", "Pooled", "Slices", "Empty masks")
    ]
    none = "\N{EN DASH}"
    assert screen.cells(own[1][0]) == ["Dice", "0.812", none, "0.900", "3", "1"]
    assert screen.cells(network[1][0]) == ["Dice", "0.700", none, "0.600", "3", "1"]
    assert screen.cells(distances[1][0]) == ["HD95 (px)", "12.5", none, none, "3", "3"]
    assert screen.cells(distances[1][1]) == ["NSD", "0.500", none, none, "3", "3"]
    assert "Over 3 slices, each with a lesion. No [intervals]: too few. Mean: over" in own[1][1]
    assert "sensitivity is undefined without a lesion" in own[1][1]
    lines = screen.lines[screen.lines.index(distances[1][2]) :]
    assert lines[0].startswith("NSD: surface Dice at 3 px. A missed lesion counts as")
    assert lines[1:] == [
        "Split  By hand [sic].",
        "Single lesions  8-connected lesions of all sizes; found if one of their pixels is "
        "predicted. Lesions 10; Found 4; Missed 6; False alarms 14",
        "Protocol: paper  By slice. Dice 0.2577; Sensitivity undefined",
        "Calibration  Of the lesion probability over all pixels. ECE 0.1250; Brier 0.2500; MAE "
        "0.5000",
        "Each patient, slices added up  [p1] Slices 1, Dice 0.4000; p2 Slices 2, Dice undefined",
        "note: a leak",
        "note: a phantom",
        "files  runs/[odd]/eval/test/ metrics.json, slices.csv, examples.png",
    ]


def test_intervals_and_patients_are_shown_where_there_are_any() -> None:
    screen = Screen()
    own = overlap(0.8, 0.9, interval=[0.7, 0.85], patients_mean=0.75)
    show_scores(report(own), screen)
    assert "Over patients" in screen.lines[2]
    assert screen.cells(screen.lines[4]) == [
        *("Dice", "0.800", "0.700 to 0.850", "0.750", "0.900", "3", "1")
    ]
    assert not any(line.startswith("Each patient") for line in screen.lines)


def test_several_classes_are_named_and_have_no_threshold() -> None:
    screen = Screen()
    classes = {"effusion": {"own_grid": overlap(None, None)}}
    show_scores(report(overlap(0.8, 0.9), classes=classes), screen)
    title = "On each slice's own grid, each pixel of the most probable class"
    assert screen.lines[1].strip() == title
    (rows,) = (rows for name, rows in tables(screen).items() if name.startswith("effusion, on"))
    assert screen.cells(rows[0]) == ["Dice", *["\N{EN DASH}"] * 3, "3", "1"]


def test_lesion_free_slices_and_sources_have_tables_of_their_own() -> None:
    screen = Screen(soft_wrap=True)
    free = {"slices": 8, "any_marked": 0.25, "marked_area": 0.00125}
    free["with_lesion"] = overlap(0.61, 0.7)
    source = {"slices": 5, "own_grid": overlap(0.5, 0.5), "lesion_free": free | {"slices": 2}}
    own = overlap(0.8, 0.9)
    whole = report(own, slices=11, lesion_free=free, per_source={"[a]": source, "b": source})
    show_scores(whole, screen)
    words = "lesion-free slices: any lesion marked in 25.0 %, mean marked area 0.125 % of the"
    assert any(
        f"of which 8 without lesion have Dice 1 if nothing is marked, else 0. 8 {words}" in line
        for line in screen.lines
    )
    found = {name.strip(): rows for name, rows in tables(screen).items()}
    assert screen.cells(found["Slices with a lesion alone, 3"][0])[1] == "0.610"
    for name in ("[a]", "b"):
        dice, note = found[f"Source {name}, 5 slices"][:2]
        assert screen.cells(dice)[1] == "0.500"
        assert note.startswith(f"2 {words}")


@pytest.mark.parametrize("others", [True, False])
def test_near_duplicates_are_counted_and_the_rest_scored(others: bool) -> None:
    screen = Screen()
    without = overlap(0.3, None, slices=1) if others else None
    twins = overlap(0.9, 0.9, slices=2)
    near_duplicates = {"slices": ["a", "b"], "among_them": twins, "without_them": without}
    show_scores(report(overlap(0.8, 0.9), near_duplicates=near_duplicates), screen)
    found = {name.split()[1]: rows for name, rows in tables(screen).items() if "near-d" in name}
    assert [screen.cells(found["only"][0])[i] for i in (1, 4)] == ["0.900", "2"]
    assert ("without" in found) == others
    if others:
        assert [screen.cells(found["without"][0])[i] for i in (1, 4)] == ["0.300", "1"]


def test_a_report_is_named_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "report.html").touch()
    screen = Screen(soft_wrap=True)
    show_scores(report(overlap(0.8, 0.9), folder=str(tmp_path)), screen)
    assert screen.lines[-1].endswith("slices.csv, examples.png, report.html")


def compared(**changes: Any) -> dict[str, Any]:
    row = {"mean": 0.7, "interval": [0.6, 0.8], "difference": -0.0123}
    return row | {"difference_interval": [-0.05, 0.01], "p_value": 0.00312} | changes


def test_a_comparison_is_a_row_a_metric_and_run() -> None:
    screen = Screen()
    nothing = dict.fromkeys(("interval", "difference", "difference_interval", "p_value"))
    record = {
        "runs": ["[a]", "b", "c"],
        "subset": "val",
        "slices": 12,
        "thresholds": [0.5, 0.5, 0.25],
        "intervals": "of patients [sic]",
        "test": "by rank",
        "metrics": {"dice": [compared(difference=0.0), compared(), {"mean": None, **nothing}]},
    }
    show_comparison(record, Path("[out]"), screen)
    assert screen.lines[0].strip() == "12 val slices"
    table = [[cell.strip() for cell in line.split("│")[1:-1]] for line in screen.lines]
    dash = "\N{EN DASH}"
    assert [row for row in table if row] == [
        ["dice", "[a]", "0.7000", "", ""],
        ["", "", f"0.60{dash}0.80", "", ""],
        ["", "b", "0.7000", "-0.0123", "0.0031"],
        ["", "", f"0.60{dash}0.80", "-0.05 to 0.01", ""],
        ["", "c", "undefined", "undefined", ""],
    ]
    assert screen.lines[-4:] == [
        "intervals  of patients [sic]",
        "test  by rank",
        "note: the runs' thresholds differ: [0.5, 0.5, 0.25]",
        "files  [out]/ compare.json, compare.csv, scatter.png, methods.png",
    ]


def test_one_threshold_is_no_news() -> None:
    screen = Screen()
    record = {"runs": ["a", "b"], "subset": "test", "slices": 1, "thresholds": [0.5, 0.5]}
    record |= {"intervals": "none", "test": "by rank", "metrics": {"dice": [compared()] * 2}}
    show_comparison(record, Path("out"), screen)
    assert not any("thresholds" in line for line in screen.lines)


def test_settings_are_those_that_differ_from_the_preset_or_all() -> None:
    screen = Screen(soft_wrap=True)
    config = TrainConfig(
        data=DataConfig(classes=("effusion",)), model=ModelConfig(features=(4, 8)), seed=7
    )
    show_settings(config, screen, whole=False)
    (line,) = screen.lines
    assert line == (
        "settings: preset paper, but classes: [] -> ['effusion'], "
        "features: [32, 64, 128, 256, 512] -> [4, 8], seed: 0 -> 7"
    )
    screen = Screen(200)
    show_settings(TrainConfig.quick(), screen, whole=False)
    assert screen.lines == ["settings: preset quick, unchanged"]
    screen = Screen()
    show_settings(config, screen, whole=True)
    assert parse(TrainConfig, yaml.safe_load("\n".join(screen.lines))) == config


def test_a_note_is_a_line_and_keeps_its_brackets() -> None:
    screen = Screen()
    show_notes(["slice [red] was left out", "and so on"], screen)
    assert screen.lines == ["note: slice [red] was left out", "note: and so on"]


def test_a_name_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[31mred\u202e\x07 [bold]"
    screen = terminal.Screen()
    screen.print(f"[red]in[/red] {escape(name)}")
    table = Table("scan")
    table.add_row(escape(name))
    screen.print(table)
    out = capsys.readouterr().out
    assert out.count(r"\x1b[31mred\u202e\x07 [bold]") == 2
    assert all(c.isprintable() or c == "\n" for c in out)


@pytest.mark.parametrize(("told", "shown"), [((), False), (((1, 7), (2, 7)), True)])
def test_the_bar_appears_once_there_is_something_to_tell(
    told: tuple[tuple[int, int], ...], shown: bool
) -> None:
    screen = Screen(force_terminal=True)
    with terminal.counting_bar(screen, "decoding, once") as progress:
        for done, total in told:
            progress(done, total)
    text = screen.file.getvalue()
    assert ("decoding, once" in text) == shown
    assert ("2/7" in text) == shown


@pytest.mark.parametrize("columns", [60, 80])
def test_on_80_columns_no_cell_is_wrapped_or_cut(columns: int) -> None:
    screen = Screen(columns=columns)
    one = {"mean": 123.4, "interval": [110.2, 130.1], "pooled": 120.3, "patients_mean": 121.2}
    one |= {"slices": 1009, "empty": 12}
    show_scores(report({"sensitivity": one, "dice": one}), screen)
    headings = screen.lines[2]
    assert len(headings.rstrip()) <= columns
    if columns == 80:
        assert "Empty masks" in headings
        assert screen.cells(screen.lines[4]) == [
            *("Sensitivity", "123.4", "110.2 to 130.1", "121.2", "120.3", "1,009", "12")
        ]


def test_on_80_columns_long_names_of_runs_are_folded() -> None:
    screen = Screen(columns=80)
    record = {"runs": ["a", "covid_semiseg-fold-3-seed-12"], "subset": "test", "slices": 1}
    record |= {"thresholds": [0.5, 0.5], "intervals": "none", "test": "by rank"}
    show_comparison(record | {"metrics": {"sensitivity": [compared()] * 2}}, Path("out"), screen)
    assert max(map(len, screen.lines)) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(screen.lines)
    assert "-0.05 to 0.01" in " ".join(screen.lines)
