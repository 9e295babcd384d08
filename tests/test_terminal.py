"""What stands on the terminal: the numbers given, whole words, and no name taken for markup."""

import io
from typing import Any

import pytest
from rich.console import Console

from covid_jax.config import DataConfig, ModelConfig, TrainConfig
from covid_jax.data.survey import Survey
from covid_jax.terminal import (
    decoding_bar,
    show_config,
    show_notes,
    show_pairs,
    show_scores,
    show_survey,
)
from tests.hand_made import make_dataset


class Screen(Console):
    """A terminal whose lines can be read."""

    def __init__(self, columns: int = 140, **settings: Any) -> None:
        super().__init__(file=io.StringIO(), width=columns, highlight=False, **settings)

    @property
    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()

    def row(self, start: str) -> list[str]:
        """The cells after the first of the one table row that starts so."""
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in self.lines]
        (found,) = [row for row in rows if row and row[0] == start]
        return found[1:]


PART = Survey(
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
    pictures = PART._replace(
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


def scores(mean: float | None, pooled: float | None) -> dict[str, Any]:
    return {"dice": {"mean": mean, "pooled": pooled, "slices": 3, "empty": 1}}


def test_scores_name_the_region_and_what_is_undefined() -> None:
    screen = Screen()
    show_scores(
        {
            "slices": 3,
            "subset": "test",
            "threshold": 0.5,
            "own_grid": scores(0.81234, 0.9),
            "network_size": scores(0.7, 0.6),
            "classes": {
                "effusion": {"own_grid": scores(None, None), "network_size": scores(1.0, 1.0)}
            },
            "split": {"statement": "by hand [sic]", "warnings": ["a leak"]},
            "notes": ["a phantom"],
            "folder": "runs/[odd]/eval/test",
        },
        screen,
    )
    assert "3 test slices, threshold 0.5" in screen.lines[0]
    assert screen.row("dice") == ["0.8123", "0.9000", "0.7000", "3", "1"]
    assert screen.row("effusion dice") == ["undefined", "undefined", "1.0000", "3", "1"]
    assert screen.lines[-4:] == [
        "split  by hand [sic]",
        "note: a leak",
        "note: a phantom",
        "files  runs/[odd]/eval/test/ metrics.json, slices.csv, examples.png",
    ]


def test_every_setting_stands_in_its_groups_line() -> None:
    screen = Screen(soft_wrap=True)
    config = TrainConfig(
        data=DataConfig(classes=("effusion",)), model=ModelConfig(features=(4, 8)), seed=7
    )
    show_config(config, screen)
    lines = {line.split()[0]: line for line in screen.lines}
    assert list(lines) == ["data", "augmentation", "model", "loss", "optimizer", "run"]
    assert "classes ['effusion']" in lines["data"]
    assert "features [4, 8]" in lines["model"]
    assert "seed 7" in lines["run"]
    assert "preset paper" in lines["run"]


def test_a_note_is_a_line_and_keeps_its_brackets() -> None:
    screen = Screen()
    show_notes(["slice [red] was left out", "and so on"], screen)
    assert screen.lines == ["note: slice [red] was left out", "note: and so on"]


@pytest.mark.parametrize(("told", "shown"), [((), False), (((1, 7), (2, 7)), True)])
def test_the_bar_appears_once_there_is_something_to_tell(
    told: tuple[tuple[int, int], ...], shown: bool
) -> None:
    screen = Screen(force_terminal=True)
    with decoding_bar(screen) as progress:
        for done, total in told:
            progress(done, total)
    text = screen.file.getvalue()
    assert ("decoding, once" in text) == shown
    assert ("2/7" in text) == shown


def test_on_80_columns_a_class_and_its_metric_stay_on_one_line() -> None:
    screen = Screen(columns=80)
    part = {"own_grid": scores(None, 0.9), "network_size": scores(0.7, 0.6)}
    report = {"slices": 3, "subset": "test", "threshold": 0.5, "notes": [], "folder": "f"}
    split = {"statement": "by hand", "warnings": []}
    show_scores(report | part | {"split": split, "classes": {"consolidation": part}}, screen)
    assert max(map(len, screen.lines)) <= 80
    assert screen.row("consolidation dice") == ["undefined", "0.9000", "0.7000", "3", "1"]
