"""Several runs as one: averaged by hand, and members that do not fit refused by name."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from covid_jax.ensemble import Ensemble, load_runs
from covid_jax.errors import RunError
from covid_jax.evaluation import evaluate
from covid_jax.export import export_run
from covid_jax.inference import Run, load_run
from covid_jax.runs.config import EvalConfig, ModelConfig
from covid_jax.transforms.preprocessing import Normalization, pack
from tests.support.bright_runs import predicted
from tests.support.exported import made_run
from tests.support.synthetic import SIZE, TINY, blob_dataset, tiny_config, write_nifti
from tests.support.tiny_runs import untrained_run


def scaled(run: Run, factor: float) -> Run:
    """The same network with other weights."""
    params = jax.tree.map(lambda leaf: factor * leaf, run.params)
    return Run(Path(f"runs/{factor}"), run.record, 3, params)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return untrained_run(tiny_config(), blob_dataset(), tmp_path_factory.mktemp("runs") / "one")


def chest(shape: tuple[int, ...] = (3, SIZE, SIZE)) -> np.ndarray:
    return np.random.default_rng(0).normal(-700, 200, shape).astype(np.float32)


@pytest.mark.parametrize("kind", [Normalization(), Normalization(-650.0, 220.0)])
def test_probabilities_are_the_members_mean(kind: Normalization) -> None:
    first = made_run(ModelConfig(features=TINY), normalization=kind)
    members = [first, scaled(first, 1.2), scaled(first, 0.5)]
    apart = [run.predict(chest()) for run in members]
    assert np.ptp(apart, axis=0).max() > 0.05
    ensemble = Ensemble(members)
    np.testing.assert_allclose(ensemble.predict(chest()), np.mean(apart, axis=0), atol=1e-6)
    views = ensemble.predict_views(pack(list(chest()), SIZE), batch_size=2)
    assert views.shape == (3, 3, 4, SIZE, SIZE, 1)
    np.testing.assert_allclose(views[:, :, 0, ..., 0].swapaxes(0, 1), apart, atol=4e-6)
    assert ensemble._forward._cache_size() == 2  # batches of one and of two slices: no member's own


def test_members_keep_their_own_dataset_normalization() -> None:
    """Each fold has the mean and deviation of its own training part."""
    one = made_run(ModelConfig(features=TINY), normalization=Normalization(-650.0, 220.0))
    other = made_run(ModelConfig(features=TINY), normalization=Normalization(-400.0, 100.0))
    found = Ensemble([one, other]).predict(chest())
    np.testing.assert_allclose(
        found, (one.predict(chest()) + other.predict(chest())) / 2, atol=1e-6
    )


def test_the_summary_says_how_far_members_disagree(tmp_path: Path) -> None:
    """Two members p and q: half their distance is their standard deviation."""
    stack = chest((2, SIZE, SIZE)).astype(np.int16)
    write_nifti(tmp_path / "a.nii", stack)
    first = made_run(ModelConfig(features=TINY))
    members = [first, scaled(first, 1.5)]
    outcome, _ = predicted(Ensemble(members), tmp_path / "a.nii", tmp_path / "out")
    (summary,) = outcome.predicted
    p, q = (run.predict(stack) for run in members)
    half = np.abs(p - q) / 2
    assert summary["disagreement"] == pytest.approx(half.mean(), rel=1e-4)
    marked = (p + q) / 2 > 0.5
    assert summary["disagreement_in_lesion"] == pytest.approx(half[marked].mean(), rel=1e-3)
    folders = [str(run.folder) for run in members]
    assert [member["run"] for member in summary["members"]] == folders
    assert [member["epoch"] for member in summary["members"]] == [7, 3]


def test_other_members_of_the_same_names_predict_anew(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii", chest((1, SIZE, SIZE)).astype(np.int16))
    first = made_run(ModelConfig(features=TINY))

    def done(factor: float) -> list[int]:
        other = scaled(first, factor)
        other.folder = first.folder.parent / "fold1"
        outcome, _ = predicted(Ensemble([first, other]), tmp_path / "a.nii", tmp_path / "out")
        return [len(outcome.predicted), len(outcome.complete)]

    assert [done(factor) for factor in (1.5, 1.5, 0.5)] == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("model", "classes", "normalization", "size", "said"),
    [
        (ModelConfig(features=TINY), 3, None, SIZE, "classes"),
        (ModelConfig(features=TINY), 1, None, 64, "image size"),
        (ModelConfig(features=(4, 12)), 1, None, SIZE, "network"),
        (ModelConfig(features=TINY, attention="none"), 1, None, SIZE, "network"),
        (ModelConfig(features=TINY), 1, Normalization(-600.0, 750.0, clip=True), SIZE, "intens"),
    ],
)
def test_members_of_another_kind_are_refused_by_name(
    model, classes, normalization, size, said: str
) -> None:
    first = made_run(ModelConfig(features=TINY))
    other = made_run(model, classes, normalization, size)
    other.folder = Path("runs/odd")
    with pytest.raises(RunError, match=rf"^runs/odd: its {said}"):
        Ensemble([first, other])


def test_members_see_the_same_part_of_a_slice() -> None:
    first, other = (made_run(ModelConfig(features=TINY)) for _ in range(2))
    data = dataclasses.replace(first.config.data, crop="lungs")
    other.config = dataclasses.replace(first.config, data=data)
    with pytest.raises(RunError, match=r"its crop \(lungs\) differ"):
        Ensemble([first, other])


def test_a_single_run_is_itself_and_a_run_named_twice_is_refused(trained: Run) -> None:
    assert type(load_runs([trained.folder])) is Run
    with pytest.raises(RunError, match="duplicate run"):
        load_runs([trained.folder, trained.folder])
    with pytest.raises(RunError, match="no run given"):
        load_runs([])


def test_a_study_is_its_runs_once_it_has_ended(trained: Run, tmp_path: Path) -> None:
    for name in ("seed-0", "seed-1"):
        shutil.copytree(trained.folder, tmp_path / "study" / name)
    (tmp_path / "study" / "summary.json").write_text("{}")
    test = tmp_path / "study" / "seed-0" / "eval" / "test"
    test.mkdir(parents=True)
    (test / "metrics.json").write_text("{}")
    with pytest.raises(RunError, match=r"not ended .*seed-1.eval.test.metrics\.json is missing"):
        load_runs([tmp_path / "study"])
    shutil.copytree(test, tmp_path / "study" / "seed-1" / "eval" / "test")
    ensemble = load_runs([tmp_path / "study"])
    assert [run.folder.name for run in ensemble.members] == ["seed-0", "seed-1"]
    np.testing.assert_allclose(ensemble.predict(chest()), trained.predict(chest()), atol=1e-6)
    with pytest.raises(RunError, match="export its members one by one"):
        export_run(ensemble, "onnx", tmp_path / "a.onnx")


def test_slices_that_a_member_trained_on_are_not_scored(trained: Run, tmp_path: Path) -> None:
    """Another fold's test part was trained on by this one, whatever the data is called."""
    shutil.copytree(trained.folder, tmp_path / "fold-2")
    path = tmp_path / "fold-2" / "split.json"
    split = json.loads(path.read_text())
    split["test"], split["val"] = split["val"], split["test"]
    path.write_text(json.dumps(split))
    ensemble = Ensemble([trained, load_run(tmp_path / "fold-2")])
    with pytest.raises(RunError, match=r"fold-2: was trained or validated on 2 of these slices"):
        evaluate(ensemble, blob_dataset(), out=tmp_path / "out")
    (bundle,) = export_run(ensemble.members[1], "bundle", tmp_path / "bundle")
    with pytest.raises(RunError, match="a bundle, so that its test subset is unknown"):
        evaluate(Ensemble([trained, load_run(bundle)]), blob_dataset(), out=tmp_path / "out")
    with pytest.raises(RunError, match="with --out, as for any bundle or ensemble"):
        evaluate(ensemble, blob_dataset())
    same = Ensemble([trained, load_run(trained.folder)])
    report = evaluate(same, blob_dataset(), out=tmp_path / "out").report
    assert f"averages over {trained.folder} (epoch 1), {trained.folder}" in report.notes[-1]
    alone = evaluate(trained, blob_dataset(), out=tmp_path / "alone").report
    assert report.own_grid["dice"]["mean"] == pytest.approx(alone.own_grid["dice"]["mean"])
    renamed = dataclasses.replace(
        blob_dataset(), layout="elsewhere", slices=blob_dataset().slices[:4]
    )
    with pytest.raises(RunError, match="was trained or validated on"):
        evaluate(ensemble, renamed, EvalConfig("all"), out=tmp_path / "out")


def test_a_bundle_is_scored_like_its_run(trained: Run, tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="bundles need safetensors")
    (folder,) = export_run(trained, "bundle", tmp_path / "bundle")
    bundle, everything = load_run(folder), EvalConfig("all")
    before = sorted(folder.iterdir())
    with pytest.raises(RunError, match="with --out"):
        evaluate(bundle, blob_dataset(), everything)
    with pytest.raises(RunError, match="--subset all"):
        evaluate(bundle, blob_dataset(), out=tmp_path / "out")
    report = evaluate(bundle, blob_dataset(), everything, out=tmp_path / "out").report
    expected = evaluate(trained, blob_dataset(), everything, out=tmp_path / "run").report
    assert report.own_grid == expected.own_grid
    assert report.split["policy"] == "patient"
    assert any("was trained on slices in this subset" in note for note in report.notes)
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["slices"] == 12
    assert sorted(folder.iterdir()) == before


def test_a_network_of_ones_own_is_taken_back(trained: Run) -> None:
    """Twice the logits: the odds squared."""

    class Sharper(type(trained.model)):
        def __call__(self, images):
            return 2 * super().__call__(images)

    model = trained.model
    own = Sharper(**{name: getattr(model, name) for name in ("num_classes", "features", "dtype")})
    image = chest()[0]
    p = trained.predict(image).astype(np.float64)
    found = load_run(trained.folder, model=own).predict(image)
    np.testing.assert_allclose(found, p**2 / (p**2 + (1 - p) ** 2), atol=1e-5)
