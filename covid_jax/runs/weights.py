"""Weights by name: installed ones, and those of the Hugging Face hub.

Installed weights are bundles from a separate Python package, such as this project's ``weights/``.

Its entry point in the group ``covid_jax.weights`` names a package; each folder in it with a
weights.json, which describes its data, terms and scores, is a bundle. ``weights:NAME`` stands for
such a folder wherever a run can be given, and so does ``hf:ORG/NAME`` or ``hf:ORG/NAME@REVISION``
for a bundle on the hub, which is downloaded into its cache once (``HF_HUB_OFFLINE=1``: taken from
there alone).
"""

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from covid_jax.errors import ConfigError, RunError, need
from covid_jax.files import read_json, reading
from covid_jax.runs.bundle import WEIGHTS
from covid_jax.schema import parse

GROUP = "covid_jax.weights"
PREFIX = "weights:"
HUB = "hf:"
HOW_TO_GET = "no weights are installed; in a checkout of covid_jax: pip install ./weights"


@dataclass(frozen=True)
class InstalledWeights:
    """weights.json of installed weights.

    Attributes:
      name: of their folder.
      path: the folder, a bundle.
      pictures: kind of images they were trained on.
      data: what they were trained on.
      terms: terms of use.
      scores: by what was scored.
      false_alarms: scores on lungs without lesions, by what was scored.
      sha256: of model.safetensors, in hexadecimal.
      default: whether ``covid-jax predict`` uses these weights if several are installed.
    """

    name: str
    path: Path
    pictures: str
    data: str
    terms: str
    scores: dict[str, float | str]
    false_alarms: dict[str, float | str]
    sha256: str
    default: bool = False


def installed_weights() -> tuple[InstalledWeights, ...]:
    """All installed weights, in the order of their names.

    Raises:
      RunError: if a weights.json is damaged, or a package cannot be imported.
    """
    found = []
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            (package,) = entry.load().__path__
        except (ImportError, AttributeError, ValueError) as error:
            problem = f"{entry.value}: damaged ({error}); install the weights again"
            raise RunError(problem) from error
        for file in Path(package).glob("*/weights.json"):
            place = {"name": file.parent.name, "path": file.parent}
            try:
                found.append(parse(InstalledWeights, read_json(file, error=RunError) | place))
            except ConfigError as error:
                raise RunError(f"{file}: {error}; install the weights again") from error
    return tuple(sorted(found, key=lambda weights: weights.name))


def find_weights(name: str | None = None) -> InstalledWeights:
    """The installed weights of this name, or the default ones without a name.

    Raises:
      RunError: if there are none, or several without a name and not one of them is the default.
    """
    installed = installed_weights()
    if not installed:
        raise RunError(HOW_TO_GET)
    defaults = [weights for weights in installed if weights.default or len(installed) == 1]
    chosen = defaults if name is None else [each for each in installed if each.name == name]
    if len(chosen) != 1:
        names = ", ".join(PREFIX + weights.name for weights in installed)
        problem = f"{PREFIX}{name}: not installed" if name else "several weights are installed"
        raise RunError(f"{problem}; choose one of {names}")
    return chosen[0]


def weights_folder(run: str | Path) -> Path:
    """The folder that ``weights:NAME`` or ``hf:ORG/NAME`` stands for; any other path as it is.

    Raises:
      RunError: if these weights are not installed, or their file has another SHA-256 than when it
        was packed; or if the hub has no such bundle or cannot be reached.
      ConfigError: if huggingface_hub is needed and not installed.
    """
    if str(run).startswith(HUB):
        return _from_hub(str(run))
    if not str(run).startswith(PREFIX):
        return Path(run)
    weights = find_weights(str(run).removeprefix(PREFIX))
    path = weights.path / WEIGHTS
    with reading(path, RunError):
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != weights.sha256:
        differs = f"SHA-256 {found:.12}..., expected {weights.sha256:.12}..."
        raise RunError(f"{path}: {differs}; install the weights again")
    return weights.path


def _from_hub(run: str) -> Path:
    snapshot_download = need("huggingface_hub", run, "hub").snapshot_download
    name, _, revision = run.removeprefix(HUB).partition("@")
    files = [WEIGHTS, "config.json", "README.md"]
    try:
        folder = Path(snapshot_download(name, revision=revision or None, allow_patterns=files))
    except Exception as error:  # its own have no kind in common
        reason = str(error).strip().partition("\n")[0]
        raise RunError(f"{run}: cannot be had from the Hugging Face hub ({reason})") from error
    if missing := [file for file in files[:2] if not (folder / file).is_file()]:
        raise RunError(f"{run}: no bundle of covid_jax, as it has no {' and no '.join(missing)}")
    return folder
