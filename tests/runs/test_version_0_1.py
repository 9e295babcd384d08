"""A run folder and a bundle that version 0.1.0 wrote go on loading, to the same numbers.

Made on the synthetic phantom: train.py --image-size 64 --features 4 8 12 16 --epochs 2 --ema 0.9,
eval.py, covid-jax export --format bundle. The run has lost its first checkpoint, the trainer's
state and its figures.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

from covid_jax.cli import main
from covid_jax.inference import load_run
from covid_jax.runs.record import read_record

FIXTURES = Path(__file__).parents[1] / "fixtures"
RUN, BUNDLE = FIXTURES / "run_0_1", FIXTURES / "bundle_0_1"

# What version 0.1.0 predicted on the slices of `test_predictions_are_what_they_were`.
RECORDED = [
    [
        [0.0449193940, 0.1390587389, 0.0015359585, 0.0599384308],
        [0.0004902919, 0.9429844618, 0.2114082277, 0.0010128440],
        [0.1228669062, 0.9824973941, 0.9681739807, 0.0482042022],
        [0.0010005070, 0.0024249756, 0.0145760421, 0.0407566354],
    ],
    [
        [0.0256121214, 0.0162781812, 0.1185226217, 0.0627930537],
        [0.4405210614, 0.0010948519, 0.5911903381, 0.0081564793],
        [0.0073266532, 0.0069408957, 0.9999954104, 0.0058725178],
        [0.0015642691, 0.0233399458, 0.0233696532, 0.0334046334],
    ],
]
MEAN, MEAN_NOT_AVERAGED = 0.2685582457750301, 0.2557570380356227


def slices() -> np.ndarray:
    return np.random.default_rng(0).normal(-700, 200, (2, 40, 44))


def test_predictions_are_what_they_were() -> None:
    """With either kind of the run's weights; the bundle has the same ones and the same settings."""
    run, bundle = load_run(RUN), load_run(BUNDLE)
    assert run.epoch == bundle.epoch == 2
    assert bundle.normalization == run.normalization
    assert bundle.config == dataclasses.replace(run.config, data=bundle.config.data, out=None)
    chex.assert_trees_all_equal(bundle.params, run.params)
    with jax.default_matmul_precision("highest"):
        found = run.predict(slices())
        run.params = load_run(RUN, averaged=False).params
        plain = run.predict(slices())
    np.testing.assert_allclose(found[:, ::13, ::14], RECORDED, rtol=0, atol=1e-5)
    assert found.mean(dtype=np.float64) == pytest.approx(MEAN, abs=1e-6)
    assert plain.mean(dtype=np.float64) == pytest.approx(MEAN_NOT_AVERAGED, abs=1e-6)


@pytest.mark.parametrize("folder", [RUN, BUNDLE])
def test_records_are_read_as_schema_1(folder: Path) -> None:
    record = read_record(folder)
    assert record.schema == 1
    assert record.versions["covid_jax"] == "0.1.0"
    assert record.data.fingerprint == "65a44194c1d295b3"
    assert record.config.optimizer.ema == 0.9
    assert (record.bundle is None) == (folder == RUN)


def test_no_path_of_the_machine_is_left_in_them() -> None:
    for path in FIXTURES.rglob("*"):
        if path.is_file():
            assert not any(root in path.read_bytes() for root in (b"/root", b"/home", b"/work"))


@pytest.mark.slow
def test_the_evaluation_is_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RUN, tmp_path / "run")
    metrics = tmp_path / "run/eval/test/metrics.json"
    before = json.loads(metrics.read_text())
    metrics.unlink()
    main.evaluate(["run"])
    after = json.loads(metrics.read_text())
    assert after["data_fingerprint"] == before["data_fingerprint"]
    for grid in ("own_grid", "network_size"):
        for name, row in before[grid].items():
            for kind in ("mean", "pooled"):
                assert after[grid][name][kind] == pytest.approx(row[kind], abs=1e-6), (grid, name)
