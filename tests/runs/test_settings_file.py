"""Settings files: a preset changed by YAML or JSON, in whatever part, and refusals by key."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from covid_jax.errors import ConfigError
from covid_jax.runs.config import DataConfig, LossConfig, TrainConfig, to_dict
from covid_jax.runs.record import DataRecord, RunRecord, start_record
from covid_jax.runs.settings_file import read_settings, settings_to_yaml
from covid_jax.transforms.augment_config import AugmentConfig
from covid_jax.transforms.preprocessing import Normalization


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(text: str, name: str = "lung.settings") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


@pytest.mark.parametrize("config", [TrainConfig(), TrainConfig.quick()])
def test_yaml_and_back_changes_nothing(written: Any, config: TrainConfig) -> None:
    data = dataclasses.replace(config.data, data=(Path("a b"), Path("ü")), classes=("x", "y"))
    config = dataclasses.replace(config, data=data, loss=LossConfig("dice", gamma=1e-9 + 1))
    text = settings_to_yaml(config)
    assert "features: [" in text
    assert read_settings(written(text)) == config
    assert read_settings(written(json.dumps(to_dict(config)))) == config


def test_a_part_changes_the_preset_and_nothing_else(written: Any) -> None:
    path = written("epochs: 7\noptimizer:\n  learning_rate: 1e-3\n  ema: .5\n")
    for preset, base in (("quick", TrainConfig.quick()), (None, TrainConfig())):
        optimizer = dataclasses.replace(base.optimizer, learning_rate=0.001, ema=0.5)
        expected = dataclasses.replace(base, epochs=7, optimizer=optimizer)
        assert read_settings(path, preset) == expected


def test_a_preset_in_the_file_is_the_default_and_the_flag_comes_first(written: Any) -> None:
    path = written('{"preset": "quick", "seed": 3}')
    assert read_settings(path) == dataclasses.replace(TrainConfig.quick(), seed=3)
    assert read_settings(path, "paper") == TrainConfig(seed=3)
    assert read_settings(written("")) == TrainConfig()


def test_a_set_of_augmentations_comes_with_its_values(written: Any) -> None:
    path = written("augmentation: {augment: standard, rotation: 5}")
    expected = dataclasses.replace(AugmentConfig.named("standard"), rotation=5.0)
    assert read_settings(path).augmentation == expected
    off = written("preset: quick\naugmentation: {augment: none}")
    assert not read_settings(off).augmentation.on


def test_a_runs_settings_are_those_of_a_new_run(tmp_path: Path) -> None:
    config = TrainConfig(data=DataConfig((Path("ct"),)), out=tmp_path, profile=3, seed=5)
    start_record(tmp_path / "run", RunRecord.new(config, DataRecord("", "", Normalization())))
    for path in (tmp_path / "run", tmp_path / "run/config.json"):
        assert read_settings(path) == TrainConfig(data=config.data, seed=5)


def nested(levels: int) -> str:
    """YAML of a list of ten lists of ten lists ..., each written once: 10^levels names."""
    text = "x"
    for level in range(levels):
        text = f"[&n{level} {text}" + f", *n{level}" * 9 + "]"
    return f"seed: {text}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch: 3", "epoch: unknown field (did you mean epochs?)"),
        (
            "learning_rate: 3",
            "learning_rate: unknown field (did you mean optimizer.learning_rate?)",
        ),
        ("optimizer: {learning_rte: 3}", "(did you mean optimizer.learning_rate?)"),
        ("optimizer: {learning_rate: fast}", "optimizer.learning_rate fast: expected a number"),
        ("epochs: 1.5", "epochs 1.5: expected a whole number"),
        ("epochs: yes", "epochs True: expected a whole number"),
        ("epochs: 0", "epochs 0: expected at least 1"),
        ("loss: dice", "loss: expected the fields loss, alpha"),
        ("preset: fast", "preset fast: expected one of quick, paper"),
        ("augmentation: {augment: much}", "augmentation.augment much: expected one of none"),
        ("model: {features: [8, x]}", "model.features[1] x: expected a whole number"),
        ("data: {window: [1]}", "data.window [1]: expected a list of 2: a number, a number"),
        ("- epochs", "settings ['epochs']: expected names with values"),
        ("epochs: [", "neither YAML nor JSON (while parsing"),
        ("[" * 10_000, "neither YAML nor JSON (maximum recursion depth"),
        ("seed: " + "9" * 5000, "neither YAML nor JSON (Exceeds the limit"),
        ("seed: [0x" + "f" * 5000 + "]", "seed a number of thousands of digits: expected a whole"),
        ("seed: -0x" + "f" * 5000, "seed a number of thousands of digits: expected"),
        (
            "data:\n ? 0x" + "f" * 5000 + "\n : 1",
            "data.a number of thousands of digits: unknown field",
        ),
        ("seed: 2020-13-45", "neither YAML nor JSON (month must be"),
        ("seed: !!bool maybe", "neither YAML nor JSON ("),
        ("seed: !!timestamp now", "neither YAML nor JSON ("),
        (nested(12), "seed [[[[[...], [...], [...], [...]"),
        ('{"epochs": 3', "damaged (Expecting"),
        ('{"config": {"epochs": null}}', "epochs None: expected a whole number"),
    ],
)
def test_what_is_wrong_is_refused_by_file_and_key(written: Any, text: str, said: str) -> None:
    path = written(text)
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    reasons = {"a": "neither YAML nor JSON", "b": "no such file", "pipe": "a named pipe"}
    for name, said in reasons.items():
        with pytest.raises(ConfigError, match=f"{tmp_path / name}: {said}"):
            read_settings(tmp_path / name)
