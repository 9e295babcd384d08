"""The report and figures of an evaluation: every slice, the right numbers, nothing left over."""

import base64
import dataclasses
import functools
import json
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from covid_jax.data import SliceDataset
from covid_jax.errors import RunError
from covid_jax.evaluation import EvaluationReport, evaluate
from covid_jax.inference import Run, load_run
from covid_jax.reporting import evaluation_report as pages
from covid_jax.reporting.evaluation_report import caption, draw_evaluation
from covid_jax.runs.config import EvalConfig, ModelConfig
from covid_jax.splits.leakage import Crossing
from covid_jax.splits.split import Split
from tests.support.scored import by_hand
from tests.support.synthetic import KINDS, SIZE, blob_dataset, kinds_dataset, tiny_config
from tests.support.tiny_runs import untrained_run

FIGURES = ("area", "threshold", "reliability")
DRAWN = {f"{name}.{ending}" for name in FIGURES for ending in ("png", "pdf")} | {"examples.pdf"}
ALWAYS = {"metrics.json", "slices.csv", "masks.npz", "examples.png"}
ALL = EvalConfig("all", report=True)


class Page(HTMLParser):
    """A report's tables by their heading, its JSON, its pictures' names and all of its words."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: dict[str | None, str] = {}
        self.pictures: dict[str, bytes] = {}
        self.words: list[str] = []
        self.unfolded: list[str] = []
        self._open: list[str] = []
        self._heading, self._script = "", None
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        given = dict(attrs)
        self._open.append(tag)
        if tag == "tr":
            self.tables.setdefault(self._heading, []).append([])
        if tag == "script":
            self._script = given.get("id")
        if tag == "img" and given["src"].startswith("data:image/png;base64,"):
            self.pictures[given["alt"]] = base64.b64decode(given["src"].partition(",")[2])

    def handle_endtag(self, tag: str) -> None:
        while self._open.pop() != tag:  # what HTML does not close
            pass

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "script":
            self.scripts[self._script] = data
            return
        self.words.append(data)
        if inside == "h2":
            self._heading = data
            self.unfolded += [data] * ("details" not in self._open)
        if inside in ("th", "td"):
            self.tables[self._heading][-1].append(data)

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts["data"] or "")

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def row(self, table: str, metric: str) -> list[str]:
        (heading,) = (name for name in self.tables if name.startswith(table))
        (found,) = (row[1:] for row in self.tables[heading] if row and row[0] == metric)
        return found

    def maps(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Probability (0 to 255) and truth of a slice as the page has them."""
        height, width = self.data["slices"][place]["size"]
        packed = base64.b64decode((self.scripts[f"pixels-{place}"] or "").split(",")[1])
        values = np.frombuffer(zlib.decompress(packed), np.uint8)
        steps = values[: height * width].reshape(height, width)
        probability = np.cumsum(np.cumsum(steps, 0, dtype=np.uint8), 1, dtype=np.uint8)
        return probability, np.unpackbits(values[steps.size :])[: steps.size].reshape(steps.shape)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Without skill; its name is odd."""
    folder = tmp_path_factory.mktemp("runs") / "<one> & 'two'"
    return untrained_run(tiny_config(), blob_dataset(), folder)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Any]:
    """What the figures of ``report`` were given, by the function that draws them."""
    return {}


@pytest.fixture(scope="module")
def report(run: Run, drawn: dict[str, Any]) -> EvaluationReport:

    def note(name: str, draw: Callable[..., Any], *given: Any) -> Any:
        drawn[name] = given
        return draw(*given)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("area_figure", "sweep_figure"):
            patch.setattr(pages, name, functools.partial(note, name, getattr(pages, name)))
        return evaluate_and_draw(run, blob_dataset(), ALL)


@pytest.fixture(scope="module")
def page(report: EvaluationReport) -> Page:
    return Page(Path(report.folder) / "report.html")


def evaluate_and_draw(run: Run, dataset: SliceDataset, config: EvalConfig) -> EvaluationReport:
    """What the command does."""
    evaluation = evaluate(run, dataset, config)
    draw_evaluation(evaluation, report=config.report)
    return evaluation.report


def files(report: EvaluationReport) -> set[str]:
    return {path.name for path in Path(report.folder).iterdir()}


def masks_by_hand(run: Run, at: float = 0.5) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(run.predict(item.image) > at, item.mask > 0) for item in blob_dataset().slices]


def test_a_report_brings_all_figures_in_both_formats(report: EvaluationReport) -> None:
    assert files(report) == ALWAYS | DRAWN | {"report.html"}
    for name in DRAWN:
        start = (Path(report.folder) / name).read_bytes()[:4]
        assert start == (b"\x89PNG" if name.endswith("png") else b"%PDF")


def test_the_page_holds_the_figures_as_they_lie_beside_it(
    report: EvaluationReport, page: Page
) -> None:
    assert set(page.pictures) == {name.capitalize() for name in ("examples", *FIGURES)}
    for name, png in page.pictures.items():
        assert png == (Path(report.folder) / f"{name.lower()}.png").read_bytes()


def test_every_slice_stands_in_the_page_with_its_numbers(run: Run, page: Page) -> None:
    slices = blob_dataset().slices
    rows = page.data["slices"]
    assert [row["id"] for row in rows] == [item.id for item in slices]
    assert [row["patient"] for row in rows] == [item.patient for item in slices]
    assert {row["source"] for row in rows} == {"blobs"}
    for row, item, (found, there) in zip(rows, slices, masks_by_hand(run), strict=True):
        assert tuple(row["grid"]) == item.mask.shape
        for name, value in by_hand(found, there).items():
            assert row["values"][name] == pytest.approx(value)
        assert row["values"]["lesion_pixels"] == there.sum()
        assert not {"tp", "height", "patient", "slice"} & row["values"].keys()


def test_the_page_s_maps_are_the_network_s(run: Run, page: Page) -> None:
    for place, item in enumerate(blob_dataset().slices):
        probability, truth = page.maps(place)
        np.testing.assert_allclose(probability, 255 * run.predict(item.image), atol=0.502)
        np.testing.assert_array_equal(truth, item.mask)


def test_tables_hold_means_intervals_and_pooled_values(
    run: Run, report: EvaluationReport, page: Page
) -> None:
    pairs = masks_by_hand(run)
    flat_pairs = [(found.ravel(), there.ravel()) for found, there in pairs]
    of = [flat_pairs[place : place + 2] for place in range(0, 12, 2)]  # two slices a patient
    joined = (np.concatenate([pair[i] for pair in flat_pairs]) for i in (0, 1))
    pooled = by_hand(*joined)
    for name, value in pooled.items():
        mean = np.mean([by_hand(*pair)[name] for pair in pairs])
        metric = "IoU" if name == "iou" else name.capitalize()
        cells = page.row("On each slice's own grid at threshold 0.5 (given)", metric)
        assert (cells[0], cells[3], cells[4]) == (f"{mean:.3f}", f"{value:.3f}", "12")
        patients = [by_hand(*map(np.concatenate, zip(*flat, strict=True)))[name] for flat in of]
        assert cells[2] == f"{np.mean(patients):.3f}"
        low, high = report.own_grid[name]["interval"]
        assert cells[1] == f"{low:.3f} to {high:.3f}"
        small = report.network_size[name]["mean"]
        assert page.row("At the network's size, 32 x 32", metric)[0] == f"{small:.3f}"
    hausdorff = report.surface["px"]["hausdorff"]["mean"]
    assert page.row("Distances between boundaries, in px", "Hausdorff (px)")[0] == (
        f"{hausdorff:.1f}" if hausdorff >= 10 else f"{hausdorff:.3f}"
    )


def test_the_page_says_what_was_measured_and_how(report: EvaluationReport, page: Page) -> None:
    for words in (
        "<one> & 'two': 12 all slices",
        "6 patients resampled with all their slices",
        "the run was trained on slices in this subset",
        "Random split by patient, balanced in source and lesion size, seed 0.",
        "Protocol: covid-semiseg",
        f"{report.protocols['covid-semiseg']['dice']:.4f}",
        "Research use only",
        "Each patient, slices added up",
        f"Dice {report.per_patient['p3']['dice']:.4f}",
    ):
        assert words in page.text
    assert page.data["threshold"] == 0.5
    assert page.data["decision"] == "at threshold 0.5"


@pytest.mark.usefixtures("report")
def test_figures_are_given_these_slices(run: Run, drawn: dict[str, Any]) -> None:
    """Areas and Dice; the curve over thresholds."""
    dices = [by_hand(*pair)["dice"] for pair in masks_by_hand(run)]
    areas, shown, lesions, unit = drawn["area_figure"]
    np.testing.assert_allclose(shown, dices)
    assert areas.tolist() == [item.mask.sum() for item in blob_dataset().slices]
    assert (unit, sum(part["lesions"] for part in lesions["bins"])) == ("px", 12)
    curves, marks = drawn["sweep_figure"]
    assert marks == {"one half": 0.5}
    lower = np.mean([by_hand(*pair)["dice"] for pair in masks_by_hand(run, np.float32(0.46))])
    assert curves["all slices"][460] == pytest.approx(lower, abs=1e-6)


def test_a_slice_without_lesion_and_the_curves_of_the_training(tmp_path: Path) -> None:
    dataset = blob_dataset(slices=1)
    first, *others = dataset.slices
    clean = dataclasses.replace(first, mask=np.zeros_like(first.mask))
    mixed = SliceDataset("mixed", (clean, *others), SIZE)
    run = untrained_run(tiny_config(), mixed, tmp_path / "plain")
    Image.new("RGB", (30, 20)).save(run.folder / "curves.png")
    report = evaluate_and_draw(run, mixed, ALL)
    assert files(report) == ALWAYS | DRAWN | {"report.html"}
    page = Page(Path(report.folder) / "report.html")
    assert set(page.pictures) == {"Examples", "Curves", "Area", "Threshold", "Reliability"}
    assert page.data["slices"][0]["values"]["sensitivity"] is None
    assert page.row("On each slice's own grid", "Sensitivity")[4:] == ["5", "1"]


def test_classes_have_tables_and_columns_of_their_own(tmp_path: Path) -> None:
    targets = KINDS[::2]
    dataset = kinds_dataset(targets)
    data = dataclasses.replace(tiny_config().data, classes=targets)
    model = ModelConfig(features=(4, 8), attention="none")
    run = untrained_run(tiny_config(data=data, model=model), dataset, tmp_path / "kinds")
    report = evaluate_and_draw(run, dataset, ALL)
    page = Page(Path(report.folder) / "report.html")
    assert page.data["decision"] == "by the most probable class"
    assert any("each pixel of the most probable class" in heading for heading in page.tables)
    for k, name in ((1, "ground_glass"), (2, "effusion")):
        dices = []
        for item, row in zip(dataset.slices, page.data["slices"], strict=True):
            maps = run.predict(item.image)
            ids = np.concatenate([1 - maps.sum(-1, keepdims=True), maps], -1).argmax(-1)
            found, there = ids == k, np.array([0, 1, 0, 2])[item.mask] == k
            dices.append(2 * np.sum(found & there) / (found.sum() + there.sum()))
            assert row["values"][f"dice_{name}"] == pytest.approx(dices[-1])
        assert page.row(f"{name}, on the own grid", "Dice")[0] == f"{np.mean(dices):.3f}"
    probability, truth = page.maps(0)
    lesion = run.predict(dataset.slices[0].image).sum(-1)
    np.testing.assert_allclose(probability, 255 * lesion, atol=0.51)
    np.testing.assert_array_equal(truth, np.isin(dataset.slices[0].mask, (1, 3)))


def test_the_caption_names_phantoms_and_leaks(tmp_path: Path) -> None:
    """Who sees the figure alone must know what was scored."""
    phantom = dataclasses.replace(
        blob_dataset(), notes=("synthetic phantom (seed 0): no patient was scanned",)
    )
    captions = []
    for split in ("patient", "paper"):
        data = dataclasses.replace(tiny_config().data, split=split)
        run = untrained_run(tiny_config(data=data), phantom, tmp_path / split)
        report = evaluate(run, phantom, EvalConfig("test", tta=True)).report
        captions.append(caption(report))
    honest, leaky = captions
    mean = report.own_grid["dice"]["mean"]
    assert leaky == (
        f"Synthetic phantom. {report.slices} test slices, mean Dice {mean:.3f} at threshold 0.5, "
        "averaged over flips. The paper's leaky split. Research use only; not for diagnosis or "
        "treatment."
    )
    assert "leaky" not in honest


def test_a_folder_that_cannot_be_written_is_named(run: Run, tmp_path: Path) -> None:
    evaluation = evaluate(run, blob_dataset(), out=tmp_path / "there")
    gone = dataclasses.replace(evaluation.report, folder=str(tmp_path / "gone"))
    evaluation = evaluation._replace(report=gone)
    with pytest.raises(RunError, match="gone: cannot be written"):
        draw_evaluation(evaluation)


def test_lesion_free_slices_and_sources_have_tables_of_their_own(tmp_path: Path) -> None:
    """Two of six slices have no lesion; they are from another collection than the rest."""
    dataset = blob_dataset(slices=1)
    first, second, *others = dataset.slices
    free = [
        dataclasses.replace(item, mask=np.zeros_like(item.mask), source="healthy")
        for item in (first, second)
    ]
    joined = SliceDataset("joined", (*free, *others), SIZE)
    model = ModelConfig(features=(4, 8), attention="none")
    run = untrained_run(tiny_config(model=model), joined, tmp_path / "run")
    report = evaluate_and_draw(run, joined, ALL)
    page = Page(Path(report.folder) / "report.html")
    marked = [(run.predict(item.image) > 0.5).mean() for item in free]
    words = (
        f"2 lesion-free slices: any lesion marked in {50 * np.count_nonzero(marked):.1f} %, mean "
        f"marked area {100 * np.mean(marked):.3g} % of the picture."
    )
    assert page.text.count(words) == 2  # of all slices, and of that source
    assert "Over 6 slices, of which 2 without lesion have Dice 1 if nothing is marked" in page.text
    pairs = [(run.predict(item.image) > 0.5, item.mask > 0) for item in others]
    dice = np.mean([by_hand(*pair)["dice"] for pair in pairs])
    assert page.row("Slices with a lesion alone, 4", "Dice")[0] == f"{dice:.3f}"
    assert page.row("Source blobs, 4 slices", "Dice")[0] == f"{dice:.3f}"
    healthy = np.mean([float(share == 0) for share in marked])
    assert float(page.row("Source healthy, 2 slices", "Dice")[0]) == healthy


def test_the_best_the_median_and_the_worst_slice_are_at_the_top(run: Run, page: Page) -> None:
    dices = [by_hand(*pair)["dice"] for pair in masks_by_hand(run)]
    order = sorted(range(12), key=lambda place: -dices[place])
    picked = {pick["label"]: pick["id"] for pick in page.data["picks"]}
    ids = [item.id for item in blob_dataset().slices]
    assert picked == {"best": ids[order[0]], "median": ids[order[6]], "worst": ids[order[11]]}


@pytest.fixture(scope="module")
def tested(run: Run) -> tuple[EvaluationReport, Page, Crossing]:
    """The test part, of which one slice is all but a copy of one that trained."""
    path = run.folder / "split.json"
    before, split = path.read_bytes(), Split.load(path)
    twin = Crossing(split.train[0].slice, split.test[0].slice, 0.9, "train", "test")
    dataclasses.replace(split, similar=(twin,)).save(path)
    try:
        report = evaluate_and_draw(load_run(run.folder), blob_dataset(), EvalConfig(report=True))
    finally:
        path.write_bytes(before)
    return report, Page(Path(report.folder) / "report.html"), twin


def test_near_duplicates_of_training_slices_are_set_apart_and_marked(
    tested: tuple[EvaluationReport, Page, Crossing],
) -> None:
    report, page, twin = tested
    assert report.near_duplicates["slices"] == [twin.second]
    marked = {row["id"]: row["note"] for row in page.data["slices"]}
    assert twin.first in marked.pop(twin.second)
    assert set(marked.values()) <= {""}
    dice = {row["id"]: row["values"]["dice"] for row in page.data["slices"]}
    only = page.row("Slices only near-duplicates of training slices", "Dice")
    assert only[0] == f"{dice.pop(twin.second):.3f}"
    rest = page.row("Slices without near-duplicates of training slices", "Dice")
    assert rest[0] == f"{np.mean(list(dice.values())):.3f}"


def test_below_five_patients_each_one_s_values_are_unfolded(
    report: EvaluationReport, page: Page, tested: tuple[EvaluationReport, Page, Crossing]
) -> None:
    """They stand in for the intervals that there are not."""
    assert tested[0].patients < 5 <= report.patients
    assert "No intervals: " in tested[1].text
    assert "Each patient, slices added up" not in page.unfolded
    assert "Each patient, slices added up" in tested[1].unfolded


def test_what_an_earlier_report_drew_is_gone_and_nothing_else(
    run: Run, report: EvaluationReport, tested: tuple[EvaluationReport, Page, Crossing]
) -> None:
    assert files(tested[0]) == ALWAYS | DRAWN | {"report.html"}
    mine = {"notes.txt", "area.txt", "threshold.csv", "my-report.html"}
    for name in mine:
        (run.folder / "eval/test" / name).touch()
    assert files(evaluate_and_draw(run, blob_dataset(), EvalConfig())) == ALWAYS | mine
    assert files(report) > DRAWN  # of another subset
