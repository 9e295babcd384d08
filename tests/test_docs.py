"""What the pages of docs/ show works as it stands there."""

import json
import os
import re
import runpy
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covid_jax.cli import main as cli
from covid_jax.reporting.plots import DRAWN
from covid_jax.training.loggers import read_metrics
from tests.support.synthetic import LPS, SIZE, blob_dataset, tiny_config, write_nifti
from tests.support.tiny_runs import untrained_run

ROOT = Path(__file__).parents[1]
PAGES = {str(page.relative_to(ROOT)): page.read_text() for page in (ROOT / "docs").rglob("*.md")}


def code_blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def commands_shown() -> list[tuple[str, str]]:
    """Each command line of ours in a shell block: the command, and its words."""
    lines = []
    for page in PAGES:
        for block in code_blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                found = re.match(r"(?:srun )?(?:covid-jax (\S+)|python (train)\.py)(.*)", line)
                if found:
                    lines.append((found[1] or found[2], re.sub(r"\s#.*|\$\(.*", "", found[3])))
    return lines


def test_the_commands_and_their_flags_exist(capsys: pytest.CaptureFixture[str]) -> None:
    shown = commands_shown()
    assert {"train", "eval", "predict", "reproduce", "export", "data"} <= dict(shown).keys()
    for command, words in shown:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", capsys.readouterr().out))
        assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", words)) <= known, (command, words)


def test_every_command_is_in_the_reference() -> None:
    page = PAGES["docs/reference/commands.md"]
    assert re.findall(r"^## (\S+)", page, re.MULTILINE) == [
        name for names in cli.GROUPS.values() for name in names.split()
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs/a, runs/b, runs/x and scan.nii.gz are."""
    folder = tmp_path_factory.mktemp("docs")
    untrained_run(tiny_config(), blob_dataset(), folder / "runs/a")
    for name in ("b", "x"):
        shutil.copytree(folder / "runs/a", folder / "runs" / name)
    changed = json.loads((folder / "runs/b/config.json").read_text())
    (folder / "runs/b/config.json").write_text(json.dumps(changed | {"date": "2026"}))
    stack = np.random.default_rng(0).normal(-700, 200, (3, SIZE, SIZE)).astype(np.int16)
    write_nifti(folder / "scan.nii.gz", stack, LPS)
    return folder


@pytest.mark.parametrize(
    ("page", "name", "shape"),
    [
        ("docs/how-to/own-data.md", "masks", (12, 40, 40)),
        ("docs/how-to/ensemble.md", "probabilities", (2, SIZE, SIZE)),
        ("docs/predict.md", "maps", (2, SIZE, SIZE)),
    ],
)
def test_its_python_runs(
    page: str, name: str, shape: tuple[int, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Next to run folders of these names; what it makes has the shape it says."""
    monkeypatch.chdir(folder)
    images = np.random.default_rng(0).normal(-700, 200, (2, SIZE, SIZE))
    names: dict[str, Any] = {"images": images, "slices": images}
    for block in code_blocks(page, "python"):
        exec(block, names)
    assert names[name].shape == shape


def _line(epoch: int, val_loss: float) -> str:
    numbers = dict.fromkeys(DRAWN, 0.5) | {"epoch": epoch, "val_loss": val_loss}
    return json.dumps(numbers) + "\n"


def test_the_logger_sends_each_epoch_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To a stand-in for Weights & Biases; the run goes on while it is followed."""
    run, sent = tmp_path / "runs/mine", []
    shutil.copytree(folder / "runs/a", run)
    log = run / "metrics.jsonl"
    log.write_text(_line(1, 0.5))

    def one_more_epoch(seconds: float) -> None:
        if seconds:
            with log.open("a") as file:
                file.write(_line(2, 0.25))
            (run / "curves.png").touch()
            os.utime(log, (1, 1))

    class Tracked:
        def log(self, row: dict[str, Any], step: int) -> None:
            sent.append((step, row["val_loss"]))

        def finish(self) -> None:
            sent.append("finished")

    def init(**given: Any) -> Tracked:
        assert given["name"] == "mine"
        assert given["config"]["batch_size"] == 3  # of tiny_config
        return Tracked()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    monkeypatch.setattr("time.sleep", one_more_epoch)
    monkeypatch.setattr("sys.argv", ["follow_run.py", str(run)])
    script = tmp_path / "follow_run.py"
    script.write_text(code_blocks("docs/how-to/logger.md", "python")[0])
    runpy.run_path(str(script))
    assert sent == [(1, 0.5), (2, 0.25), "finished"]
    assert len(read_metrics(log)) == 2
