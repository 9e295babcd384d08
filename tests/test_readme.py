"""What the README shows works as it stands there."""

import re
from pathlib import Path

import pytest

from covid_jax.cli import main as cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize(
    "width", [pytest.param("", marks=pytest.mark.slow), "features=(4, 8, 12, 16)"]
)
def test_the_network_and_the_loss_alone(width: str) -> None:
    """Its first Python block, with 64 x 64 images in place of 256."""
    block = code_blocks("python")[0].replace("256", "64")
    assert "SCSEUNet()" in block
    names: dict = {}
    exec(block.replace("SCSEUNet()", f"SCSEUNet({width})"), names)
    assert names["logits"].shape == (1, 64, 64, 1)
    assert names["loss"].shape == (1,)
    assert 0 < float(names["loss"][0]) <= 1


def test_the_training_loop_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Its second Python block; it prints one Dice."""
    exec(code_blocks("python")[1], {})
    assert 0 <= float(capsys.readouterr().out) <= 1


def test_its_test_command_is_what_ci_runs() -> None:
    section = README.split("Run the tests:")[1]
    command = re.findall(r"```sh\n(.*?)\n```", section)[0]
    assert command.startswith("python -m pytest")
    assert command in (ROOT / ".ci/run").read_text().splitlines()


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)#:]+)\)", README))
def test_its_links_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()


def test_its_flags_are_some_commands_flags(capsys: pytest.CaptureFixture[str]) -> None:
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert {"--data", "--no-lesion-slices-only", "--subset"} <= known
    assert set(re.findall(r"--[a-z][a-z-]+", README)) <= known
