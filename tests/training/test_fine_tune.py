"""Fine-tuning: which parameters are taken over, which stay in every bit, what is refused."""

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn
from safetensors.numpy import load_file, save_file

from covid_jax.errors import ConfigError, RunError
from covid_jax.export import export_run
from covid_jax.inference import Run
from covid_jax.runs.config import DataConfig, InitConfig, ModelConfig, OptimizerConfig, TrainConfig
from covid_jax.runs.digest import digest, named_leaves
from covid_jax.runs.record import read_record
from covid_jax.terminal import Screen
from covid_jax.training import train
from covid_jax.training.fine_tune import _drawn
from covid_jax.transforms.augmentation import AugmentConfig
from tests.support.synthetic import SIZE, blob_dataset, kinds_dataset, tiny_config
from tests.support.tiny_runs import begin, untrained_run

MILD = AugmentConfig(flip=True)


def config_of(origin: Path | None, **init: Any) -> TrainConfig:
    optimizer = OptimizerConfig(learning_rate=0.05, clip_norm=1.0, ema=0.9)
    settings = InitConfig(init_from=origin, **init)
    return tiny_config(init=settings, optimizer=optimizer, augmentation=MILD)


class OneLayer(nn.Module):
    """A network of the user's own."""

    @nn.compact
    def __call__(self, images):
        return nn.Conv(1, (3, 3), name="layer")(images)


def go(config: TrainConfig, out: Path, dataset: Any = None, **custom: Any) -> str:
    console = Screen(file=io.StringIO())
    train(config, dataset or blob_dataset(patients=7), out, console=console, **custom)
    return console.file.getvalue()


def stored(out: Path, epoch: int, name: str) -> dict[str, np.ndarray]:
    """Parameters or their average as they lie on the disk."""
    with ocp.StandardCheckpointer() as reader:
        tree = reader.restore((out / "checkpoints" / str(epoch) / "weights").absolute())[name]
    return {key: np.asarray(leaf) for key, leaf in named_leaves(tree).items()}


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return untrained_run(tiny_config(), blob_dataset(), tmp_path_factory.mktemp("origin") / "run")


@pytest.fixture(scope="module")
def bundle(origin: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a negative zero, which an update of zero would make positive."""
    (folder,) = export_run(origin, "bundle", tmp_path_factory.mktemp("shared") / "bundle")
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder1_conv.conv.kernel"][0, 0, 0, 0] = -0.0
    save_file(tensors, folder / "model.safetensors", {"epoch": "1"})
    return folder


@pytest.fixture(scope="module")
def tuned(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "run"
    go(config_of(bundle, freeze=("encoder",)), out)
    return out


def test_frozen_parameters_and_their_average_keep_every_bit(bundle: Path, tuned: Path) -> None:
    before = load_file(bundle / "model.safetensors")
    for item in ("params", "average"):
        after = stored(tuned, 2, item)
        equal = {name for name in before if after[name].tobytes() == before[name].tobytes()}
        assert equal == {name for name in before if name.startswith("encoder")}
    assert before["encoder1_conv.conv.kernel"].size


def test_config_json_says_where_the_weights_come_from(bundle: Path, tuned: Path) -> None:
    record = json.loads((tuned / "config.json").read_text())
    assert record["origin"] == {
        "digest": digest(load_file(bundle / "model.safetensors")),
        "epoch": 1,
        "layout": "blobs",
        "fingerprint": blob_dataset().fingerprint(),
        "drawn": [],
        "notes": [],
    }
    assert record["config"]["init"]["freeze"] == ["encoder"]


def test_resuming_needs_no_origin_and_ends_in_the_same_bits(
    bundle: Path, tuned: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(bundle, tmp_path / "moved")
    config = config_of(moved, freeze=("encoder",))
    go(dataclasses.replace(config, epochs=1), tmp_path / "run")
    shutil.rmtree(moved)
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} == {"0", "1"}
    without = dataclasses.replace(config, resume=True, init=InitConfig(freeze=("encoder",)))
    go(without, tmp_path / "run")
    for item in ("params", "average"):
        ours, theirs = stored(tmp_path / "run", 2, item), stored(tuned, 2, item)
        assert digest(ours) == digest(theirs)
    assert read_record(tmp_path / "run").config.init.init_from == moved
    with pytest.raises(RunError, match=r"different settings \(freeze"):
        go(dataclasses.replace(without, init=InitConfig()), tmp_path / "run")


def test_before_the_first_checkpoint_resuming_reads_the_origin(
    bundle: Path, tmp_path: Path
) -> None:
    config, out = config_of(bundle), tmp_path / "run"
    begin(config, blob_dataset(), out)
    resumed = dataclasses.replace(config, resume=True, epochs=1)
    with pytest.raises(RunError, match=r"init_from: .*bundle -> None"):
        go(dataclasses.replace(resumed, init=InitConfig()), out, blob_dataset())
    go(resumed, out, blob_dataset())
    assert digest(stored(out, 0, "params")) == digest(load_file(bundle / "model.safetensors"))


def test_half_a_checkpoint_is_none(bundle: Path, tmp_path: Path) -> None:
    """Of a process that was killed while it saved the initial weights: they are read again."""
    config, out = config_of(bundle), tmp_path / "run"
    begin(config, blob_dataset(), out)
    (out / "checkpoints" / "0.orbax-checkpoint-tmp").mkdir(parents=True)
    go(dataclasses.replace(config, resume=True, epochs=1), out, blob_dataset())
    assert digest(stored(out, 0, "params")) == digest(load_file(bundle / "model.safetensors"))


def test_a_skipped_scalar_is_drawn() -> None:
    scalar = {"scale": np.float32(2), "kernel": np.ones(3)}
    assert _drawn(scalar, scalar, InitConfig(Path("x"), ("scale",))) == ("scale",)


def test_heads_of_other_classes_are_drawn_with_a_note(origin: Run, tmp_path: Path) -> None:
    dataset = kinds_dataset()
    data = DataConfig(image_size=SIZE, split="patient", classes=dataset.targets)
    config = dataclasses.replace(config_of(origin.folder), data=data, epochs=1)
    said = go(config, tmp_path / "run", dataset)
    assert "2 parameters drawn at random: head1.bias, head1.kernel" in said
    assert "was trained with classes (); this run has ('ground_glass'" in said
    assert read_record(tmp_path / "run").origin.drawn == ("head1.bias", "head1.kernel")
    first, before = stored(tmp_path / "run", 0, "params"), named_leaves(origin.params)
    assert first["head1.kernel"].shape == (1, 1, 4, 4)
    assert all((first[n] == before[n]).all() for n in before if not n.startswith("head"))


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (ModelConfig(features=(4, 12)), r"\S+ is \(3, 3, 8, 4\) there, \(3, 3, 12, 4\) here"),
        (
            ModelConfig(features=(4, 8), attention="none"),
            r"\S+_scse\.excite is \(2, 4\) there, missing",
        ),
    ],
)
def test_another_network_is_refused_before_anything_is_written(
    origin: Run, model: ModelConfig, named: str, tmp_path: Path
) -> None:
    config = dataclasses.replace(config_of(origin.folder), model=model)
    with pytest.raises(RunError, match=f"run: another network: {named}"):
        go(config, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_your_own_is_fine_tuned_too(tmp_path: Path) -> None:
    config = dataclasses.replace(config_of(None), epochs=1)
    go(config, tmp_path / "origin", model=OneLayer())
    config = dataclasses.replace(config, init=InitConfig(tmp_path / "origin", freeze=("layer.k",)))
    go(config, tmp_path / "run", model=OneLayer())
    before, after = (stored(tmp_path / name, 1, "average") for name in ("origin", "run"))
    assert (before["layer.kernel"] == after["layer.kernel"]).all()
    assert (before["layer.bias"] != after["layer.bias"]).all()


def test_what_is_skipped_may_differ(origin: Run, tmp_path: Path) -> None:
    config = config_of(origin.folder, init_skip=("encoder2", "decoder1"))
    config = dataclasses.replace(config, model=ModelConfig(features=(4, 12)))
    said = begin(config, blob_dataset(), tmp_path / "run")
    assert "drawn at random: " in said
    assert "was trained on the same data" in said
    drawn = read_record(tmp_path / "run").origin.drawn
    assert {name[:8] for name in drawn} == {"encoder2", "decoder1"}


@pytest.mark.parametrize("init", [{"freeze": ("encodr",)}, {"init_skip": ("encodr",)}])
def test_names_of_no_parameter_are_refused(origin: Run, init: dict, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"encodr: expected the beginning of .*encoder1_conv"):
        go(config_of(origin.folder, **init), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_skipping_needs_an_origin() -> None:
    with pytest.raises(ConfigError, match="init_skip: only together with init_from"):
        InitConfig(init_skip=("head",))
