"""Reads ``--config``: a YAML or JSON file with all or some settings."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import yaml

from covid_jax.errors import ConfigError
from covid_jax.files import parse_json, reading, require_file
from covid_jax.runs.config import PresetName, TrainConfig, to_dict
from covid_jax.schema import parse
from covid_jax.transforms.augment_config import AugmentationName


def read_settings(path: Path, preset: PresetName | None = None) -> TrainConfig:
    """The settings of a new run: a preset's, changed by a file.

    Args:
      path: YAML or JSON, grouped as ``settings_to_yaml`` writes it; missing settings are those of
        the preset. A run folder or its config.json gives the settings of that run, except ``out``.
      preset: replaces the ``preset`` of the file, but not of a run; ``paper`` if neither is given.

    Raises:
      ConfigError: naming the file, and the key that is unknown, of another type or out of range.
    """
    path = path / "config.json" if path.is_dir() else path
    with reading(path, ConfigError):
        require_file(path, ConfigError)
        raw = path.read_bytes()
    try:
        record = _parsed(raw)
        if "config" in record:  # a run's record
            config = parse(TrainConfig, record["config"])
            return dataclasses.replace(config, out=None, resume=False, profile=0)
        name = parse(PresetName, preset or record.get("preset", "paper"), "preset")
        group, augment = record.get("augmentation"), None
        if isinstance(group, dict) and "augment" in group:  # a set's own values, not the preset's
            augment = parse(AugmentationName, group["augment"], "augmentation.augment")
        return parse(TrainConfig, record | {"preset": name}, base=TrainConfig.named(name, augment))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def settings_to_yaml(config: TrainConfig) -> str:
    """All settings as YAML, which ``read_settings`` reads; lists are kept on a line."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False)


def _parsed(raw: bytes) -> dict[str, Any]:
    if raw.decode("utf-8-sig", "replace").lstrip().startswith("{"):
        return parse_json(raw)
    try:
        value = yaml.load(raw.decode("utf-8-sig"), _Loader)
    except (yaml.YAMLError, *_UNREADABLE, RecursionError) as error:
        raise ConfigError(f"neither YAML nor JSON ({' '.join(str(error).split())})") from error
    return parse(dict[str, Any], value or {}, "settings")


# Of PyYAML, on a date that there is not, a number of 5,000 digits, "!!bool maybe".
_UNREADABLE = (ValueError, LookupError, AttributeError)


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as YAML 1.2 and JSON do; PyYAML itself would require 1.0e-3."""


_FLOAT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line."""


_LIST = "tag:yaml.org,2002:seq"
_Dumper.add_representer(list, lambda d, items: d.represent_sequence(_LIST, items, flow_style=True))
