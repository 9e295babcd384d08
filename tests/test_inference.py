"""load_run(...).predict: any sizes in, the same sizes out, and what it computes."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from covid_jax.ensemble import load_runs
from covid_jax.errors import DataError, RunError
from covid_jax.inference import Run, load_run
from covid_jax.models import SCSEUNet
from covid_jax.runs.config import TrainConfig, to_dict
from tests.support.synthetic import KINDS, SIZE, TINY, blob_dataset, kinds_dataset, tiny_config
from tests.support.tiny_runs import untrained_run

CODES = 2e-4  # what keeping a slice of 1200 HU in 16 bits does to a probability, at most


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return untrained_run(tiny_config(), blob_dataset(), tmp_path_factory.mktemp("runs") / "one")


def config_of(**data) -> TrainConfig:
    """With these of the settings of the data."""
    return tiny_config(data=dataclasses.replace(tiny_config().data, **data))


def chest(seed: int = 0, shape: tuple[int, ...] = (SIZE, SIZE)) -> np.ndarray:
    return np.random.default_rng(seed).normal(-700, 200, shape).astype(np.float32)


def logits_of(run: Run, inputs: np.ndarray, classes: int = 1) -> np.ndarray:
    """Of the network alone, for one slice as it is to see it."""
    model = SCSEUNet(num_classes=classes, features=TINY)
    inputs = inputs.astype(np.float32)[None, :, :, None]
    return np.asarray(model.apply({"params": run.params}, inputs), np.float64)[0]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits[..., 0]))


def z_score(image: np.ndarray) -> np.ndarray:
    return (image - image.mean(dtype=np.float64)) / image.std(dtype=np.float64)


def test_prediction_is_the_sigmoid_of_the_network(run: Run) -> None:
    """At the network's own size there is nothing but z-score, network, sigmoid."""
    image = chest()
    expected = sigmoid(logits_of(run, z_score(image)))
    np.testing.assert_allclose(run.predict(image), expected, atol=CODES)


def test_classes_are_channels_of_one_softmax_without_its_background(tmp_path: Path) -> None:
    run = untrained_run(config_of(classes=KINDS[:2]), kinds_dataset(KINDS[:2]), tmp_path / "run")
    image = chest()
    powers = np.exp(logits_of(run, z_score(image), classes=2))
    expected = powers / powers.sum(-1, keepdims=True)
    assert expected.shape == (SIZE, SIZE, 3)
    found = run.predict(image)
    np.testing.assert_allclose(found, expected[..., 1:], atol=CODES)
    np.testing.assert_array_equal(run.predict(image[None])[0], found)
    shapes = [(40, 50), (17, 90)]
    maps = run.predict([chest(shape=shape) for shape in shapes])
    assert [m.shape for m in maps] == [(40, 50, 2), (17, 90, 2)]
    assert all(m.dtype == np.float32 and m.min() >= 0 for m in maps)
    assert all((m.sum(-1) <= 1 + 1e-5).all() for m in maps)


def test_one_class_alone_is_one_sigmoid(tmp_path: Path) -> None:
    run = untrained_run(config_of(classes=KINDS[2:]), kinds_dataset(KINDS[2:]), tmp_path / "run")
    image = chest()
    expected = sigmoid(logits_of(run, z_score(image)))
    np.testing.assert_allclose(run.predict(image), expected, atol=CODES)


def test_a_dataset_z_score_is_that_of_the_training_part(tmp_path: Path) -> None:
    """Mean and deviation of its pixels by numpy; the slices are of the network's size already."""
    dataset = kinds_dataset(())
    run = untrained_run(config_of(intensity="dataset"), dataset, tmp_path / "run")
    split = json.loads((run.folder / "split.json").read_text())
    names = {row["slice"] for row in split["train"]}
    assert 0 < len(names) < len(dataset)
    pixels = np.stack([item.image for item in dataset.slices if item.id in names]).astype(float)
    stored = run.record.data.normalization
    assert stored.mean == pytest.approx(pixels.mean(), abs=1e-2)
    assert stored.std == pytest.approx(pixels.std(), rel=1e-4)
    assert stored.clip is False
    image = chest(3)
    expected = sigmoid(logits_of(run, (image - pixels.mean()) / pixels.std()))
    np.testing.assert_allclose(run.predict(image), expected, atol=CODES)


def test_a_window_is_cut_off_on_both_sides(tmp_path: Path) -> None:
    """Level -500, width 400: -700 is -1, -300 is 1, and what lies beyond is no less and no more."""
    config = config_of(intensity="window", window=(-500.0, 400.0))
    run = untrained_run(config, blob_dataset(), tmp_path / "run")
    image = chest()
    assert image.min() < -700
    assert image.max() > -300
    expected = sigmoid(logits_of(run, np.clip((image + 500) / 200, -1, 1)))
    np.testing.assert_allclose(run.predict(image), expected, atol=CODES)


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
    image = chest(shape=(40, 44))
    np.testing.assert_allclose(run.predict(image), run.predict(3 * image + 500), atol=1e-4)


def test_every_number_type_will_do(run: Run) -> None:
    """A picture's bytes, a scanner's integers of either byte order, a table's doubles."""
    image = np.random.default_rng(0).integers(0, 256, (40, 44))
    expected = run.predict(image.astype(np.float32))
    for dtype in ("u1", "<i2", ">i2", ">f4", "f8"):
        np.testing.assert_array_equal(run.predict(image.astype(dtype)), expected)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros(7), r"found shape \(7,\)"),
        (np.zeros((2, 8, 8, 1)), r"found shape \(2, 8, 8, 1\)"),
        ([np.zeros((2, 8, 8))], r"found shape \(2, 8, 8\)"),
        ([np.zeros((8, 8)), np.zeros(7)], r"image 1: .*found shape \(7,\)"),
        (np.zeros((2, 0, 8)), r"image 0: .*found shape \(0, 8\)"),
        (np.zeros((0, 8, 8)), "no image given"),
        ([], "no image given"),
        (np.array([[np.nan, 1.0], [0.0, 1.0]]), "image 0: has NaN"),
        ([[[0.0, 1e300], [0.0, 1.0]]], "image 0: has NaN or infinite"),
        (np.array([np.ones((2, 2)), np.full((2, 2), -np.inf)]), "image 1: has NaN or infinite"),
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
        with pytest.raises(RunError, match=r"config\.json: "):
            load_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(run.record)))
    with pytest.raises(RunError, match="no checkpoints here"):
        load_run(tmp_path)


def test_a_folder_that_moved_is_the_same_run(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "moved")
    again = load_run(str(tmp_path / "moved"))
    assert again.folder == tmp_path / "moved"
    assert (again.config, again.record, again.epoch) == (run.config, run.record, 1)
    np.testing.assert_array_equal(again.predict(chest()), run.predict(chest()))


def test_weights_are_float32(run: Run) -> None:
    assert {leaf.dtype for leaf in jax.tree.leaves(run.params)} == {np.dtype(np.float32)}


def write_scores(folder: Path, name: str, mean: float, **changes) -> None:
    """An evaluation of the validation slices, as far as ``auto`` reads it."""
    report = {"epoch": 1, "data_fingerprint": "f", "threshold": 0.5, "slices": 4, **changes}
    path = folder / "eval" / name / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report | {"own_grid": {"dice": {"mean": mean}}}))


def test_auto_is_bfloat16_where_it_is_fast_and_was_measured_to_be_as_good(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = ""
    monkeypatch.setattr("covid_jax.inference.slow_bfloat16", lambda: slow)
    folder = shutil.copytree(run.folder, tmp_path / "run")

    def auto() -> str:
        return load_run(folder, precision="auto").config.model.precision

    write_scores(folder, "val", 0.8)
    assert auto() == "float32"  # nobody knows
    write_scores(folder, "val-bfloat16", 0.7992)
    assert auto() == "bfloat16"
    assert load_run(folder).config.model.precision == "float32"
    pair = [folder, run.folder]  # of which one was not measured
    assert load_runs(pair[:1], precision="auto").config.model.precision == "bfloat16"
    both = load_runs(pair, precision="auto").members
    assert [member.config.model.precision for member in both] == ["float32"] * 2
    write_scores(folder, "val-bfloat16", 0.7988)
    assert auto() == "float32"  # worse by 0.0012
    write_scores(folder, "val-bfloat16", 0.8, epoch=2)
    assert auto() == "float32"  # of other weights
    write_scores(folder, "val-bfloat16", 0.8)
    assert auto() == "bfloat16"
    slow = "no such instructions"
    assert auto() == "float32"
    slow, path = "", folder / "eval" / "val" / "metrics.json"
    for damaged in ("[" * 100_000, "{}", path.read_text().replace("0.8", "9" * 400)):
        path.write_text(damaged)
        assert auto() == "float32"


def test_either_precision_gives_nearly_the_same_probabilities(run: Run) -> None:
    image = chest()
    low = load_run(run.folder, precision="bfloat16")
    assert (low.model.dtype, low.record.config.model.precision) == ("bfloat16", "float32")
    difference = np.abs(low.predict(image) - run.predict(image))
    assert 0 < difference.max() < 0.05
