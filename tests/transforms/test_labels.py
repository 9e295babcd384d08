import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax.transforms.labels import class_masks, class_names, one_hot, predict_labels

IDS = np.array([[[0, 1], [2, 1]]], np.uint8)


def test_one_class_has_one_channel() -> None:
    np.testing.assert_array_equal(one_hot(jnp.asarray(IDS), 1)[..., 0], [[[0, 1], [1, 1]]])


def test_several_classes_come_after_the_background() -> None:
    labels = one_hot(jnp.asarray(IDS), 2)
    assert labels.shape == (1, 2, 2, 3)
    for channel, expected in enumerate(([[1, 0], [0, 0]], [[0, 1], [0, 1]], [[0, 0], [1, 0]])):
        np.testing.assert_array_equal(labels[0, ..., channel], expected)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_decide(kind) -> None:
    one = kind(np.array([[[0.5], [0.51]]]))
    np.testing.assert_array_equal(predict_labels(one, 0.5), [[0, 1]])
    three = kind(np.array([[[0.4, 0.35, 0.25], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]]]))
    np.testing.assert_array_equal(predict_labels(three, 0.5), [[0, 2, 1]])


def test_one_hot_and_decide_undo_each_other() -> None:
    np.testing.assert_array_equal(predict_labels(one_hot(jnp.asarray(IDS), 2), 0.5), IDS)


def test_regions_are_the_lesion_and_each_class() -> None:
    assert class_names(()) == ("lesion",)
    assert class_names(("consolidation",)) == ("consolidation",)
    assert class_names(("ggo", "consolidation")) == ("lesion", "ggo", "consolidation")
    lesion, first, second = class_masks(IDS, 2)
    np.testing.assert_array_equal(lesion, [[[False, True], [True, True]]])
    np.testing.assert_array_equal(first, [[[False, True], [False, True]]])
    np.testing.assert_array_equal(second, [[[False, False], [True, False]]])
    (only,) = class_masks(np.minimum(IDS, 1), 1)
    np.testing.assert_array_equal(only, lesion)
