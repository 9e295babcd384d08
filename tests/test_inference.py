"""load_run(...).predict: any sizes in, the same sizes out, and what it computes."""

import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from covid_jax.data.preprocess import standardize
from covid_jax.errors import CovidJaxError, DataError, RunError
from covid_jax.inference import Run, load_run
from covid_jax.models import SCSEUNet
from covid_jax.training import train
from tests.synthetic import SIZE, TINY, blob_dataset, tiny_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(tiny_config(epochs=1), blob_dataset(), folder, Console(file=io.StringIO()))
    return load_run(folder)


def test_prediction_is_the_sigmoid_of_the_network(run: Run) -> None:
    """At the network's own size there is nothing but z-score, network, sigmoid."""
    image = np.random.default_rng(0).normal(-700, 200, (SIZE, SIZE)).astype(np.float32)
    inputs = standardize(image)[None, :, :, None]
    logits = SCSEUNet(features=TINY).apply({"params": run.params}, inputs)
    expected = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    np.testing.assert_allclose(run.predict(image), expected[0, :, :, 0], atol=1e-5)


def test_shapes_come_back_as_given(run: Run) -> None:
    rng = np.random.default_rng(1)
    slices = [rng.normal(size=shape) for shape in ((40, 50), (SIZE, SIZE), (17, 90), (64, 31))]
    maps = run.predict(slices, batch_size=3)
    assert [m.shape for m in maps] == [s.shape for s in slices]
    assert run.predict(np.stack([slices[0]] * 3)).shape == (3, 40, 50)
    assert run.predict(slices[2]).shape == (17, 90)
    assert all(0 <= m.min() <= m.max() <= 1 and m.dtype == np.float32 for m in maps)


def test_a_slice_does_not_depend_on_its_companions_or_the_batch(run: Run) -> None:
    slices = [np.random.default_rng(i).normal(size=(40, 40)) for i in range(5)]
    together = run.predict(slices, batch_size=2)
    for image, in_batch in zip(slices, together, strict=True):
        np.testing.assert_allclose(run.predict(image, batch_size=2), in_batch, atol=1e-5)


def test_intensity_units_do_not_matter(run: Run) -> None:
    """Per-slice z-score: HU, shifted or scaled, give the same map."""
    image = np.random.default_rng(0).normal(-700, 200, (40, 44))
    np.testing.assert_allclose(run.predict(image), run.predict(3 * image + 500), atol=1e-4)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros(7), r"found shape \(7,\)"),
        ([np.zeros((2, 8, 8))], r"found shape \(2, 8, 8\)"),
        (np.array([[np.nan, 1.0], [0.0, 1.0]]), "NaN"),
    ],
)
def test_what_is_no_slice_is_refused(run: Run, image, said: str) -> None:
    with pytest.raises(DataError, match=said):
        run.predict(image)


def test_a_folder_that_is_no_run_says_so(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run here"):
        load_run(tmp_path)
    with pytest.raises(RunError, match="no run here"):
        load_run(tmp_path / "config.json")
    for text in ("{", "{}", "[]", '{"config": {}}'):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(CovidJaxError, match=r"damaged|has the fields"):
            load_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(run.record))
    with pytest.raises(RunError, match="no checkpoints here"):
        load_run(tmp_path)


def test_weights_are_float32(run: Run) -> None:
    assert {leaf.dtype for leaf in jax.tree.leaves(run.params)} == {np.dtype(np.float32)}
