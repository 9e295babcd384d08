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


def part(own: dict[str, Any], network: float) -> dict[str, Any]:
    return {"own_grid": own, "network_size": overlap(network, 0.6)}


def report(own: dict[str, Any], **changes: Any) -> EvaluationReport:
    """As small a report as can be shown."""
    distances = {"hd95": {"mean": 12.5, "one_empty": 2}, "assd": {"mean": 3.25}}
    protocol = {"dice": 0.25772, "sensitivity": None, "specificity": 1.0}
    size_bin = {"detected": 2, "lesions": 5, "false": 7}
    shown = {
        "slices": 3,
        "subset": "test",
        "threshold": 0.437,
        "threshold_from": "the validation slices",
        "tolerance": 3.0,
        **part(own, 0.7),
        "surface": {"px": distances | {"nsd": {"mean": 0.5}}},
        "lesions": {"bins": [size_bin, size_bin]},
        "classes": {},
        "per_patient": {"[p1]": {"slices": 1, "dice": 0.4}, "p2": {"slices": 2, "dice": None}},
        "protocols": {"paper": protocol},
        "near_duplicates": None,
        "intervals": "no [intervals]: too few",
        "split": {"statement": "by hand [sic]", "warnings": ["a leak"]},
        "notes": ["a phantom"],
        "folder": "runs/[odd]/eval/test",
    }
    rest = {}  # which is not shown
    for name, kind in typing.get_type_hints(EvaluationReport).items():
        optional = types.NoneType in typing.get_args(kind)
        rest[name] = None if optional else (typing.get_origin(kind) or kind)()
    return EvaluationReport(**(rest | shown | changes))


def test_scores_are_a_table_and_a_line_for_each_other_thing() -> None:
    screen = Screen(soft_wrap=True)
    show_scores(report(overlap(0.81234, 0.9)), screen)
    assert screen.lines[0].strip() == "3 test slices, threshold 0.437 (the validation slices)"
    head = " ".join(screen.lines[1:4])
    for words in ("mean", "slices", "pooled", "network", "masks"):
        assert words in head
    assert "95 %" not in head
    assert "patients" not in head
    assert screen.row("dice") == ["0.8123", "0.9000", "0.7000", "3", "1"]
    table = next(i for i, line in enumerate(screen.lines) if line.startswith("distances"))
    assert screen.lines[table:] == [
        "distances  HD95 12.5000 px, ASSD 3.2500 px, surface Dice 0.5000 at 3 px; 2 slices with "
        "one mask empty",
        "lesions  4 of 10 found, 14 false ones",
        "patient [p1]  1 slice added up, Dice 0.4000",
        "patient p2  2 slices added up, Dice undefined",
        "protocol paper  Dice 0.2577, sensitivity undefined, specificity 1.0000",
        "intervals  no [intervals]: too few",
        "split  by hand [sic]",
        "empty masks  Dice, IoU 1 if both are empty; sensitivity undefined without a lesion; "
        "precision 0 where one was missed and nothing predicted",
        "note: a leak",
        "note: a phantom",
        "files  runs/[odd]/eval/test/ metrics.json, slices.csv, examples.png",
    ]


def test_intervals_and_patients_have_columns_where_there_are_any() -> None:
    screen = Screen()
    own = overlap(0.8, 0.9, interval=[0.7, 0.85], patients_mean=0.75)
    show_scores(report(own), screen)
    head = " ".join(screen.lines[1:4])
    assert "95 %" in head
    assert "patients" in head
    assert screen.row("dice")[:4] == ["0.8000", "0.70\N{EN DASH}0.85", "0.7500", "0.9000"]
    assert not any(line.startswith("patient ") for line in screen.lines)


def test_several_classes_are_named_and_have_no_threshold() -> None:
    screen = Screen()
    classes = {"effusion": part(overlap(None, None), 1.0)}
    show_scores(report(overlap(0.8, 0.9), classes=classes), screen)
    assert screen.lines[0].strip() == "3 test slices, each pixel of the most probable class"
    (place,) = (i for i, line in enumerate(screen.lines) if line.strip() == "effusion")
    row = screen.cells(screen.lines[place + 1])
    assert row == ["dice", "undefined", "undefined", "1.0000", "3", "1"]


def test_lesion_free_slices_and_sources_have_a_line_each() -> None:
    screen = Screen(soft_wrap=True)
    free = {"slices": 8, "any_marked": 0.25, "marked_area": 0.00125}
    free["with_lesion"] = overlap(0.61, 0.7)
    source = {"slices": 5, "own_grid": overlap(0.5, 0.5), "lesion_free": free | {"slices": 2}}
    own = overlap(0.8, 0.9)
    show_scores(report(own, lesion_free=free, per_source={"[a]": source, "b": source}), screen)
    assert (
        "8 lesion-free slices: any lesion marked in 25.0 %, mean marked area 0.125 % of the "
        "picture; the others alone: mean Dice 0.6100"
    ) in screen.lines
    for name in ("[a]", "b"):
        assert f"source {name}  5 slices, 2 lesion-free, mean Dice 0.5000" in screen.lines


def test_distances_are_shown_in_mm_where_they_are_known() -> None:
    screen = Screen()
    surface = report(overlap(0.8, 0.9)).surface["px"]
    millimetres = surface | {"hd95": {"mean": 7.0, "one_empty": 0}}
    show_scores(report(overlap(0.8, 0.9), surface={"px": surface, "mm": millimetres}), screen)
    (line,) = (line for line in screen.lines if line.startswith("distances"))
    assert "HD95 7.0000 mm" in line
    assert "at 3 mm" in line


@pytest.mark.parametrize(
    ("without", "said"),
    [(overlap(0.3, None), "2; Dice 0.3000 without them"), (None, "2; no others")],
)
def test_near_duplicates_are_counted_and_the_rest_scored(without: Any, said: str) -> None:
    screen = Screen()
    near_duplicates = {
        "slices": ["a", "b"],
        "among_them": overlap(0.9, 0.9),
        "without_them": without,
    }
    show_scores(report(overlap(0.8, 0.9), near_duplicates=near_duplicates), screen)
    assert f"near-duplicates of training slices  {said}" in screen.lines


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


@pytest.mark.parametrize("known", [True, False])
def test_on_80_columns_no_cell_is_wrapped(known: bool) -> None:
    screen = Screen(columns=80)
    changes = {"interval": [0.7, 0.85], "patients_mean": 0.5} if known else {}
    own = overlap(None, 0.9, **changes)
    show_scores(report(own, classes={"consolidation": part(own, 0.7)}), screen)
    assert max(map(len, screen.lines)) <= 80
    shown = ["0.70\N{EN DASH}0.85", "0.5000"] * known
    start = next(i for i, line in enumerate(screen.lines) if line.strip() == "consolidation")
    row = screen.cells(screen.lines[start + 1])
    assert row == ["dice", "undefined", *shown, "0.9000", "0.7000", "3", "1"]
    heading = next(i for i, line in enumerate(screen.lines) if line.strip().startswith("metric"))
    assert screen.lines[heading + 1].strip("\N{BOX DRAWINGS LIGHT HORIZONTAL} ") == ""


@pytest.mark.parametrize("columns", [60, 80])
def test_a_long_name_of_a_class_is_wrapped_and_no_number_cut(columns: int) -> None:
    screen = Screen(columns=columns)
    own = overlap(0.8, 0.9, interval=[0.7, 0.85], patients_mean=0.5)
    own = {"sensitivity": own["dice"], "dice": own["dice"]}
    small = {"own_grid": own, "network_size": own}
    show_scores(report(own, classes={"crazy_paving_and_more": small}, **small), screen)
    if columns == 80:
        assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(screen.lines)
    assert max(map(len, screen.lines)) <= columns


def test_on_80_columns_long_names_of_runs_are_folded() -> None:
    screen = Screen(columns=80)
    record = {"runs": ["a", "covid_semiseg-fold-3-seed-12"], "subset": "test", "slices": 1}
    record |= {"thresholds": [0.5, 0.5], "intervals": "none", "test": "by rank"}
    show_comparison(record | {"metrics": {"sensitivity": [compared()] * 2}}, Path("out"), screen)
    assert max(map(len, screen.lines)) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(screen.lines)
    assert "-0.05 to 0.01" in " ".join(screen.lines)
