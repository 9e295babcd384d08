"""One slice opened in the report: the slider's numbers, keys, overlays, outlines, zoom."""

from pathlib import Path

import numpy as np
import pytest

from covid_jax.metrics.confusion import confusion_counts, dice
from covid_jax.reporting.drawing import FALSE_ALARM, HIT, MISS
from covid_jax.reporting.slice_viewer import SlicePage
from tests.support.browser import opened, until
from tests.support.reports import a_slice, open_slice, value_of, written


def slide(page, value: int) -> None:
    page.locator("#threshold").fill(str(value))


def scored_slices() -> list[SlicePage]:
    """Random maps, and masks that are empty or full on either side."""
    zero, one = np.zeros((16, 12), np.uint8), np.ones((16, 12), np.uint8)
    rng = np.random.default_rng(5)
    random = rng.integers(0, 256, (16, 12)).astype(np.uint8)
    odd = rng.integers(0, 2, (7, 9)).astype(np.uint8)
    pairs = [
        (random, (random > 90).astype(np.uint8)),
        (random, zero),
        (random, one),
        (zero, zero),
        (zero, one),
        (255 * one, zero),
        (255 * one, one),
        (rng.integers(0, 256, (7, 9)).astype(np.uint8), odd),
    ]
    return [
        a_slice(n, image=p, probability=p, truth=t, grid=p.shape) for n, (p, t) in enumerate(pairs)
    ]


READ = """[...["tp", "fp", "fn", "dice"].map((id) => Number(byId(id).value)),
           byId("dice").textContent]"""


def test_the_slider_recomputes_what_python_computes_from_the_same_map(
    browser, tmp_path: Path
) -> None:
    slices = scored_slices()
    with opened(browser, written(tmp_path, slices)) as page:
        open_slice(page)
        for place, item in enumerate(slices, 1):
            page.get_by_text(f"{place} of {len(slices)}", exact=True).wait_for()
            for level in (0, 90, 127, 128, 255):
                slide(page, level)
                counts = confusion_counts(item.probability > level, item.truth > 0)
                score = float(dice(counts))
                *shown, text = page.evaluate(READ)
                assert shown == pytest.approx([*counts[:3], score], abs=1e-12), (place, level)
                assert text == f"{score:.3f}"
            assert value_of(page, "own") == item.values["dice"]  # the slider leaves it alone
            page.locator("#canvas").focus()
            page.keyboard.press("ArrowRight")


@pytest.mark.parametrize(("threshold", "start"), [(0.5, 127), (0.3, 76), (0.0, 0), (1.0, 255)])
def test_the_slider_begins_at_the_threshold_of_the_evaluation(
    browser, tmp_path: Path, threshold: float, start: int
) -> None:
    """Above 0.3 is above 76.5 of 255, for whole numbers above 76."""
    with opened(browser, written(tmp_path, [a_slice()], threshold=threshold)) as page:
        open_slice(page)
        assert page.locator("#threshold").input_value() == str(start)
        words = page.locator(".scores").inner_text()
        assert "Dice at display size" in words
        assert f"at threshold {threshold:g}" in words


def test_another_decision_than_the_threshold_is_named(browser, tmp_path: Path) -> None:
    with opened(browser, written(tmp_path, [a_slice()], decision="by most probable class")) as page:
        open_slice(page)
        assert "computed before, by most probable class" in page.locator(".scores").inner_text()


def test_keys_open_move_and_close(browser, tmp_path: Path) -> None:
    """Arrows go on in the table's order, not in the data's; they stop at its ends."""
    slices = [a_slice(n, values={"dice": d}) for n, d in enumerate((0.3, 0.1, 0.9, 0.2))]
    with opened(browser, written(tmp_path, slices)) as page:
        page.locator("#high").fill("0.5")
        page.get_by_role("button", name="Dice", exact=True).click()  # scan/1, scan/3, scan/0
        page.locator("#table tbody tr").first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        for key, name in [
            (None, "scan/3"),
            ("ArrowRight", "scan/0"),
            ("ArrowRight", "scan/0"),
            ("ArrowLeft", "scan/3"),
            ("ArrowUp", "scan/1"),
            ("ArrowDown", "scan/3"),
            ("ArrowLeft", "scan/1"),
            ("ArrowLeft", "scan/1"),
        ]:
            if key:
                page.keyboard.press(key)
            page.locator("#name", has_text=name).wait_for()
        page.keyboard.press("Escape")
        assert not page.locator("#viewer").is_visible()
        # The event of closing comes a moment later.
        page.locator("#table tbody tr:focus", has_text="scan/1").wait_for()


def test_a_slice_that_an_incomplete_file_lacks_is_named(browser, tmp_path: Path) -> None:
    """No number of the slice seen before stands beside it."""
    path = written(tmp_path, [a_slice(0), a_slice(1)])
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b'<script type="text/plain" id="pixels-1"')])
    with opened(browser, path) as page:
        open_slice(page)
        page.keyboard.press("ArrowRight")
        page.get_by_text("the file is incomplete").wait_for()
        assert page.locator("#name").inner_text() == "scan/1"
        assert page.locator("#dice").inner_text() == "\u2013"
        page.keyboard.press("ArrowLeft")
        page.locator("#name", has_text="scan/0").wait_for()
        assert page.locator("#dice").inner_text() != "\u2013"


def test_arrows_belong_to_a_slider_while_it_is_reached_by_keyboard(browser, tmp_path: Path) -> None:
    with opened(browser, written(tmp_path, [a_slice(0), a_slice(1)])) as page:
        open_slice(page)
        page.locator("#threshold").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#threshold").input_value() == "128"
        page.locator("#threshold").click(position={"x": 5, "y": 5})  # the mouse gives it back
        page.locator("#canvas:focus").wait_for()
        page.keyboard.press("ArrowRight")
        page.locator("#name", has_text="scan/1").wait_for()
        page.get_by_label("None").click()
        page.locator("#canvas:focus").wait_for()
        page.keyboard.press("ArrowLeft")
        page.locator("#name", has_text="scan/0").wait_for()


QUARTERS = np.kron(np.array([[3, 2], [1, 0]]), np.ones((8, 8))).astype(int)  # TP FN / FP TN


def colour_at(page, row: float, left: float) -> list[int]:
    """The canvas's red, green, blue at these shares of the slice's height and width."""
    return page.evaluate(
        """async ([row, left]) => {
            await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
            const { scale, left: x, top: y } = geometry();
            const { height, width } = shown.slice;
            const place = [x + left * width * scale, y + row * height * scale];
            return [...canvas.getContext("2d").getImageData(...place, 1, 1).data].slice(0, 3);
        }""",
        [row, left],
    )


def quartered(tmp_path: Path) -> Path:
    truth = (QUARTERS >= 2).astype(np.uint8)
    probability = (255 * (QUARTERS % 2)).astype(np.uint8)
    grey = np.full((16, 16), 100, np.uint8)
    return written(tmp_path, [a_slice(image=grey, truth=truth, probability=probability)])


def test_the_overlay_tells_found_missed_and_false_apart(browser, tmp_path: Path) -> None:
    """In the colours of the other figures; at no opacity, and without, it is the slice alone."""
    with opened(browser, quartered(tmp_path)) as page:
        open_slice(page)
        page.locator("#opacity").fill("100")
        page.get_by_label("Found, missed, false").click()
        places = {(0.25, 0.25): HIT, (0.25, 0.75): MISS, (0.75, 0.25): FALSE_ALARM}
        for place, colour in places.items():
            assert colour_at(page, *place) == pytest.approx([255 * c for c in colour], abs=1)
        assert colour_at(page, 0.75, 0.75) == pytest.approx([100] * 3, abs=2)
        page.get_by_label("Probability").click()
        assert colour_at(page, 0.25, 0.25) == colour_at(page, 0.75, 0.25) == [255, 228, 60]
        assert colour_at(page, 0.25, 0.75) == pytest.approx([100] * 3, abs=2)
        page.locator("#opacity").fill("50")
        assert colour_at(page, 0.25, 0.25) == pytest.approx([178, 164, 80], abs=2)
        page.get_by_label("None").click()
        assert colour_at(page, 0.25, 0.25) == pytest.approx([100] * 3, abs=2)


def test_outlines_follow_the_masks_and_can_be_switched_off(browser, tmp_path: Path) -> None:
    """Truth is the upper half, the mask the left half."""
    with opened(browser, quartered(tmp_path)) as page:
        open_slice(page)
        page.get_by_label("None").click()
        below, beside = (0.5, 0.75), (0.75, 0.5)  # on the edge of truth alone, of the mask alone
        assert colour_at(page, *below) == [190, 255, 40]
        red, _, blue = colour_at(page, *beside)
        assert blue > red + 100
        page.keyboard.press("t")
        assert colour_at(page, *below) == pytest.approx([100] * 3, abs=2)
        page.get_by_label("Outline at threshold").uncheck()
        assert colour_at(page, *beside) == pytest.approx([100] * 3, abs=2)
        page.get_by_label("Outline at threshold").check()
        slide(page, 255)  # an empty mask has no outline
        assert colour_at(page, *beside) == pytest.approx([100] * 3, abs=2)


def test_outlines_are_seen_on_bone(browser, tmp_path: Path) -> None:
    """Next to the bright line there is a dark one: the whitest slice has both."""
    white = np.full((16, 16), 255, np.uint8)
    truth = (QUARTERS >= 2).astype(np.uint8)
    slices = [a_slice(image=white, truth=truth, probability=0 * white)]
    with opened(browser, written(tmp_path, slices)) as page:
        open_slice(page)
        scale = page.evaluate("geometry().scale")
        beside = colour_at(page, 0.5 + 1.4 / 16 / scale, 0.75)
        assert max(beside) < 128
        assert colour_at(page, 0.5, 0.75) == [190, 255, 40]
        assert min(colour_at(page, 0.75, 0.75)) > 250


def test_wheel_and_buttons_zoom_dragging_moves(browser, tmp_path: Path) -> None:
    """What lies under the pointer stays there; the slice cannot be pushed out of sight."""
    under = """([x, y]) => {
        const { scale, left, top: upper } = geometry();
        return [(x - left) / scale, (y - upper) / scale];
    }"""
    with opened(browser, quartered(tmp_path)) as page:
        open_slice(page)
        box = page.locator("#canvas").bounding_box()
        x, y = 0.6 * box["width"], 0.3 * box["height"]
        whole, before = page.evaluate("geometry()"), page.evaluate(under, [x, y])
        page.mouse.move(box["x"] + x, box["y"] + y)
        page.mouse.wheel(0, -400)
        until(page, "shown.zoom != 1")  # Playwright does not wait for what the wheel does
        assert page.evaluate("shown.zoom") == pytest.approx(np.e)
        assert page.evaluate(under, [x, y]) == pytest.approx(before, abs=0.02)
        page.mouse.down()
        page.mouse.move(box["x"] + x - 20, box["y"] + y + 10)
        page.mouse.up()
        assert page.evaluate(under, [x - 20, y + 10]) == pytest.approx(before, abs=0.02)
        for _ in range(30):
            page.keyboard.press("Shift+ArrowRight")
        middle = page.evaluate(under, [box["width"] / 2, box["height"] / 2])
        assert 8 < middle[0] < 16
        page.get_by_role("button", name="Zoom in").click()
        assert page.evaluate("shown.zoom") == pytest.approx(1.5 * np.e)
        page.get_by_role("button", name="Fit").click()
        assert page.evaluate("geometry()") == whole
