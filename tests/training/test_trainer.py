"""A run from its first epoch to its last: what it writes, how it goes on, what it refuses."""

import dataclasses
import io
import json
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from covid_jax.data import SliceDataset
from covid_jax.data.batches import batches
from covid_jax.errors import ConfigError, DataError, RunError, StoppedError
from covid_jax.inference import load_run
from covid_jax.losses import focal_tversky_loss
from covid_jax.models import SCSEUNet
from covid_jax.runs.checkpoints import Checkpoints
from covid_jax.runs.config import (
    DataConfig,
    LossConfig,
    TrainConfig,
)
from covid_jax.schema import parse
from covid_jax.splits.policies import Split
from covid_jax.terminal import Screen
from covid_jax.training import train
from covid_jax.training.loggers import read_metrics
from covid_jax.transforms.augmentation import AugmentConfig
from tests.support.synthetic import KINDS, SIZE, TINY, blob_dataset, kinds_dataset, tiny_config
from tests.support.tiny_runs import begin

STILL = AugmentConfig()  # compiles in a third of the time
TIMINGS = ("seconds", "slices_per_second", "peak_memory_gib")


def go(config: TrainConfig, out: Path, dataset: SliceDataset | None = None) -> str:
    console = Screen(file=io.StringIO())
    train(config, dataset or blob_dataset(), out, console=console)
    return console.file.getvalue()


def with_data(**changes) -> TrainConfig:
    """The tiny config with these of its data's settings."""
    return tiny_config(data=dataclasses.replace(tiny_config().data, **changes))


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def without_timings(folder: Path) -> list[dict]:
    rows = read_metrics(folder / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in TIMINGS} for r in rows]


def snapshot(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs without a break."""
    out = tmp_path_factory.mktemp("runs") / "straight"
    go(tiny_config(epochs=4), out)
    return out


@pytest.fixture
def copy(straight: Path, tmp_path: Path) -> Path:
    """The same run, to be spoilt."""
    return shutil.copytree(straight, tmp_path / "copy")


def test_a_run_folder_holds_what_it_should(straight: Path) -> None:
    record = read(straight / "config.json")
    assert parse(TrainConfig, record["config"]) == tiny_config(epochs=4)
    data = record["data"]
    assert data["slices"] == 12
    assert data["fingerprint"] == blob_dataset().fingerprint()
    assert data["normalization"] == {"mean": None, "std": None, "clip": False}
    (source,) = data["sources"]
    assert (source["source"], source["patients"], source["scale"]) == ("blobs", 6, "HU")
    lesion = sum(int(item.mask.sum()) for item in blob_dataset().slices)
    assert source["label_pixels"] == {"lesion": lesion}
    assert set(record["versions"]) >= {"jax", "flax", "optax", "python", "covid_jax"}
    split = read(straight / "split.json")
    named = [row["slice"] for part in ("train", "val", "test") for row in split[part]]
    assert sorted(named) == sorted(item.id for item in blob_dataset().slices)
    assert split["fingerprint"] == data["fingerprint"]
    assert [row["epoch"] for row in read_metrics(straight / "metrics.jsonl")] == [1, 2, 3, 4]
    assert list((straight / "tensorboard").glob("events*"))


def test_the_loss_falls(straight: Path) -> None:
    rows = read_metrics(straight / "metrics.jsonl")
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] - 0.02


def test_the_best_checkpoint_is_the_lowest_validation_loss_recorded(straight: Path) -> None:
    losses = [row["val_loss"] for row in read_metrics(straight / "metrics.jsonl")]
    checkpoints = Checkpoints(straight / "checkpoints", create=False)
    assert checkpoints.epoch("best") == 1 + int(np.argmin(losses))
    assert checkpoints.epoch("latest") == 4


def test_stopped_and_resumed_is_the_same_run_bit_by_bit(straight: Path, tmp_path: Path) -> None:
    """Two epochs, a line and a half of a killed third, then --resume: weights and logs agree."""
    out = tmp_path / "broken"
    go(tiny_config(epochs=2), out)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "train_loss": 9}\n{"epoch": 4, "tr')
    (out / ".77-metrics.jsonl").write_text('{"epo')
    go(tiny_config(epochs=4, resume=True), out)
    assert without_timings(out) == without_timings(straight)
    for which in ("latest", "best"):
        theirs, ours = (load_run(f, which).params for f in (straight, out))
        assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), theirs, ours))
    record = read(out / "config.json")
    assert record["config"]["epochs"] == 4
    assert [row.keys() >= {"command", "date", "versions"} for row in record["resumed"]] == [True]


@pytest.mark.parametrize("first", ["killed before split.json", "killed before the first step"])
def test_a_run_killed_at_its_start_goes_on_as_if_it_had_not_been(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    out = tmp_path / "early"
    if first == "killed before split.json":
        with monkeypatch.context() as patch:
            patch.setattr(
                Split, "save", lambda *_: (_ for _ in ()).throw(StoppedError(signal.SIGINT))
            )
            begin(tiny_config(epochs=1), blob_dataset(), out)
        assert [path.name for path in out.iterdir()] == ["config.json"]
    else:
        begin(tiny_config(epochs=1), blob_dataset(), out)
        assert {path.name for path in out.iterdir()} == {"config.json", "split.json"}
    go(tiny_config(epochs=1, resume=True), out)
    assert without_timings(out) == without_timings(straight)[:1]
    assert read(out / "split.json") == read(straight / "split.json")


def test_another_seed_is_another_run(straight: Path, tmp_path: Path) -> None:
    """In its first weights too: three steps of Adam at 3e-3 move none of them by 0.05."""
    first = without_timings(straight)[0]
    go(tiny_config(epochs=1, seed=1), tmp_path / "other")
    assert without_timings(tmp_path / "other")[0]["train_loss"] != first["train_loss"]
    go(tiny_config(epochs=1), tmp_path / "same")
    one, other = (load_run(tmp_path / name).params for name in ("same", "other"))
    kernels = [params["encoder1_conv"]["conv"]["kernel"] for params in (one, other)]
    assert np.abs(np.subtract(*kernels)).max() > 0.05


def test_every_epoch_takes_the_training_slices_in_another_order(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once; which they are, split.json says. Validation sees its own in the data's order."""
    orders = []

    def noted(dataset: SliceDataset, order: Sequence[int], *sizes) -> Iterator[dict]:
        orders.append([dataset.slices[i].id for i in order])
        return batches(dataset, order, *sizes)

    monkeypatch.setattr("covid_jax.training.trainer.batches", noted)
    go(tiny_config(epochs=2), tmp_path / "run")
    split = read(tmp_path / "run/split.json")
    train_slices, val_slices = ([row["slice"] for row in split[part]] for part in ("train", "val"))
    assert orders[1::2] == [val_slices] * 2
    assert [sorted(order) for order in orders[::2]] == [sorted(train_slices)] * 2
    assert orders[0] != orders[2]


def test_early_stop_ends_the_run(tmp_path: Path) -> None:
    """A learning rate of next to nothing: after the first epoch nothing improves by much."""
    config = tiny_config(epochs=30, augmentation=STILL)
    still = dataclasses.replace(config.optimizer, learning_rate=1e-30, stop_patience=2)
    printed = go(dataclasses.replace(config, optimizer=still), tmp_path / "run")
    assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) == 3
    assert "stopped early" in printed


def test_validation_sees_what_prediction_sees(tmp_path: Path) -> None:
    """The loss by hand, of what is predicted for the validation slices, under a dataset z-score.

    Of a resumed run, which must not have taken another normalisation.
    """
    dataset = kinds_dataset(())
    config = dataclasses.replace(with_data(intensity="dataset"), augmentation=STILL, epochs=1)
    go(config, tmp_path / "run", dataset)
    go(dataclasses.replace(config, epochs=2, resume=True), tmp_path / "run", dataset)
    split = read(tmp_path / "run/split.json")
    names = [row["slice"] for row in split["val"]]
    slices = [item for item in dataset.slices if item.id in names]
    run = load_run(tmp_path / "run", "latest")
    maps = run.predict(np.stack([item.image for item in slices]))
    logits = np.log(maps / (1 - maps))[..., None]
    labels = np.stack([item.mask > 0 for item in slices])[..., None]
    expected = focal_tversky_loss(jnp.asarray(logits), jnp.asarray(labels, jnp.float32)).mean()
    row = read_metrics(tmp_path / "run/metrics.jsonl")[1]
    assert row["val_loss"] == pytest.approx(float(expected), abs=1e-4)
    hits = ((maps > 0.5) & labels[..., 0]).sum((1, 2))
    sizes = (maps > 0.5).sum((1, 2)) + labels[..., 0].sum((1, 2))
    assert row["val_dice"] == pytest.approx((2 * hits / sizes).mean(), abs=1e-6)


def test_classes_are_trained_and_validated_one_by_one(tmp_path: Path) -> None:
    """Dice of each class, and of the lesion they make up, from the predictions by hand."""
    dataset = kinds_dataset(KINDS[::2])
    config = dataclasses.replace(
        with_data(classes=KINDS[::2]), augmentation=STILL, epochs=2, batch_size=2
    )
    go(config, tmp_path / "run", dataset)
    run = load_run(tmp_path / "run", "latest")
    names = {row["slice"] for row in read(tmp_path / "run/split.json")["val"]}
    slices = [item for item in dataset.slices if item.id in names]
    maps = run.predict(np.stack([item.image for item in slices]))
    assert maps.shape[1:] == (SIZE, SIZE, 2)
    found = np.concatenate([1 - maps.sum(-1, keepdims=True), maps], -1).argmax(-1)
    there = np.stack([np.array([0, 1, 0, 2])[item.mask] for item in slices])
    row = read_metrics(tmp_path / "run/metrics.jsonl")[-1]
    pairs = {"val_dice": (found > 0, there > 0)}
    pairs |= {f"val_dice_{KINDS[2 * k - 2]}": (found == k, there == k) for k in (1, 2)}
    for name, (a, b) in pairs.items():
        dice = 2 * (a & b).sum((1, 2)) / (a.sum((1, 2)) + b.sum((1, 2)))
        assert row[name] == pytest.approx(dice.mean(), abs=1e-6), name
    assert not any("consolidation" in name for name in row)


def test_a_window_is_stored_and_asks_for_hu(tmp_path: Path) -> None:
    config = with_data(intensity="window", window=(-500.0, 800.0))
    begin(config, blob_dataset(), tmp_path / "hu")
    stored = read(tmp_path / "hu/config.json")["data"]["normalization"]
    assert stored == {"mean": -500.0, "std": 400.0, "clip": True}
    bytes_ = tuple(
        dataclasses.replace(item, image=np.clip((item.image + 1000) / 4, 0, 255).astype(np.uint8))
        for item in blob_dataset().slices
    )
    with pytest.raises(DataError, match=r"--intensity window needs .* blobs holds .*8-bit"):
        go(config, tmp_path / "pictures", SliceDataset("pictures", bytes_, SIZE))
    assert not (tmp_path / "pictures").exists()


def test_the_paper_split_is_labelled_where_it_is_used(tmp_path: Path) -> None:
    """80/20 of 12 slices; the patients on both sides are counted in split.json."""
    printed = begin(with_data(split="paper"), blob_dataset(), tmp_path / "run")
    split = read(tmp_path / "run/split.json")
    train, test = ({row["patient"] for row in split[part]} for part in ("train", "test"))
    assert f"note: {len(train & test)} patients and" in printed
    assert "on both sides" in printed
    assert "10 training, 2 validation, 2 test slices" in printed
    assert "it flatters" in printed


def test_folds_test_every_slice_once(tmp_path: Path) -> None:
    tested, patients = [], []
    for fold in (1, 2, 3):
        out = tmp_path / str(fold)
        begin(with_data(folds=3, fold=fold), blob_dataset(), out)
        split = read(out / "split.json")
        tested += [row["slice"] for row in split["test"]]
        patients += [{row["patient"] for row in split[part]} for part in ("train", "val", "test")]
        assert f"fold {fold} of 3" in split["statement"]
        assert set.intersection(*patients[-3:]) == set()
    assert sorted(tested) == sorted(item.id for item in blob_dataset().slices)
    assert [len(part) for part in patients[2::3]] == [2, 2, 2]


def test_a_split_file_is_used_again(straight: Path, tmp_path: Path) -> None:
    """Whatever the seed: the same subsets, and a word that they were not drawn here."""
    given = straight / "split.json"
    config = dataclasses.replace(with_data(split_file=given), seed=9)
    printed = begin(config, blob_dataset(), tmp_path / "again")
    again = read(tmp_path / "again/split.json")
    for name in ("train", "val", "test", "fingerprint", "policy"):
        assert again[name] == read(given)[name]
    assert "taken from a split file" in again["statement"]
    assert "taken from a split file" in printed
    begin(with_data(split_file=tmp_path / "again/split.json"), blob_dataset(), tmp_path / "third")
    assert read(tmp_path / "third/split.json") == again


@pytest.mark.parametrize("kind", ["other data", "other patients", "no file", "damaged"])
def test_a_split_file_that_does_not_fit_is_refused(
    straight: Path, tmp_path: Path, kind: str
) -> None:
    given, dataset = tmp_path / "given.json", blob_dataset()
    if kind != "no file":
        shutil.copy(straight / "split.json", given)
    if kind == "other data":
        dataset.slices[0].image[0, 0] += 1
    elif kind == "other patients":
        renamed = dataclasses.replace(dataset.slices[0], patient="someone else")
        dataset = dataclasses.replace(dataset, slices=(renamed, *dataset.slices[1:]))
    elif kind == "damaged":
        given.write_text(given.read_text()[:-9])
    with pytest.raises(RunError, match=str(given)):
        go(with_data(split_file=given), tmp_path / "run", dataset)
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_split_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot make 3 parts"):
        go(tiny_config(), tmp_path / "run", blob_dataset(patients=2))
    with pytest.raises(ConfigError, match="no published training and test part"):
        go(with_data(split="published"), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"accumulate 9: only \d batches come after the warm-up"):
        go(tiny_config(epochs=1, accumulate=9), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "this very run"),
        ({"data": dataclasses.replace(tiny_config().data, data=(Path("moved"),))}, "this very run"),
        ({"seed": 5}, "seed: 0 -> 5"),
        ({"loss": LossConfig(gamma=2.0), "resume": True}, "gamma: 1.33"),
        (
            {"data": DataConfig(image_size=SIZE, split="slice"), "resume": True},
            "split: patient -> slice",
        ),
    ],
    ids=["same", "same elsewhere", "other seed", "resumed, other loss", "resumed, other split"],
)
def test_a_folder_with_a_run_is_never_overwritten(straight: Path, change: dict, said: str) -> None:
    before = snapshot(straight)
    with pytest.raises(RunError, match=said):
        go(tiny_config(**({"epochs": 4} | change)), straight)
    assert snapshot(straight) == before


def test_changed_data_is_not_resumed(straight: Path) -> None:
    dataset, before = blob_dataset(), snapshot(straight)
    dataset.slices[0].image[0, 0] += 1
    with pytest.raises(RunError, match="data has changed"):
        go(tiny_config(epochs=4, resume=True), straight, dataset)
    assert snapshot(straight) == before


def test_resume_keeps_the_split_it_was_started_with(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a later version would draw."""
    before = (copy / "split.json").read_bytes()
    monkeypatch.setattr(
        "covid_jax.training.run_setup.find_split", lambda *_: pytest.fail("drawn again")
    )
    go(tiny_config(epochs=4, resume=True), copy)
    assert (copy / "split.json").read_bytes() == before
    assert len(without_timings(copy)) == 4


@pytest.mark.parametrize("name", ["config.json", "split.json"])
def test_a_damaged_record_ends_a_resumed_run_before_it_writes(copy: Path, name: str) -> None:
    (copy / name).write_text((copy / name).read_text()[:-9])
    before = snapshot(copy)
    with pytest.raises(RunError, match=str(copy / name)):
        go(tiny_config(epochs=5, resume=True), copy)
    assert snapshot(copy) == before


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    """One that lacks the attention's weights: the restoring library would leave them random."""
    config, out = tiny_config(epochs=1), tmp_path / "run"
    begin(config, blob_dataset(), out)
    image = jnp.zeros((1, SIZE, SIZE, 1))
    baseline = jax.jit(SCSEUNet(features=TINY, attention="none").init)(jax.random.key(0), image)
    checkpoints = Checkpoints(out / "checkpoints")
    checkpoints.save(1, {"params": baseline["params"]}, {"epoch": 1}, 0.5)
    with pytest.raises(RunError, match=r"scse\.excite: stored nothing"):
        load_run(out)


@pytest.mark.parametrize("kind", ["resume without run", "other files", "a file", "under a file"])
def test_other_folders_are_left_alone(tmp_path: Path, kind: str) -> None:
    out, config = tmp_path / "out", tiny_config(resume=kind == "resume without run")
    if kind == "other files":
        out.mkdir()
        (out / "thesis.tex").touch()
    elif kind == "a file":
        out.touch()
    elif kind == "under a file":
        out.touch()
        out = out / "run"
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=str(out)):
        go(config, out)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    config = tiny_config(augmentation=STILL)
    wild = dataclasses.replace(config.optimizer, learning_rate=1e38)
    with pytest.raises(RunError, match="non-finite validation loss in epoch 1"):
        go(dataclasses.replace(config, optimizer=wild), tmp_path / "run")
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == []


def test_a_loss_and_a_network_of_ones_own_are_trained_and_recorded(tmp_path: Path) -> None:
    """A loss that wants nothing marked, and a network of one pixelwise layer."""

    def nothing(logits, labels, where):
        assert labels.shape == logits.shape
        return jax.nn.sigmoid(logits).mean((1, 2, 3), where=where)

    console, out = Screen(file=io.StringIO()), tmp_path / "run"
    config, own = tiny_config(augmentation=STILL), {"loss": nothing, "model": nn.Dense(1)}
    train(config, blob_dataset(), out, **own, console=console)
    assert read(out / "config.json")["custom"] == {"loss": "nothing", "model": "Dense"}
    rows = read_metrics(out / "metrics.jsonl")
    assert 0 < rows[1]["train_loss"] < rows[0]["train_loss"] < 1
    again = dataclasses.replace(config, resume=True)
    with pytest.raises(RunError, match=r"custom .*nothing.*Dense.*give train the same"):
        train(again, blob_dataset(), out, console=console)
    train(dataclasses.replace(again, epochs=3), blob_dataset(), out, **own, console=console)
    assert len(read_metrics(out / "metrics.jsonl")) == 3


def test_a_cosine_logs_the_rate_it_used_and_does_not_go_on(tmp_path: Path) -> None:
    """Three steps an epoch; the last of six is at cos(5/6 pi); a seventh would jump back."""
    config = tiny_config(augmentation=STILL)
    cosine = dataclasses.replace(config.optimizer, schedule="cosine")
    config = dataclasses.replace(config, optimizer=cosine, batch_size=3)
    go(config, tmp_path / "run")
    split = read(tmp_path / "run/split.json")
    steps = 2 * -(-len(split["train"]) // 3)
    last = read_metrics(tmp_path / "run/metrics.jsonl")[-1]["learning_rate"]
    expected = 3e-3 * (1 + np.cos(np.pi * (steps - 1) / steps)) / 2
    assert last == pytest.approx(expected, rel=1e-4)
    before = snapshot(tmp_path / "run")
    with pytest.raises(RunError, match=r"cosine falls to zero over 2 epochs .* to 4"):
        go(dataclasses.replace(config, epochs=4, resume=True), tmp_path / "run")
    assert snapshot(tmp_path / "run") == before


def test_an_epoch_may_draw_so_many_slices(tmp_path: Path) -> None:
    config = tiny_config(augmentation=STILL, epochs=1, epoch_slices=15, balance="patient")
    go(config, tmp_path / "run")
    (row,) = read_metrics(tmp_path / "run/metrics.jsonl")
    assert row["slices_per_second"] * row["seconds"] == pytest.approx(15, rel=0.01)
    assert (tmp_path / "run/curves.png").exists()
