"""The figure of the spatial gates: each slice next to each of its gates."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covid_jax.evaluation.attention import gate_contrast
from covid_jax.reporting.attention_maps import attention_figure
from covid_jax.reporting.drawing import save_figure


def drawing(masks: np.ndarray, gates: int) -> Any:
    """Gates of these slices: 0, 0.1, ... all over the first, 0.06 more over each other one."""
    more = 0.06 * np.arange(len(masks))[:, None, None]
    maps = {f"level{i}": i / 10 + more + np.zeros((1, 4, 4)) for i in range(gates)}
    images = [np.arange(64.0).reshape(8, 8) for _ in masks]
    return attention_figure(images, masks, maps, gate_contrast(maps, masks))


@pytest.mark.parametrize(("slices", "gates"), [(1, 1), (2, 4), (2, 9)])
def test_each_slice_stands_beside_each_of_its_gates(slices: int, gates: int) -> None:
    masks = np.zeros((slices, 8, 8), np.uint8)
    masks[:, 2:4, 2:4] = 1
    axes = [axis for axis in drawing(masks, gates).axes if axis.images]
    assert len(axes) == slices * (gates + 1)
    for number in range(slices):
        first, *places = axes[number * (gates + 1) : (number + 1) * (gates + 1)]
        assert "lesion" in first.get_title()
        for i, axis in enumerate(places):
            shown = axis.images[0]
            np.testing.assert_allclose(np.asarray(shown.get_array()), i / 10 + 0.06 * number)
            assert shown.get_clim() == (0, 1)  # one scale for all
            mean = f"{i / 10 + 0.03 * (slices - 1):.2f}"
            assert axis.get_title() == f"level{i}\nlesion {mean}, rest {mean}"


@pytest.mark.parametrize("value", [0, 1])
def test_slices_all_or_nothing_of_which_is_lesion_are_drawn_in_silence(
    tmp_path: Path, value: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = drawing(np.full((2, 8, 8), value, np.uint8), 2)
        save_figure(figure, tmp_path / "gates.png")
    titles = {axis.get_title().split("\n")[-1] for axis in figure.axes if axis.images}
    assert ("lesion none, rest 0.13" if value == 0 else "lesion 0.13, rest none") in titles
