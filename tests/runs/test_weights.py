"""Installed weights: found by their entry point, their digests checked, their terms printed."""

import hashlib
import importlib
import json
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.experiments.pack_weights import pack
from covid_jax.cli.main import main
from covid_jax.ensemble import load_runs
from covid_jax.errors import ConfigError, RunError
from covid_jax.inference import load_run
from covid_jax.runs.weights import find_weights, installed_weights, weights_folder

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "tests/fixtures/bundle_0_1"
HOW = "no weights are installed; in a checkout of covid_jax: pip install ./weights"
CLINICAL = "Research use only; not for diagnosis or treatment."


@pytest.fixture(autouse=True)
def _nothing_else_is_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The weights may be in the developer's environment, the test's package in sys.modules."""
    real = importlib.metadata.entry_points

    def of_tests(**selected):
        found = real(**selected)
        return [e for e in found if e.dist and "pytest" in str(e.dist.locate_file(""))]

    monkeypatch.setattr(importlib.metadata, "entry_points", of_tests)
    yield
    sys.modules.pop("covid_jax_weights", None)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What pip makes of weights/: the package, and its entry points as pyproject.toml has them."""
    if not (ROOT / "weights").is_dir():
        pytest.skip("a source distribution contains no weights")
    site = tmp_path / "pytest-site"
    shutil.copytree(ROOT / "weights/covid_jax_weights", site / "covid_jax_weights")
    project = tomllib.loads((ROOT / "weights/pyproject.toml").read_text())["project"]
    dist = site / "covid_jax_weights-0.1.0.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: covid_jax_weights\nVersion: 0\n")
    groups = project["entry-points"]
    lines = [
        f"[{group}]\n{name} = {value}" for group in groups for name, value in groups[group].items()
    ]
    (dist / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(site)
    return site / "covid_jax_weights"


def test_the_stand_in_is_found_and_predicts(package: Path) -> None:
    (weights,) = [each for each in installed_weights() if each.name == "phantom-standin"]
    folder = package / "phantom-standin"
    assert weights.path == folder
    assert weights.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert weights.sha256 in (folder / "README.md").read_text()
    assert {a.dtype for a in load_file(folder / "model.safetensors").values()} == {np.dtype("f2")}
    run = load_run("weights:phantom-standin")
    assert run.folder == folder
    assert run.predict(np.full((20, 30), -700.0)).shape == (20, 30)


def test_every_set_in_the_repository_is_whole(package: Path) -> None:
    """Real weights may be added; one of several must be the default."""
    installed = installed_weights()
    assert all(weights_folder(f"weights:{each.name}") == each.path for each in installed)
    assert find_weights() in installed


def test_without_any_one_line_says_how_to_get_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert installed_weights() == ()
    with pytest.raises(SystemExit):
        main(["predict", str(tmp_path / "scan.nii.gz"), "-o", str(tmp_path / "out")])
    assert capsys.readouterr().err == f"error: {HOW}\n"
    main(["weights"])
    assert capsys.readouterr().out == f"{HOW}\n"


def test_another_file_is_refused(package: Path) -> None:
    file = package / "phantom-standin/model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(RunError, match=r"model.safetensors: SHA-256 \w{12}\.\.\., expected"):
        load_run("weights:phantom-standin")
    file.unlink()
    with pytest.raises(RunError, match="cannot be read"):
        load_run("weights:phantom-standin")


def test_names_and_defaults(package: Path) -> None:
    for folder in package.iterdir():
        if folder.is_dir() and folder.name != "phantom-standin":
            shutil.rmtree(folder)
    assert find_weights().name == "phantom-standin"
    shutil.copytree(package / "phantom-standin", package / "other")
    with pytest.raises(RunError, match=r"several .* weights:other, weights:phantom-standin"):
        find_weights()
    with pytest.raises(RunError, match="weights:lung: not installed; choose one of weights:other"):
        load_run("weights:lung")
    record = json.loads((package / "other/weights.json").read_text())
    (package / "other/weights.json").write_text(json.dumps(record | {"default": True}))
    assert find_weights().name == "other"
    (package / "other/weights.json").write_text(json.dumps(record | {"digest": ""}))
    with pytest.raises(RunError, match=r"other.weights\.json: digest: unknown field"):
        installed_weights()


def test_the_list_and_each_use_print_terms(
    package: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main(["weights"])
    said = capsys.readouterr().out
    digest = hashlib.sha256((package / "phantom-standin/model.safetensors").read_bytes())
    for text in ("weights:phantom-standin", "Apache-2.0", "0.273", digest.hexdigest(), CLINICAL):
        assert text in said
    missing = str(tmp_path / "scan.nii.gz")
    for arguments in (
        ["predict", missing, "-o", str(tmp_path / "out"), "--run", "weights:phantom-standin"],
        ["export", "weights:phantom-standin", "--format", "bundle", "-o", str(tmp_path / "out")],
        ["eval", "weights:phantom-standin", "--data", missing],
        ["train", "--init-from", "weights:phantom-standin", "--data", missing],
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        said = capsys.readouterr().out
        assert "Terms: Apache-2.0" in said
        assert CLINICAL in said


def test_packing_halves_the_file_and_orders_the_card(tmp_path: Path) -> None:
    about = {"scores": {"Dice of the 48": 0.7}, "false_alarms": {"normal001": "0.1 % of the lung"}}
    packed = pack(BUNDLE, "lung", tmp_path, about, default=True)
    card = (packed.path / "README.md").read_text()
    wanted = [
        "**Every training picture with a lesion is 8-bit; HU with lesion masks exist only by cal",
        "Dice of the 48: 0.7",
        "normal001: 0.1 % of the lung",
        "CC BY-NC-SA 4.0 and the sources' terms: ",
        "non-commercial research, derived works included; masks of Ma et al.: CC BY-NC-SA 4.0",
        "whether they allow machine learning is unresolved; LIDC-IDRI: CC BY 3.0",
        hashlib.sha256((packed.path / "model.safetensors").read_bytes()).hexdigest(),
        "Not for clinical use",
    ]
    assert [card.count(text) for text in wanted] == [1] * len(wanted)
    assert sorted(wanted, key=card.index) == wanted
    before = load_file(BUNDLE / "model.safetensors")
    after = load_run(packed.path).params["head1"]["kernel"]
    np.testing.assert_array_equal(after, before["head1.kernel"].astype("f2").astype("f4"))
    again = pack(BUNDLE, "again", tmp_path, about, default=True)
    files = [folder.path / "model.safetensors" for folder in (packed, again)]
    assert files[0].read_bytes() == files[1].read_bytes()  # by chance alone 1 time in 6
    with pytest.raises(ConfigError, match="score: unknown field"):
        pack(BUNDLE, "typo", tmp_path, {"score": {}}, default=True)


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_no_weights_in_the_distribution_of_the_code(package: Path, kind: str) -> None:
    builders = pytest.importorskip(f"hatchling.builders.{kind}", exc_type=ImportError)
    builder = getattr(builders, f"{kind.capitalize() if kind == 'wheel' else 'Sdist'}Builder")

    def files(root: Path) -> set[str]:
        found = {file.distribution_path for file in builder(str(root)).recurse_included_files()}
        return {str(Path(name)) for name in found}

    code = files(ROOT)
    assert "covid_jax/runs/weights.py" in code
    assert not {name for name in code if "covid_jax_weights" in name or name.startswith("weights")}
    assert "covid_jax_weights/phantom-standin/model.safetensors" in files(ROOT / "weights")


def test_auto_holds_for_installed_weights_too(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covid_jax.inference.slow_bfloat16", lambda: "")
    name = f"weights:{find_weights().name}"
    for precision, used in (("auto", "bfloat16"), (None, "float32")):
        assert load_runs([Path(name)], precision=precision).config.model.precision == used
    with pytest.raises(RunError, match="duplicate run"):
        load_runs([name, weights_folder(name)])
