"""A bundle: what others get is the network, what they need to know, and nothing of the machine."""

import copy
import dataclasses
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from covid_jax.errors import RunError
from covid_jax.export import export_run
from covid_jax.inference import Run, bfloat16_change, load_run
from covid_jax.models import SCSEUNet
from covid_jax.runs.bundle import is_bundle, read_bundle
from covid_jax.runs.digest import digest, named_leaves
from covid_jax.runs.record import Provenance, RunRecord
from tests.support.synthetic import KINDS, SIZE, blob_dataset, kinds_dataset, tiny_config
from tests.support.tiny_runs import untrained_run

ALIKE = "9 near-duplicate pairs in different subsets"
UNKNOWN = "patients of 98 slices are unknown: neighbours may stand on both sides"
FILES = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = tiny_config()
    data = dataclasses.replace(
        config.data, data=(Path("/home/alice/scans"), Path("/srv/alice/more"))
    )
    config = dataclasses.replace(config, data=data, out=Path("/srv/alice/one"))
    made = untrained_run(config, blob_dataset(), tmp_path_factory.mktemp("alice") / "one")
    split = json.loads((made.folder / "split.json").read_text())
    split["warnings"] = [f"{ALIKE}: alice/5 ~ bob/93 (0.93), ...", UNKNOWN]
    (made.folder / "split.json").write_text(json.dumps(split))
    again = "train.py --resume --data /mnt/alice/elsewhere"
    made.record = dataclasses.replace(
        described(
            made,
            ["/home/alice/scans: half of it, 80/20"],
            "train.py --data=/home/alice/scans --out '/home/alice/my runs/one'",
        ),
        resumed=(Provenance(again, made.record.date, "1 x cpu", {}),),
    )
    return made


def described(run: Run, notes: list[str], command: str) -> RunRecord:
    """The run's record with other notes on its data and another command."""
    data = dataclasses.replace(run.record.data, notes=tuple(notes))
    return dataclasses.replace(run.record, data=data, command=command)


@pytest.fixture
def folder(run: Run, tmp_path: Path) -> Path:
    (made,) = export_run(run, "bundle", tmp_path / "shared/model")
    return made


def shapes_of(run: Run) -> Any:
    classes = max(1, len(run.config.data.classes))
    model = SCSEUNet(num_classes=classes, **run.config.model.arguments())
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 1), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def chest(shape: tuple[int, ...] = (40, 44)) -> np.ndarray:
    return np.random.default_rng(0).normal(-700, 200, shape)


def text_of(folder: Path) -> str:
    return (folder / "README.md").read_text()


SCORED = Path(__file__).parents[1] / "fixtures/run_0_1/eval/test/metrics.json"
REPORT = json.loads(SCORED.read_text())
UNDEFINED = "\N{EN DASH}"
ROW = dict.fromkeys(("mean", "pooled", "interval", "patients_mean")) | {"slices": 0, "empty": 0}


def score(run: Run, **changes: Any) -> Path:
    """Leaves what eval.py would: a Dice of 0.7 of these weights on this data."""
    row = ROW | {"mean": 0.7, "pooled": 0.8, "slices": 2}
    report = {
        "epoch": run.epoch,
        "data_fingerprint": run.record.data.fingerprint,
        "command": "eval.py /home/bob/one/ --data /mnt/bob/scans/",
        **{"slices": 2, "patients": 1, "threshold": 0.5, "notes": ["a note"]},
        **{"own_grid": {"dice": row}, "network_size": {"dice": row}, "classes": {}},
    }
    path = run.folder / "eval/test/metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(REPORT | report | changes))
    return path


def test_what_is_loaded_predicts_the_same(run: Run, folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert is_bundle(folder)
    assert not is_bundle(run.folder)
    again = load_run(folder)
    assert again.epoch == run.epoch == 1
    assert again.config.model == run.config.model
    assert again.normalization == run.normalization
    np.testing.assert_array_equal(again.predict(chest()), run.predict(chest()))


def test_weights_are_named_as_the_parameters(run: Run, folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float32)}
    for name in ("encoder1_conv.conv.kernel", "decoder1_resdil.second.norm.scale", "head1.bias"):
        leaf = run.params
        for part in name.split("."):
            leaf = leaf[part]
        np.testing.assert_array_equal(stored[name], leaf)
    assert len(stored) == len(jax.tree.leaves(run.params))


def test_pytorch_computes_the_same_from_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the PyTorch twin needs torch: the group `oracles`")
    from tests.oracles import torch_twin

    config = tiny_config()
    data = dataclasses.replace(config.data, classes=KINDS[:2])
    model = dataclasses.replace(config.model, attention="skip", negative_slope=0.1)
    config = dataclasses.replace(config, data=data, model=model)
    run = untrained_run(config, kinds_dataset(KINDS[:2]), tmp_path / "run")
    export_run(run, "bundle", tmp_path / "model")
    twin = torch_twin.load_bundle(tmp_path / "model")
    images = np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 1)).astype(np.float32)
    network = SCSEUNet(num_classes=2, **config.model.arguments())
    expected = np.asarray(jax.jit(network.apply)({"params": run.params}, images))
    with torch.no_grad():
        found = twin(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    assert expected.shape == (2, SIZE, SIZE, 3)
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), expected, rtol=0, atol=1e-4)


def test_nothing_says_where_it_was_made(run: Run, tmp_path: Path) -> None:
    path = score(run, notes=["/mnt/bob/scans: moved"])
    try:
        (folder,) = export_run(run, "bundle", tmp_path / "model")
    finally:
        path.unlink()
    for name in ("README.md", "config.json"):
        text = (folder / name).read_text()
        assert "alice" not in text
        assert "bob" not in text
        assert str(run.folder.parent) not in text
        assert "p0" not in text  # a patient
    record = json.loads((folder / "config.json").read_text())
    assert record["command"] == "train.py --data=scans --out 'one'"
    assert record["bundle"]["test"]["command"] == "eval.py one --data scans"
    assert record["config"]["data"]["data"] == ["scans", "more"]
    assert record["config"]["out"] is None
    assert record["command"] in text_of(folder)
    assert "- scans: half of it, 80/20" in text_of(folder)
    assert "- scans: moved" in text_of(folder)
    assert "alice" in run.record.command  # the run's own record is as it was


def test_names_that_are_no_utf_8_may_be_in_a_bundle(run: Run, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xd6\xd0")  # GBK
    data = dataclasses.replace(run.record.data, layout=f"pairs in {name}", notes=(f"{name}: 1",))
    other = copy.copy(run)
    other.record = dataclasses.replace(run.record, data=data)
    (folder,) = export_run(other, "bundle", tmp_path / f"model {name}")
    assert load_run(folder).record.data.layout == f"pairs in {name}"
    assert r"pairs in \xd6\xd0" in text_of(folder)


def test_the_card_says_what_a_reader_must_know(run: Run, folder: Path) -> None:
    text = text_of(folder)
    split = json.loads((run.folder / "split.json").read_text())
    for said in (
        "Research use only",
        "Not for diagnosis",
        "arXiv:2004.06673",
        run.record.data.fingerprint,
        f"policy `patient`: {split['statement']}",
        *(f"{len(split[subset])} {subset}" for subset in ("train", "val", "test")),
        "these weights were not scored on the test part",
        "weights of epoch 1",
        f"- warning: {ALIKE}\n- warning: {UNKNOWN}\n",
    ):
        assert said in text, said
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert {"Intended use", "Training data", "Split", "Test results", "Limits"} < set(titles)


def test_test_scores_come_with_their_interval(run: Run, tmp_path: Path) -> None:
    rows = {
        "dice": ROW | {"mean": 0.7, "pooled": 0.81, "slices": 20, "interval": [0.612, 0.788]},
        "sensitivity": ROW,
        "iou": ROW | {"mean": 0.5, "pooled": 0.6, "slices": 20},
    }
    drawn = "95 % bootstrap intervals, patients resampled"
    path = score(run, own_grid=rows, slices=20, patients=None, intervals=drawn)
    try:
        text = text_of(export_run(run, "bundle", tmp_path / "model")[0])
    finally:
        path.unlink()
    assert "| Dice | 0.700 | 0.612 to 0.788 | 0.810 | 20 | 0 |" in text
    assert f"| Sensitivity | {UNDEFINED} | {UNDEFINED} | {UNDEFINED} | 0 | 0 |" in text
    assert f"| IoU | 0.500 | {UNDEFINED} | 0.600 | 20 | 0 |" in text
    assert "20 slices of an unknown number of patients, threshold 0.5" in text
    assert f"- {drawn}\n- a note" in text
    stored = json.loads((tmp_path / "model/config.json").read_text())["bundle"]["test"]
    assert stored["own_grid"] == rows
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard(text, ignore_metadata_errors=False).data  # as the hub reads it
    assert (data.license, data.metrics) == ("other", ["dice", "iou"])
    assert data.library_name == "covid_jax"
    assert set(data.datasets) == {part.source for part in run.record.data.sources}
    dice, iou = data.eval_results
    assert (dice.metric_type, dice.metric_value, dice.dataset_split) == ("dice", 0.7, "test")
    assert dice.metric_args == {"interval_95": [0.612, 0.788], "threshold": 0.5}
    assert (iou.metric_value, iou.metric_args) == (0.5, {"threshold": 0.5})
    assert yaml.safe_load(data.to_yaml()) == yaml.safe_load(text.split("---\n")[1])


def test_a_measured_change_by_bfloat16_comes_along(run: Run, folder: Path, tmp_path: Path) -> None:
    assert bfloat16_change(folder, 1) is None
    for name, mean in (("val", 0.75), ("val-bfloat16", 0.7505)):
        text = score(run, own_grid={"dice": {"mean": mean}}).read_text()
        path = run.folder / "eval" / name / "metrics.json"
        path.parent.mkdir()
        path.write_text(text)
    try:
        (run.folder / "eval/test/metrics.json").unlink()
        (measured,) = export_run(run, "bundle", tmp_path / "measured")
        assert bfloat16_change(measured, run.epoch) == pytest.approx(0.0005)
        assert bfloat16_change(run.folder, run.epoch + 1) is None  # measured on other weights
    finally:
        shutil.rmtree(run.folder / "eval")


@pytest.mark.parametrize("other", [{"epoch": 2}, {"data_fingerprint": "0"}])
def test_scores_of_other_weights_or_data_are_left_out(
    run: Run, tmp_path: Path, other: dict[str, Any]
) -> None:
    path = score(run, **other)
    try:
        text = text_of(export_run(run, "bundle", tmp_path / "model")[0])
    finally:
        path.unlink()
    assert "0.700" not in text
    assert "not scored" in text


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, json.dumps(REPORT | {"own_grid": {"dice": ""}})]
)
def test_damaged_scores_are_named(run: Run, tmp_path: Path, text: str) -> None:
    path = score(run)
    path.write_text(text)
    try:
        with pytest.raises(RunError, match=r"metrics.json: .* score the run again"):
            export_run(run, "bundle", tmp_path / "model")
    finally:
        path.unlink()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_such_network_is_refused(run: Run, folder: Path) -> None:
    shapes, path = shapes_of(run), folder / "model.safetensors"
    tensors, whole = load_file(path), path.read_bytes()
    head = tensors["head1.bias"]
    others = [
        {name: array for name, array in tensors.items() if name != "head1.bias"},
        {**tensors, "head2.bias": head},
        {**tensors, "head1.bias": np.zeros(3, np.float32)},
    ]
    for other in others:
        save_file(other, path, {"epoch": "1"})
        with pytest.raises(RunError, match=r"of another network or version \(head"):
            read_bundle(folder, shapes)
    save_file(tensors, path)
    with pytest.raises(RunError, match="has no epoch"):
        read_bundle(folder, shapes)
    for damaged in (b"", whole[: len(whole) // 2], b"\xff" * 64, b"{}" * 40):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"model.safetensors: damaged"):
            read_bundle(folder, shapes)
    path.unlink()
    with pytest.raises(RunError, match=r"model.safetensors: damaged"):
        read_bundle(folder, shapes)


def test_half_precision_weights_are_read_as_float32(run: Run, folder: Path) -> None:
    path = folder / "model.safetensors"
    halves = {name: array.astype(np.float16) for name, array in load_file(path).items()}
    save_file(halves, path, {"epoch": "7", "digest": digest(halves)})
    epoch, params = read_bundle(folder, shapes_of(run))
    assert epoch == 7
    for name, leaf in named_leaves(params).items():
        assert leaf.dtype == np.float32
        np.testing.assert_array_equal(leaf, halves[name].astype(np.float32))


def test_changed_weights_are_refused(run: Run, folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-2] ^= 1  # the last bit but a few of a number: still a whole file of the right shapes
    path.write_bytes(raw)
    with pytest.raises(RunError, match=r"its weights are not those that were exported"):
        read_bundle(folder, shapes_of(run))
    tensors = load_file(path)
    tensors["head1.bias"] = np.full_like(tensors["head1.bias"], np.nan)
    save_file(tensors, path, {"epoch": "1"})
    with pytest.raises(RunError, match=r"NaN or infinite values in head1.bias"):
        read_bundle(folder, shapes_of(run))


def test_a_bundle_is_not_bundled_again(run: Run, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a bundle already"):
        export_run(load_run(folder), "bundle", tmp_path / "again")


def test_a_bundle_is_the_same_each_time(run: Run, tmp_path: Path) -> None:
    """safetensors orders its metadata by chance."""
    made = [export_run(run, "bundle", tmp_path / str(i))[0] for i in range(6)]
    for name in FILES:
        assert len({(folder / name).read_bytes() for folder in made}) == 1
    assert load_file(made[0] / "model.safetensors").keys() == named_leaves(run.params).keys()


def test_nobody_is_named(run: Run, tmp_path: Path) -> None:
    """Slices, patients and files, in notes and commands; numbers and ordinary words stay."""
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    split = json.loads((copy / "split.json").read_text())
    split["train"][0] |= {"slice": "smith_ct:017", "patient": "Smith^John"}
    split["warnings"] = ["1 slice of Smith^John resembles smith_ct:017 of 12"]
    (copy / "split.json").write_text(json.dumps(split))
    made = load_run(copy)
    notes = [
        "smith_ct: no mask",
        "2 files left out (lee 7.nii.gz, /data/x/lee8.dcm), 80/20, see /srv/ward/list.txt",
        "~/private/ward: labels 1 and 3 are merged",
        "no lesion at all, such as /srv/ct data/Hans Lee8/masks/1.mha: was it looked for?",
    ]
    made.record = described(made, notes, "train.py --data /srv/ward/smith_ct --epochs 12")
    (folder,) = export_run(made, "bundle", tmp_path / "bundle")
    record = json.loads((folder / "config.json").read_text())
    assert record["data"]["notes"] == [
        "[name]: no mask",
        "2 files left out (lee [file], [file]), 80/20, see list.txt",
        "ward: labels 1 and 3 are merged",
        "no lesion at all,[file]: was it looked for?",
    ]
    assert record["command"] == "train.py --data [name] --epochs 12"
    assert record["bundle"]["split"]["warnings"] == ["1 slice of [name] resembles [name] of 12"]
    text = "".join((folder / name).read_text() for name in FILES[:2]).lower()
    assert not [word for word in ("smith", "john", "lee8", "/root", "private") if word in text]
