"""The report in a browser, opened from disk and offline: what it shows and how it answers."""

import time
from pathlib import Path

import numpy as np
import pytest

from covid_jax.evaluation.contents import ScoreTable, Section
from covid_jax.metrics.confusion import confusion_counts, dice
from covid_jax.reporting.drawing import HIT
from covid_jax.reporting.html_report import figure
from tests.support.browser import opened
from tests.support.reports import a_slice, open_slice, png, record, value_of, written

NASTY = "</script><b class='evil'>$title &amp; \"it's\" <!-- pixels --> \udc80 ü"
SHOWN = NASTY.replace("\udc80", "\\x80")  # a byte of a name that is no UTF-8


def column(page, heading: str) -> list[str]:
    """The texts of a column of the table of slices, from the top."""
    headings = page.locator("#table thead th").all_inner_texts()
    place = [text.split(" ▲")[0].split(" ▼")[0] for text in headings].index(heading)
    return page.locator(f"#table tbody td:nth-child({place + 1})").all_inner_texts()


def test_it_opens_and_says_what_was_measured(browser, tmp_path: Path) -> None:
    rows = {
        "dice": record(0.71234, (0.6, 0.8), 0.75, 12, 3),
        "hd95_(mm)": record(12.5, None, None, 1009, 0),
    }
    path = written(
        tmp_path,
        [a_slice()],
        title="Run 3",
        lead="Of a phantom.",
        headline=rows,
        tables=[ScoreTable("Own grid", rows, "Patients were resampled.")],
        warnings=["A warning."],
        notes=["A note."],
        sections=[
            Section("Protocol", "In words."),
            Section("Training", values={"epochs": 80}, folded=True),
        ],
        figures=[figure("Curve", "Of loss.", png(30, 20))],
    )
    with opened(browser, path) as page:
        assert page.title() == page.locator("h1").inner_text() == "Run 3"
        table = page.locator(".summary tbody tr")
        assert [row.split("\t") for row in table.all_inner_texts()] == [
            ["Dice", "0.712", "0.600 to 0.800", "0.750", "12", "3"],
            ["HD95 (mm)", "12.5", "\u2013", "\u2013", "1,009", "0"],
        ]
        text = page.locator("body").inner_text()
        for words in ("Research use only; not for diagnosis", "Of a phantom.", "A warning."):
            assert words in text
        for words in ("Patients were resampled.", "A note.", "In words.", "Curve. Of loss."):
            assert words in text
        assert "epochs" not in text
        page.get_by_text("Training").click()
        assert "epochs\n80" in page.locator("body").inner_text()
        assert page.locator("figure img").evaluate("i => [i.naturalWidth, i.alt]") == [30, "Curve"]


def test_a_report_of_nothing_opens(browser, tmp_path: Path) -> None:
    with opened(browser, written(tmp_path, [])) as page:
        assert page.locator("#count").inner_text() == "0 of 0 slices"


def test_every_column_sorts_both_ways_with_undefined_values_last(browser, tmp_path: Path) -> None:
    """Names as people count: scan/2 before scan/10."""
    lengths = [3.0, None, 20.0, 1.5, None]
    slices = [
        a_slice(n, values={"dice": d, "hd95_mm": h, "lesion_pixels": 1000 + n})
        for n, d, h in zip((10, 2, 7, 4, 3), (0.2, 1, 0, 0.55, 0.5), lengths, strict=True)
    ]
    sorted_columns = {
        "Slice": ["scan/2", "scan/3", "scan/4", "scan/7", "scan/10"],
        "Source": ["scan0.nii"] * 3 + ["scan1.nii"] * 2,
        "Patient": ["p0", "p1", "p1", "p1", "p2"],
        "Dice": ["0.000", "0.200", "0.500", "0.550", "1.000"],
        "HD95 mm": ["1.5", "3.0", "20.0"],
        "Lesion pixels": ["1,002", "1,003", "1,004", "1,007", "1,010"],
    }
    with opened(browser, written(tmp_path, slices)) as page:
        for group in ("Areas and lesions", "Distances"):
            page.get_by_label(group).check()
        assert column(page, "Slice") == [item.id for item in slices]
        for label, expected in sorted_columns.items():
            undefined = ["\u2013"] * (5 - len(expected))
            heading = page.locator("#table thead").get_by_role("button", name=label, exact=True)
            heading.click()
            assert column(page, label) == expected + undefined
            assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
            heading.click()
            assert column(page, label) == expected[::-1] + undefined
            assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"


def test_columns_are_shown_by_groups(browser, tmp_path: Path) -> None:
    """Overlap to begin with; the slice's name stays in sight of all the others."""
    keys = ("lesion_pixels", "dice", "hausdorff_px", "hd95_mm", "brier", "dice_effusion")
    slices = [a_slice(n, values=dict.fromkeys(keys, 0.5)) for n in range(2)]
    with opened(browser, written(tmp_path, slices), width=600) as page:

        def headings() -> list[str]:
            return [text for text in page.locator("#table thead th:visible").all_inner_texts()]

        always = ["Slice", "Patient", "Source"]
        assert headings() == [*always, "Dice", "Dice effusion"]
        page.get_by_label("Overlap").uncheck()
        page.get_by_label("Distances").check()
        assert headings() == [*always, "Hausdorff px", "HD95 mm"]
        for group in ("Overlap", "Areas and lesions", "Probabilities"):
            page.get_by_label(group).check()
        assert headings()[3:] == [
            *("Dice", "Dice effusion", "Lesion pixels", "Hausdorff px", "HD95 mm", "Brier")
        ]
        page.locator(".rows").evaluate("rows => (rows.scrollLeft = rows.scrollWidth)")
        frame = page.locator(".rows").bounding_box()
        for cell in ("#table tbody td:first-child", "#table thead th:first-child"):
            box = page.locator(cell).first.bounding_box()
            assert box["x"] == pytest.approx(frame["x"], abs=2)
            at = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
            top = "([x, y]) => document.elementFromPoint(x, y).closest('th, td').cellIndex"
            assert page.evaluate(top, at) == 0  # no other cell lies over it
        page.get_by_role("button", name="Show all").click()
        page.locator("#table thead th[hidden]").nth(3).wait_for(state="attached")


def test_one_source_is_no_column(browser, tmp_path: Path) -> None:
    with opened(browser, written(tmp_path, [a_slice(source="one")])) as page:
        headings = page.locator("#table thead th:visible").all_inner_texts()
        assert headings == ["Slice", "Patient", "Dice"]


def test_picks_at_the_top_show_their_pixels_and_open_the_viewer(browser, tmp_path: Path) -> None:
    """Found pixels alone, in their colour over black; the filter may hide the slice below."""
    full, black = np.ones((16, 16), np.uint8), np.zeros((16, 16), np.uint8)
    slices = [a_slice(0), a_slice(1, image=black, truth=full, probability=255 * full)]
    picks = [("best", "scan/1"), ("worst", "scan/0")]
    with opened(browser, written(tmp_path, slices, picks=picks)) as page:
        page.locator(".picks canvas[width='16']").first.wait_for()
        pixel = """() => [...document.querySelector(".picks canvas").getContext("2d")
            .getImageData(8, 8, 1, 1).data].slice(0, 3)"""
        assert page.evaluate(pixel) == pytest.approx([0.6 * 255 * part for part in HIT], abs=3)
        words = [text.strip() for text in page.locator(".picks button").all_inner_texts()]
        dice = slices[1].values["dice"]
        assert words[0] == f"best: scan/1, Dice {dice:.3f}"
        page.locator("#text").fill("scan0")
        page.locator(".picks button").first.click()
        page.locator("#name", has_text="scan/1").wait_for()
        assert page.locator("#place").inner_text() == "2 of 2"


def test_filters_go_by_patient_source_and_dice(browser, tmp_path: Path) -> None:
    scores = [0.1, 0.5, 0.75, 1.0, None]
    slices = [
        a_slice(n, patient=p, values={"dice": d})
        for n, (p, d) in enumerate(zip(["Ann", "Bob", "ann", None, "Bob"], scores, strict=True))
    ]
    with opened(browser, written(tmp_path, slices)) as page:

        def left(text: str = "", low: str = "", high: str = "") -> str:
            for name, value in (("text", text), ("low", low), ("high", high)):
                page.locator(f"#{name}").fill(value)
            found = "".join(name[-1] for name in column(page, "Slice"))
            assert page.locator("#count").inner_text() == f"{len(found)} of 5 slices"
            return found

        assert left() == "01234"
        assert left("ann") == left(" ANN ") == "02"
        assert left("scan1") == "13"
        assert left("unknown") == "3"
        assert left(low="0.5") == "123"
        assert left(high="0.5") == "01"
        assert left("bob", "0.5", "0.75") == "1"
        assert left("nobody") == ""
        page.get_by_role("button", name="Show all").click()
        page.get_by_text("5 of 5 slices").wait_for()


def test_names_are_shown_as_text_and_never_run(browser, tmp_path: Path) -> None:
    row = {NASTY: record(0.5, None, None, 1, 0)}
    values = {"dice": 0.5, NASTY: 1.0}
    path = written(
        tmp_path,
        [a_slice(id=NASTY, source=NASTY, patient=NASTY, note=NASTY, values=values)],
        title=NASTY,
        lead=NASTY,
        headline=row,
        tables=[ScoreTable(NASTY, row, NASTY)],
        warnings=[NASTY],
        notes=[NASTY],
        sections=[Section(NASTY, NASTY, {NASTY: NASTY})],
        figures=[figure(NASTY, NASTY, png())],
    )
    with opened(browser, path) as page:
        open_slice(page)
        assert page.locator(".evil").count() == 0
        assert page.locator("h1").inner_text() == SHOWN
        assert page.locator("#name").inner_text() == SHOWN
        assert page.locator("#note").inner_text() == SHOWN
        everything = page.locator("body").evaluate("body => body.innerText")
        # Title, lead, tile, warning; table (title, row, note); note; section (title, text, name
        # and value of a setting); figure (name, caption): 14. The row's three names and a column of
        # theirs; the viewer's title, note, value, patient, source: 9.
        assert everything.count(SHOWN) == 23


def test_tab_stops_at_one_row_only(browser, tmp_path: Path) -> None:
    """The first; once one has moved along the rows, the one last visited."""
    with opened(browser, written(tmp_path, [a_slice(n) for n in range(4)])) as page:
        stops = "[...table.tBodies[0].rows].map((row) => row.tabIndex)"
        assert page.evaluate(stops) == [0, -1, -1, -1]
        page.locator("#table tbody tr").first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        assert page.evaluate(stops) == [-1, -1, 0, -1]
        page.locator("#text").fill("scan1")
        assert page.evaluate(stops) == [0, -1]


def luminance(colour: str) -> float:
    """Of 'rgb(r, g, b)', as WCAG 2 defines it."""
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_can_be_read_and_changed(browser, tmp_path: Path, theme: str) -> None:
    """Contrast of 4.5 at least (WCAG 2 AA), against the nearest background behind."""
    path = written(tmp_path, [a_slice(note="A note")], warnings=["A warning"], lead="A lead")
    colours = """element => {
        const clear = "rgba(0, 0, 0, 0)";
        let behind = element;
        while (getComputedStyle(behind).backgroundColor === clear) behind = behind.parentElement;
        return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
    }"""
    with opened(browser, path, theme=theme) as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        assert (luminance(page.evaluate(ground)) < 0.2) == (theme == "dark")
        for place in (
            "h1",
            ".lead",
            ".research strong",
            ".warnings li",
            "td",
            "th button",
            ".hint",
        ):
            ink, paper = map(luminance, page.locator(place).first.evaluate(colours))
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, place
        page.get_by_role("button", name="Dark theme").click()
        assert (luminance(page.evaluate(ground)) < 0.2) == (theme == "light")


@pytest.mark.parametrize(("width", "height"), [(390, 800), (1280, 800), (1920, 1080)])
def test_nothing_sticks_out_of_the_screen(browser, tmp_path: Path, width: int, height: int) -> None:
    long = "a_name_without_any_place_to_break_it_" * 6
    slices = [a_slice(id=long, source=long, patient=long, note=long)]
    row = {"sensitivity": record(0.5, (0.25, 0.75), 0.5, 1000, 10, 0.5)}
    path = written(
        tmp_path,
        slices,
        title=long,
        tables=[ScoreTable(long, row), ScoreTable("Sources", row)],
        sections=[Section("Split", long, {long: long})],
        figures=[figure(long, long, png(1080, 900))],
    )
    with opened(browser, path, width=width, height=height) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        notice = page.locator(".research").bounding_box()
        assert notice["x"] + notice["width"] <= page.locator("#theme").bounding_box()["x"]
        if width > 1000:  # "Empty masks", the last column, is seen without scrolling
            cut = "table => table.scrollWidth - table.parentElement.clientWidth"
            assert max(page.locator(".summary").evaluate_all(f"all => all.map({cut})")) <= 0
        open_slice(page)
        for part in ("#viewer", "#close", "#canvas", "#threshold", "#fit"):
            box = page.locator(part).bounding_box()
            assert box["x"] >= 0, part
            assert box["x"] + box["width"] <= width, part
        panel = page.locator(".panel").evaluate("p => [p.scrollWidth, p.clientWidth]")
        assert panel[0] <= panel[1]


def test_a_report_of_500_slices_is_small_and_opens_at_once(browser, tmp_path: Path) -> None:
    """Of noisy slices, as large in JPEG as real CT (35 kB); of maps with soft edges everywhere."""
    rng = np.random.default_rng(0)
    across = np.linspace(0, 40, 256)
    field = np.sin(across)[:, None] * np.cos(across)
    image = np.clip(128 + 100 * field + rng.normal(0, 12, (256, 256)), 0, 255).astype(np.uint8)
    probability = np.rint(255 / (1 + np.exp(-9 * field))).astype(np.uint8)
    truth = (field > 0.1).astype(np.uint8)
    slices = [a_slice(n, image=image, truth=truth, probability=probability) for n in range(500)]
    path = written(tmp_path, slices)
    assert 25e6 < path.stat().st_size < 40e6
    begin = time.perf_counter()
    with opened(browser, path) as page:
        page.locator("#table tbody tr").nth(499).wait_for()
        assert time.perf_counter() - begin < 60  # seconds; one or two on an idle core
        open_slice(page, 499)
        counts = confusion_counts(probability > 127, truth > 0)
        assert value_of(page, "dice") == pytest.approx(float(dice(counts)), abs=1e-12)


def test_what_is_no_png_is_refused_and_the_old_report_stays(tmp_path: Path) -> None:
    path = written(tmp_path, [])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="figure 'Curve' is no PNG"):
        written(tmp_path, [], figures=[figure("Curve", "", b"%PDF-1.4")])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
