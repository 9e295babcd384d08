"""The pages say what the kept figures say; its tables' arithmetic on figures made by hand."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.experiments import (
    learning_curves,
    table_ablation,
    table_experiments,
    table_semiseg,
    table_speed,
    table_spread,
    tables,
)
from benchmarks.experiments import results_store as kept_figures
from benchmarks.experiments import table_format as cells
from covid_jax.reporting.figures import new_figure


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
    texts = [page.read_text() for page in tables.PAGES]
    assert [tables.rendered(text) for text in texts] == texts
    named = re.findall(r"<!-- table: ([\w ]+) -->\n\|", "".join(texts))
    assert sorted(named) == sorted(tables.TABLES)
    assert "".join(texts).count("<!-- end -->") == len(named)


def test_slices_of_several_runs_and_their_groups() -> None:
    found = kept_figures.slices_of(
        [evaluation(["p1-2", "p1-1"], [0.2, 0.4]), evaluation(["c9"], [None])]
    )
    assert found.ids == ["c9", "p1-1", "p1-2"]
    assert found.groups == ["c9", "p1", "p1"]  # an unknown patient is its slice's own
    np.testing.assert_allclose(found.values["dice"], [np.nan, 0.4, 0.2])
    np.testing.assert_allclose(found.share, [0.1, 0.2, 0.1])
    assert found.of("Dataset-2").ids == ["p1-1", "p1-2"]
    assert found.part(found.share > 0.15).groups == ["p1"]
    assert cells.mean(found.values["dice"]) == "0.300"
    with pytest.raises(ValueError, match="c9: tested twice"):
        kept_figures.slices_of([evaluation(["c9"], [0.2]), evaluation(["c9"], [0.4])])


def test_a_difference_is_second_less_first_of_the_same_slices() -> None:
    names = [f"c{i:02d}" for i in range(12)]
    first = kept_figures.slices_of([evaluation(names, [0.5] * 12)])
    second = kept_figures.slices_of([evaluation(names[::-1], [0.6] * 11 + [0.7])])
    change, interval, p, counts = cells.difference(first, second, "dice")
    assert (change, counts) == ("+0.108", "12 / 12")
    low, high = map(float, interval.split(" to "))
    assert 0.1 <= low <= 0.108 <= high < 0.14
    assert float(p) < 0.01
    with pytest.raises(ValueError, match="not the same slices"):
        cells.difference(first.part(np.arange(12) < 6), second, "dice")


def test_slices_of_one_patient_count_as_one() -> None:
    names = [f"p{i % 3}-{i:02d}" for i in range(12)]
    pair = [kept_figures.slices_of([evaluation(names, [value] * 12)]) for value in (0.5, 0.6)]
    change, interval, _, counts = cells.difference(*pair, "dice")
    assert (change, interval, counts) == ("+0.100", "", "12 / 3")  # three are too few


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Table 1 with 30 slices of two sources; the rows' Dice differ by known amounts."""
    monkeypatch.setattr(kept_figures, "RESULTS", tmp_path)
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
    keep(tmp_path / "history", table1=runs, slice_split=runs[2:4])
    return tmp_path


def row_of(table: str, start: str) -> list[str]:
    """Of the row that starts so."""
    (row,) = (line for line in table.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in row.split("|")[1:-1]]


@pytest.mark.usefixtures("kept")
def test_table_1_by_hand() -> None:
    """Ours + FTL: 10 slices at 0.7, 20 at 0.9, of them all but 7 or 8 of each source."""
    found = row_of(table_ablation.by_patient(), "ours + FTL")
    assert found[:2] == ["ours + FTL", "30"]
    assert found[2].startswith("0.833 (")
    assert float(found[5]) + float(found[6]) == pytest.approx(2 * 0.8333, abs=2e-3)
    assert found[7:] == ["0.831", "0.867", "0.993"]
    assert row_of(table_ablation.by_patient(), "baseline + DL")[2].startswith("0.500")


@pytest.mark.usefixtures("kept")
def test_claims_and_sizes_by_hand() -> None:
    claims = table_ablation.claims()
    assert len(claims.splitlines()) == 2 + 2 * len(table_ablation.CLAIMS)
    # Of COVID-SemiSeg's 15 slices ten gain 0.15, the five after each fold's first five 0.3.
    row = row_of(claims, "both together are best | dice: ours + FTL less ours + DL | COVID-SemiSeg")
    assert row[3] == "+0.200"
    assert row[6] == "15 / 15"
    gain = row_of(table_ablation.sizes(), "COVID-SemiSeg | gain of the smallest")[1]
    # Slices of the smallest third gain 0.2, those of the largest, all past the fifth, 0.4.
    assert gain == "gain of the smallest less the largest's: -0.200 (-0.200 to -0.200)"


def test_a_gap_divides_by_the_slices_drawn() -> None:
    """Nine groups of one slice at 1 and two at 0: the means of any resample are 1 and 0."""
    values, groups = np.tile([1.0, 0.0, 0.0], 9), np.repeat(np.arange(9), 3)
    one = values == 1
    assert table_ablation.gap_of_means(values, one, ~one, groups) == (1.0, 1.0, 1.0)
    lone = np.arange(27) == 0  # in two resamples of three: the others say nothing of it
    assert table_ablation.gap_of_means(values, lone, ~one, groups) == (1.0, 1.0, 1.0)
    spread = table_ablation.gap_of_means(np.repeat(np.arange(9.0), 3), one, ~one, groups)
    assert spread == (0.0, 0.0, 0.0)


def test_the_split_comparison_by_hand(kept: Path) -> None:
    """The slice split's runs stand in by the baseline's with FTL: less by a known amount."""
    # Dataset-2's slices are the eighth and later of each fold: ours 0.9, the baseline 0.7.
    found = row_of(table_ablation.slice_split(), "Dataset-2 | dice")
    assert found[2:5] == ["0.900", "0.700", "-0.200"]
    (kept / "history/slice_split.json").write_text('{"runs": []}')
    with pytest.raises(ValueError, match=r"slice_split\.json: no run"):
        table_ablation.slice_split()


def test_the_evaluation_asked_for_is_the_one_taken() -> None:
    ways = [
        evaluation(["c1"], [value], tta=tta, threshold_from=source)
        for value, tta, source in ((0.1, False, "given"), (0.2, True, "given"), (0.3, False, "val"))
    ]
    run = {"evaluations": ways}
    assert kept_figures.scored(run) is ways[0]
    assert kept_figures.scored(run, tta=True) is ways[1]
    assert kept_figures.scored(run, val=True) is ways[2]
    with pytest.raises(ValueError, match="not enough"):
        kept_figures.scored(run, tta=True, val=True)


def test_mean_and_deviation_of_the_sample() -> None:
    assert cells.mean_sd([0.70, 0.72, 0.74]) == "0.720 ± 0.020"
    assert cells.mean_sd([0.7]) == "0.700"


def run_of(name: str, dice: list[float], subset: str = "test", **more: object) -> dict:
    """A run whose slices of COVID-SemiSeg ('c') or Dataset-2 ('p') have these Dice values."""
    names = [f"{'p' if 'radiopaedia' in name else 'c'}{i:02d}" for i in range(len(dice))]
    scored = evaluation(names, dice, subset=subset)
    scored["own_grid"] = dict.fromkeys(kept_figures.METRICS, float(np.mean(dice)))
    return {"run": name, "evaluations": [scored], **more}


def keep(folder: Path, **files: list[dict]) -> None:
    folder.mkdir(exist_ok=True)
    for name, runs in files.items():
        (folder / f"{name}.json").write_text(json.dumps({"runs": runs}))


def test_moved_by_a_seed_and_by_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds 0.5, 0.6 and 0.8 differ by 0.1, 0.3 and 0.2; a repetition by nothing."""
    monkeypatch.setattr(kept_figures, "RESULTS", tmp_path)
    version = {"versions": {"jax": "0.1"}}
    usual = [
        run_of(f"a/ours-ftl/seed-{seed}", [dice, dice], config={"seed": seed}, **version)
        for seed, dice in enumerate((0.5, 0.6, 0.8))
    ]
    again = [
        run_of(f"r{part}seed-0", [0.5, 0.5], config={"seed": 0}, **version)
        for part in table_spread.AGAIN.values()
    ]
    newer = {"versions": {"jax": "0.2"}}
    again[-1] = run_of("r/bfloat16/seed-0", [0.6, 0.42], config={"seed": 0}, **newer)
    keep(tmp_path, ablation_semiseg=usual, repeat=again)
    text = table_spread.repeat()
    assert row_of(text, "another seed")[1:] == ["3", "0.2000", "0.3000", "0.3000"]
    assert row_of(text, "the same command")[1:] == ["1", "0.0000", "0.0000", "0.0000"]
    assert row_of(text, "bfloat16")[0].endswith("float32 (jax 0.2 for 0.1)")
    assert row_of(text, "bfloat16")[1:] == ["1", "0.0100", "0.0100", "0.1000"]


def test_across_tells_own_from_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_figures, "RESULTS", tmp_path)
    runs = []
    for name, own, other in (("covid_semiseg", 0.7, 0.2), ("radiopaedia", 0.4, 0.3)):
        run = run_of(f"x/{name}/seed-0", [own, own])
        foreign = {"covid_semiseg": "radiopaedia", "radiopaedia": "covid_semiseg"}[name]
        run["evaluations"] += run_of(foreign, [other] * 3, subset="all")["evaluations"]
        for way, data in zip(run["evaluations"], (name, foreign), strict=True):
            way["command"] = f"eval.py --data {'turned/' if name < data else 'data/'}{data}"
        runs.append(run)
    keep(tmp_path / "history", across=runs)
    rows = [line.split(" | ") for line in table_spread.across().splitlines()[2:]]
    assert [row[1:4] for row in rows] == [
        ["COVID-SemiSeg", "2 / 2", "0.700"],
        ["Dataset-2, turned", "3 / 1", "0.200"],
        ["Dataset-2", "2 / 1", "0.400"],
        ["COVID-SemiSeg", "3 / 3", "0.300"],
    ]


def test_readings_are_compared_fold_by_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folds in any order; 0.7 and 0.3 against the default's 0.5 and 0.4; then one of them alone."""
    monkeypatch.setattr(kept_figures, "RESULTS", tmp_path)

    def runs(part: str, *dice: float) -> list[dict]:
        return [
            {
                "run": f"t{part}{fold}",
                "best": {"val_dice": value},
                "split": {"sha256": f"fold {fold}"},
                "config": {"data": {"fold": fold}},
            }
            for fold, value in list(enumerate(dice, start=1))[::-1]
        ]

    usual = runs("/ours-ftl/", 0.5, 0.4)
    keep(tmp_path / "history", table1=usual + runs("/baseline-ftl/", 0.7, 0.3))
    row = row_of(table_spread.readings(), "none")
    assert row[1:] == ["0.700", "0.300", "+0.050", "1"]
    keep(tmp_path / "history", table1=usual + runs("/baseline-ftl/", 0.7))  # one fold
    assert row_of(table_spread.readings(), "none")[1:] == ["0.700", "", "+0.200", "1"]


def test_speed_of_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contender that the second run left out, and another ratio in it."""
    monkeypatch.setattr(kept_figures, "RESULTS", tmp_path)
    ours = {"median": 0.5}
    other = {"median": 0.25, "ours_over_it": 2.0}
    other |= {"ours_in_these_turns": [0.5, 0.6], "samples": [0.25, 0.2]}
    first = {"covid_jax float32": ours, "other": other, "slow": other | {"median": 1.0}}
    second = {"covid_jax float32": ours, "other": other | {"ours_over_it": 1.9}}
    for name, contenders in (("training", first), ("training_earlier", second)):
        cases = [{"size": 64, "batch": 2, "contenders": contenders}]
        (tmp_path / f"{name}.json").write_text(json.dumps({"measured": cases}))
    rows = [line.split(" | ") for line in table_speed.training().splitlines()[2:]]
    assert [[cell.strip(" |") for cell in row[2:]] for row in rows] == [
        ["covid_jax float32", "500", "500", "", ""],
        ["other", "250", "250", "2.00 (2.00 to 3.00)", "1.90 (2.00 to 3.00)"],
        ["slow", "1000", "", "2.00 (2.00 to 3.00)", ""],
    ]
    (tmp_path / "training.json").rename(tmp_path / "latency_batches.json")
    assert row_of(table_speed.batches(), "64 | 2 | slow")[3:] == ["1000", "2.00 (2.00 to 3.00)"]


def test_published_rows_and_ours_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds, each judged in four ways; every way has its own figures."""
    monkeypatch.setattr(kept_figures, "RESULTS", tmp_path)
    runs = []
    for seed in (0, 2):
        ways = []
        for place, (tta, source) in enumerate(itertools.product((False, True), ("given", "val"))):
            dice = 0.5 + place / 10 + seed / 100
            way = evaluation(["c1", "c2"], [dice, dice], tta=tta, threshold_from=source)
            means = {"dice": dice, "sensitivity": 0.6, "specificity": 0.9}
            way |= {"own_grid": means, "threshold": 0.25}
            way["protocols"] = {"covid-semiseg": means | {"dice": dice - 0.1, "mae": 0.05}}
            ways.append(way)
        validated = evaluation(["c3"], [0.4], subset="val")
        flipped = evaluation(["c3"], [0.4], subset="val", tta=True)
        for way in (validated, flipped):
            way["own_grid"] = {"dice": 0.4}
        split = {"near_training": ["c2"]}
        run = {"run": f"s-{seed}", "best": {"epoch": 3}, "split": split}
        runs.append(run | {"evaluations": [*ways, validated, flipped]})
    # Found are 3 and 5 of 10 lesions each, with 4 and 0 false ones on two slices each.
    for run, hit, false in zip(runs, (3, 5), (4, 0), strict=True):
        size = {"low": 100, "high": None, "lesions": 10, "detected": hit, "false": false}
        run["evaluations"][0]["lesions"] = {"bins": [size]}
        run["evaluations"][0]["calibration"] = {"ece": hit / 10, "brier": 0.1, "mae": 0.2}
    keep(tmp_path, semiseg=runs)
    text = table_semiseg.published()
    assert row_of(text, "Inf-Net")[1:6] == ["1", "0.738", "0.718", "0.963", "0.682"]
    row = row_of(text, "ours + FTL, validation's threshold |")
    assert row[1:3] == ["2", "0.610 ± 0.014"]
    assert row[5] == "0.510 ± 0.014"
    assert row_of(text, "ours + FTL, threshold 0.5, flips")[2] == "0.710 ± 0.014"
    assert row_of(table_semiseg.lesions(), "100 px and more")[1:] == ["10", "40%", "1.00"]
    assert row_of(table_semiseg.calibration(), "expected")[1] == "0.400 ± 0.141"
    row = row_of(table_semiseg.runs(), "`s-2`")
    assert row[1:] == ["3", "0.400", "0.400", "0.520", "0.520 (1)", "0.520 (1)", "0.820 at 0.250"]


def test_first_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_figures, "RESULTS", tmp_path)
    seconds = {"import": {"median": 0.7}, "first_slice": {"median": 3.987}}
    record = {"first_slice": {"cold": seconds, "cached": seconds}}
    (tmp_path / "latency.json").write_text(json.dumps(record))
    assert row_of(table_speed.first_slice(), "cached")[1:] == ["0.70 s", "3.99 s"]


def test_placements_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds in any order."""
    monkeypatch.setattr(kept_figures, "RESULTS", tmp_path)
    files = {}
    for name, part, values in (
        ("ablation_semiseg", "/ours-ftl/", (0.5, 0.7)),
        ("readings", "/skip/", (0.4, 0.3)),
    ):
        files[name] = [
            {"run": f"x{part}{seed}", "config": {"seed": seed}, "best": {"val_dice": value}}
            for seed, value in reversed(list(enumerate(values)))
        ]
    keep(tmp_path, ablation_semiseg=files["ablation_semiseg"])
    keep(tmp_path / "history", readings=files["readings"])
    text = table_spread.placement()
    assert row_of(text, "encoder and decoder")[1:] == ["0.500", "0.700", "0.600 ± 0.141"]
    assert row_of(text, "on the skips alone")[1:3] == ["0.400", "0.300"]


def test_means_over_patients_and_lesion_free_slices() -> None:
    """Two patients of two slices each, one of them without lesion, and an unknown one."""
    columns = {
        "patient": ["a", "a", "b", "b", "unknown"],
        "lesion_pixels": [5.0, 5.0, 5.0, 0.0, 5.0],
        "predicted_pixels": [5.0, 5.0, 5.0, 20.0, 5.0],
        "height": [10.0] * 5,
        "width": [10.0] * 5,
        "dice": [0.8, 0.6, 0.5, 0.0, 0.1],
    }
    found = table_experiments.Measured({"slices": columns})
    assert found.patients_mean() == "0.600 (2)"  # 0.7 and 0.5
    assert found.mean_dice() == "0.500"
    assert found.lesion_free() == ["100%", "20.00%"]


def test_learning_curves_draw_every_seed_and_name_a_row_once() -> None:
    def run(attention: str, loss: str, dice: list[float]) -> dict:
        config = {"model": {"attention": attention}, "loss": {"loss": loss}}
        return {"config": config, "curves": {"epoch": [1, 2], "val_dice": dice}}

    axis = new_figure(3, 3).subplots()
    seeds = [run("none", "dice", [0.5, 0.6]), run("none", "dice", [0.4, 0.7])]
    learning_curves.draw_rows(axis, [*seeds, run("encoder_decoder", "ftl", [0.6, 0.8])])
    drawn = [list(line.get_ydata()) for line in axis.get_lines()]
    assert drawn == [[0.5, 0.6], [0.4, 0.7], [0.6, 0.8]]
    assert axis.get_legend_handles_labels()[1] == ["baseline + DL", "ours + FTL"]
