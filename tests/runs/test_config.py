"""Settings: the paper's recipe, the way to JSON and back, and what cannot be."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covid_jax.errors import ConfigError
from covid_jax.runs.config import (
    DataConfig,
    EvalConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    differences,
    to_dict,
)
from covid_jax.schema import parse
from covid_jax.transforms.augment_config import AugmentConfig

PRESETS = {"paper": TrainConfig(), "quick": TrainConfig.quick()}


def changed(field: str, value: Any, base: TrainConfig = PRESETS["paper"]) -> TrainConfig:
    """The config with one leaf changed: ``group.name`` or ``name``."""
    group, _, name = field.rpartition(".")
    if not group:
        return dataclasses.replace(base, **{name: value})
    return dataclasses.replace(
        base, **{group: dataclasses.replace(getattr(base, group), **{name: value})}
    )


def test_the_papers_preset_is_the_papers_recipe() -> None:
    """Zhou, Canu, Ruan 2020, sections 3 and 4; batch, epochs and augmentation as inferred."""
    paper = PRESETS["paper"]
    assert paper.preset == "paper"
    assert paper.data == DataConfig(
        data=(),
        image_size=512,
        lesion_slices_only=True,
        classes=(),
        series=(),
        intensity="slice",
        window=(-600.0, 1500.0),
        split="auto",
        split_seed=0,
        folds=None,
        fold=None,
        split_file=None,
    )
    assert paper.model == ModelConfig((32, 64, 128, 256, 512), "encoder_decoder", 0.3, "float32")
    assert paper.loss == LossConfig("ftl", alpha=0.7, beta=0.3, gamma=4 / 3)
    assert paper.optimizer == OptimizerConfig(
        learning_rate=5e-5, plateau_factor=0.5, plateau_patience=10, stop_patience=50
    )
    assert (paper.epochs, paper.batch_size) == (500, 1)
    assert paper.augmentation == AugmentConfig()
    assert not paper.resume


def test_each_preset_knows_its_name() -> None:
    for name, preset in PRESETS.items():
        assert preset == TrainConfig.named(name)
        assert preset.preset == name


def test_a_presets_flag_is_what_its_strengths_are() -> None:
    for config in PRESETS.values():
        assert config.augmentation == AugmentConfig.named(config.augmentation.augment)


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("standard", {"orientation", "intensity_curve"}),
        ("strong", {"flip"}),  # which orientation holds in it
        ("none", {field.name for field in dataclasses.fields(AugmentConfig)} - {"augment"}),
    ],
)
def test_a_named_set_of_changes_knows_its_name_and_what_is_on(name: Any, off: set[str]) -> None:
    chosen, plain = AugmentConfig.named(name), AugmentConfig()
    assert chosen.augment == name
    values = dataclasses.asdict(chosen)
    del values["augment"]
    assert {key for key, value in values.items() if value == getattr(plain, key)} == off
    assert chosen.on is (name != "none")


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(AugmentConfig)][1:])
def test_a_single_strength_is_enough_to_be_on(name: str) -> None:
    chosen = {"flip": True, "orientation": "any"}.get(name, 0.1)
    assert dataclasses.replace(AugmentConfig(), **{name: chosen}).on


@pytest.mark.parametrize("base", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data.data": (Path("scans/here"), Path("b")), "out": Path("runs/there")},
        {"data.classes": ("ground_glass", "effusion"), "data.series": ("1.2.3",)},
        {"data.intensity": "window", "data.window": (40.0, 400.0)},
        {"data": DataConfig(folds=5, fold="all", split_seed=3)},
        {"data.split_file": Path("runs/one/split.json"), "augmentation.rotation": 7.0},
        {"model.features": (4, 8), "loss.gamma": 1.0, "seed": 7, "resume": True},
    ],
)
def test_json_and_back_changes_nothing(base: TrainConfig, changes: dict[str, Any]) -> None:
    config = base
    for field, value in changes.items():
        config = changed(field, value, config)
    again = parse(TrainConfig, json.loads(json.dumps(to_dict(config))))
    assert again == config
    assert hash(again) == hash(config)  # tuples are tuples again, paths are paths


def test_the_record_is_grouped_like_the_config() -> None:
    record = json.loads(json.dumps(to_dict(changed("data.data", (Path("scans"), Path("b"))))))
    assert record["data"]["data"] == ["scans", "b"]
    assert record["data"]["window"] == [-600.0, 1500.0]
    assert record["augmentation"]["rotation"] == 0.0
    assert record["model"]["features"] == [32, 64, 128, 256, 512]
    assert record["loss"] == {"loss": "ftl", "alpha": 0.7, "beta": 0.3, "gamma": 4 / 3} | {
        "bce_weight": 0.0,
        "pool": "slice",
    }
    assert record["out"] is None
    assert record["optimizer"]["learning_rate"] == 5e-5


@pytest.mark.parametrize("group", [None, "data", "augmentation", "model", "loss", "optimizer"])
def test_a_field_that_is_missing_takes_its_default(group: str | None) -> None:
    """Records of earlier versions lack what was added since."""
    for name in ("preset",) if group is None else to_dict(TrainConfig())[group]:
        record = to_dict(TrainConfig())
        del (record if group is None else record[group])[name]
        assert parse(TrainConfig, record) == TrainConfig()
        if name == "image_size":
            assert parse(TrainConfig, record, base=TrainConfig.quick()).data.image_size == 128


def test_differences_name_the_leaf_the_old_and_the_new() -> None:
    old = PRESETS["paper"]
    new = changed("loss.gamma", 2.0, changed("seed", 3, changed("data.image_size", 256)))
    assert sorted(differences(old, new)) == [
        "gamma: 1.3333333333333333 -> 2.0",
        "image_size: 512 -> 256",
        "seed: 0 -> 3",
    ]
    assert differences(old, new, ignore=("seed", "gamma")) == ["image_size: 512 -> 256"]
    assert differences(new, new) == []


def test_differences_see_leaves_that_share_their_groups_name() -> None:
    old = PRESETS["paper"]
    new = changed("loss.loss", "dice", changed("data.data", (Path("scans"),)))
    assert sorted(differences(old, new)) == ["data: [] -> ['scans']", "loss: ftl -> dice"]


def test_no_two_leaves_share_a_name() -> None:
    """The command line has no prefixes, so that a name must say which setting it is."""
    config = TrainConfig()
    names = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        leaves = dataclasses.fields(value) if dataclasses.is_dataclass(value) else [field]
        names += [leaf.name for leaf in leaves]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("data.image_size", 500, "image_size 500"),
        ("data.image_size", 16, "image_size 16"),
        ("data.image_size", 0, "image_size 0"),
        ("data.image_size", -512, "image_size -512"),
        ("model.features", (32,), "features (32,)"),
        ("model.features", (), "features ()"),
        ("model.features", (32, 1), "features (32, 1)"),
        ("loss.gamma", 0.75, "gamma 0.75"),
        ("loss.gamma", 3.5, "gamma 3.5"),
        ("loss.gamma", math.nan, "gamma nan"),
        ("loss.alpha", -0.1, "alpha -0.1"),
        ("loss.alpha", math.nan, "alpha nan"),
        ("loss.beta", -1.0, "beta -1.0"),
        ("loss.beta", math.inf, "beta inf"),
        ("epochs", 0, "epochs 0"),
        ("batch_size", 0, "batch_size 0"),
        ("optimizer.learning_rate", 0.0, "learning_rate 0.0"),
        ("optimizer.learning_rate", -1e-3, "learning_rate -0.001"),
        ("optimizer.learning_rate", np.float32(-1), "learning_rate np.float32"),
        ("optimizer.learning_rate", math.nan, "learning_rate nan"),
        ("optimizer.learning_rate", math.inf, "learning_rate inf"),
        ("optimizer.plateau_factor", 0.0, "plateau_factor 0.0"),
        ("optimizer.plateau_factor", 1.0, "plateau_factor 1.0"),
        ("optimizer.plateau_patience", 0, "plateau_patience 0"),
        ("optimizer.stop_patience", 0, "stop_patience 0"),
        ("seed", -1, "seed -1"),
        ("seed", 2**32, "seed 4294967296"),
        ("data.split", "patients", "split patients: expected one of auto, published"),
        ("data.intensity", "hu", "intensity hu: expected one of slice, dataset, window"),
        ("data.window", (-600.0, 0.0), "window -600.0 0.0"),
        ("data.window", (-600.0, math.inf), "window -600.0 inf"),
        ("data.window", (math.nan, 1500.0), "window nan 1500.0"),
        ("data.classes", ("effusion", "effusion"), "classes effusion effusion"),
        ("data.split_seed", -1, "split_seed -1"),
        ("data.split_seed", 2**32, "split_seed 4294967296"),
        ("data.folds", 5, "folds and fold go together"),
        ("data.fold", 2, "folds and fold go together"),
        ("augmentation.augment", "some", "augment some: expected one of none, standard, strong"),
        ("augmentation.rotation", 180.5, "rotation 180.5: expected 0 to 180"),
        ("augmentation.rotation", 181, "rotation 181: expected 0 to 180"),
        ("augmentation.rotation", -1, "rotation -1"),
        ("augmentation.scale", 1.0, "scale 1.0: expected 0 to 0.9"),
        ("augmentation.shift", 1.5, "shift 1.5: expected 0 to 1"),
        ("augmentation.elastic", 0.3, "elastic 0.3: expected 0 to 0.2"),
        ("augmentation.contrast", 1.1, "contrast 1.1: expected 0 to 1"),
        ("augmentation.gamma_correction", -0.1, "gamma_correction -0.1"),
        ("augmentation.noise", math.nan, "noise nan"),
        ("augmentation.blur", math.inf, "blur inf: expected 0 to 10"),
    ],
)
@pytest.mark.usefixtures("unchecked_annotations")
def test_impossible_values_are_refused_by_name_and_value(field: str, value: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(field, value)
    assert str(caught.value).startswith(said)
    assert set(caught.value.fields) <= set(re.findall(r"[a-z_]+", str(caught.value)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.image_size", 32),
        ("data.image_size", 528),
        ("model.features", (2, 2)),
        ("loss.gamma", 1.0),
        ("loss.gamma", 3.0),
        ("loss.alpha", 0.0),
        ("optimizer.plateau_factor", 0.99),
        ("epochs", 1),
        ("seed", 2**32 - 1),
        ("data.window", (0.0, 1e-3)),
        ("data.split_seed", 2**32 - 1),
        ("augmentation.rotation", 180.0),
        ("augmentation.scale", 0.9),
        ("augmentation.elastic", 0.2),
        ("augmentation.flip", True),
    ],
)
def test_the_last_possible_values_are_accepted(field: str, value: Any) -> None:
    assert changed(field, value) != PRESETS["paper"]


@pytest.mark.parametrize(("size", "tried"), [(500, (496, 512)), (1, (32, 48)), (40, (32, 48))])
def test_a_wrong_image_size_is_answered_with_two_right_ones(
    size: int, tried: tuple[int, int]
) -> None:
    """Five levels halve four times: multiples of 16, at least 32."""
    with pytest.raises(ConfigError, match=f"try {tried[0]} or {tried[1]}"):
        changed("data.image_size", size)
    for other in tried:
        assert changed("data.image_size", other).data.image_size == other


@pytest.mark.parametrize(
    ("folds", "fold", "flag"),
    [
        (1, 1, "folds 1: expected at least 2"),
        (-3, 1, "folds -3"),
        (5, 0, "fold 0: expected 1 to 5"),
        (5, 6, "fold 6: expected 1 to 5"),
    ],
)
def test_impossible_folds_are_refused(folds: int, fold: int, flag: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DataConfig(folds=folds, fold=fold)
    assert flag in str(caught.value)


def test_folds_are_drawn_and_a_split_file_is_given() -> None:
    for fold in (1, 5, "all"):
        assert DataConfig(folds=5, fold=fold).fold == fold
    with pytest.raises(ConfigError, match="split_file contains one split"):
        DataConfig(folds=5, fold=1, split_file=Path("split.json"))


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, math.nan, math.inf, "test"])
def test_a_threshold_is_a_probability_or_chosen_on_validation(threshold: Any) -> None:
    assert [EvalConfig(threshold=at).threshold for at in (0.3, "val")] == [0.3, "val"]
    with pytest.raises((ConfigError, TypeError)):
        EvalConfig(threshold=threshold)
