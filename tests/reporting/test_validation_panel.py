"""The panel: truth's and prediction's outlines on the slice, each in its colour."""

import numpy as np

from covid_jax.reporting.drawing import HIT, MISS, draw_panel
from tests.support.synthetic import SIZE, blob_dataset


def pixels(picture: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    return (np.abs(picture - 255 * np.array(colour)) < 1).all(-1)


def test_outlines_are_the_rims_of_their_masks() -> None:
    dataset = blob_dataset(patients=3, slices=1)
    predicted = np.zeros((2, SIZE, SIZE), np.uint8)
    predicted[0, 2:7, 3:9] = 1  # its rim: 5 x 6 without the inner 3 x 4
    pictures = draw_panel(dataset, [2, 0], predicted)
    assert pictures.shape == (2, SIZE, SIZE, 3)
    assert pictures.dtype == np.uint8
    green = pixels(pictures[0], HIT)
    assert green.sum() == 30 - 12
    assert not green[3:6, 4:8].any()
    assert not pixels(pictures[1], HIT).any()
    for picture, position in zip(pictures, (2, 0), strict=True):
        truth = dataset.network.masks[position] > 0
        inner = truth.copy()
        inner[1:] &= truth[:-1]
        inner[:-1] &= truth[1:]
        inner[:, 1:] &= truth[:, :-1]
        inner[:, :-1] &= truth[:, 1:]
        blue = pixels(picture, MISS)
        assert blue.any()
        assert not blue[~truth | inner].any()


def test_the_rest_is_the_slice_in_grey() -> None:
    dataset = blob_dataset(patients=3, slices=1)
    (picture,) = draw_panel(dataset, [1], np.zeros((1, SIZE, SIZE), np.uint8))
    away = dataset.network.masks[1] == 0
    assert (picture[away] == picture[away][:, :1]).all()
    codes = dataset.network.images.codes[1]
    brighter = picture[..., 0][away].astype(int), codes[away].astype(int)
    assert np.corrcoef(*brighter)[0, 1] > 0.9
