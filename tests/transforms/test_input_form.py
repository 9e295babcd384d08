"""The input form on a drawn chest, whose lungs and tissues are known."""

import numpy as np
import pytest

from covid_jax.transforms.input_form import InputForm, find_form
from covid_jax.transforms.preprocessing import on_grid, pack, resize
from tests.support.drawn_chest import LUNGS, chest


def test_the_box_holds_the_lungs_and_little_else() -> None:
    form = find_form(chest(), crop=True, grey_scale=True)
    assert form.hounsfield
    rows, columns = form.slices[1].box
    assert rows.start <= LUNGS[0].start
    assert rows.stop >= LUNGS[0].stop
    assert columns.start <= LUNGS[1].start
    assert columns.stop >= LUNGS[1].stop
    assert rows.stop - rows.start < 1.3 * 70
    assert columns.stop - columns.start < 1.3 * 100
    assert form.warnings == []


def test_hounsfield_units_and_a_window_of_them_come_out_alike() -> None:
    """A lung window in 8 bits (level -600, width 1500) has the same tissues at the same values."""
    hounsfield = chest()
    window = np.clip((hounsfield + 1350) / 1500 * 255, 0, 255).astype(np.uint8)
    seen = [
        pack(list(stack), 64, find_form(stack, crop=True, grey_scale=True).slices).decode()
        for stack in (hounsfield, window)
    ]
    assert np.abs(seen[0] - seen[1]).mean() < 0.05
    assert seen[0].min() >= -0.2
    assert seen[0].max() <= 1.1
    for values in seen:  # lung is 0 and soft tissue 1
        assert np.median(values[values < 0.5]) == pytest.approx(0, abs=0.05)
        assert np.median(values[values > 0.5]) == pytest.approx(1, abs=0.05)


def test_a_prediction_returns_to_where_its_box_was() -> None:
    """Pasted back, a mask that fills the box is one inside it and zero outside."""
    box = (slice(10, 50), slice(20, 80))
    scores = np.ones((32, 32, 1), np.float32)
    whole = on_grid(scores, 100, 120, box=box)
    expected = np.zeros((100, 120, 1))
    expected[box] = 1
    np.testing.assert_array_equal(whole, expected)
    several = on_grid(np.ones((32, 32, 3), np.float32) / 3, 100, 120, box=box)
    np.testing.assert_allclose(several.sum(-1), 1, atol=1e-6)
    assert several[0, 0].tolist() == [1, 0, 0]  # background


def test_without_a_form_nothing_changes() -> None:
    stack = chest()
    form = find_form(stack, crop=False, grey_scale=False)
    assert form.slices == [InputForm()] * 3
    assert form.lungs is None
    plain = pack(list(stack), 64, form.slices).decode()
    np.testing.assert_allclose(plain[0], resize(stack[0], 64, 64), atol=0.02)


def test_inside_the_lungs_is_known_without_a_crop() -> None:
    form = find_form(chest(), crop=False, grey_scale=False, inside_lungs=True)
    assert form.slices[0].box is None
    hull = form.lungs.hull(1)
    assert hull[80, 52]
    assert hull[80, 108]
    assert not hull[5, 5]
