"""Commands that load no network, and what the terminal says of settings."""

import shutil
import subprocess
from pathlib import Path

import jax
import pytest
import yaml

import covid_jax
from covid_jax.cli import flags
from covid_jax.cli import main as cli
from covid_jax.cli.parse import RECIPES, parse, parse_train
from covid_jax.cli.settings_shown import run_folder, without_effect
from covid_jax.errors import ConfigError
from covid_jax.runs.config import TrainConfig
from covid_jax.runs.settings_file import read_settings


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and an empty cache of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def settings_of(words: str) -> TrainConfig:
    return parse_train("train.py", words.split()).settings


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_alone_it_lists_every_command_once(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    cli.main(words)
    printed = capsys.readouterr().out
    assert covid_jax.__version__ in printed
    assert "Not for diagnosis" in printed
    lines = [line.split()[0] for line in printed.splitlines() if line.startswith("  ")]
    assert {name for name in lines if name.isalpha()} == set(cli.COMMANDS)
    assert max(map(len, printed.splitlines())) <= 100


def test_each_entry_of_the_table_leads_somewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert " ".join(cli.GROUPS.values()).split() == list(cli.COMMANDS)
    for name, (_, about) in cli.COMMANDS.items():
        with pytest.raises(SystemExit) as end:
            cli.main([name, "--help"])
        assert end.value.code == 0
        printed = capsys.readouterr().out
        assert about in " ".join(printed.split())
        assert "(default: )" not in printed
        assert "None" not in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--version"])
    ours, theirs, devices = capsys.readouterr().out.splitlines()
    assert ours == f"covid_jax {covid_jax.__version__}"
    assert theirs == f"jax {jax.__version__}"
    assert jax.devices()[0].device_kind in devices


def test_help_has_titles_short_flags_and_the_preset_s_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for words, epochs in (("--preset quick", 36), ("--preset paper", 500), ("--config paper", 60)):
        with pytest.raises(SystemExit):
            cli.train([*words.split(), "--help"])
        printed = capsys.readouterr().out
        for title in ("data", "augmentation", "network", "loss", "optimizer", "multi-host"):
            assert f" {title} options " in printed
        assert "--lr FLOAT, --learning-rate FLOAT" in printed
        assert "-o PATH, --out PATH" in printed
        assert f"(default: {epochs})" in printed


def test_flags_win_over_the_file_and_the_file_over_the_preset(place: Path) -> None:
    Path("mine.yml").write_text("epochs: 7\nbatch_size: 3\noptimizer: {learning_rate: 1e-3}\n")
    found = settings_of("--preset quick --config mine.yml --batch-size 2")
    assert (found.epochs, found.batch_size, found.optimizer.learning_rate) == (7, 2, 1e-3)
    assert found.preset == "quick"
    assert found.data.image_size == TrainConfig.quick().data.image_size
    Path("mine.yml").write_text("epoch: 7")
    with pytest.raises(ConfigError, match=r"mine\.yml: epoch: unknown field \(did you mean epochs"):
        settings_of("--config mine.yml")


def test_a_switch_is_yes_no_or_neither() -> None:
    for words, chosen in (("", None), ("--inside-lungs", True), ("--no-inside-lungs", False)):
        argv = ["a.png", "--run", "x", "--run", "y", "-o", "out", *words.split()]
        given = parse(flags.PredictFlags, "covid-jax predict", argv)
        assert given.settings.inside_lungs is chosen
        assert given.run == (Path("x"), Path("y"))


def test_config_prints_what_train_would_use(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--data ct --lr 2e-4 --features 8 16 --window -500 1000 --augment strong"
    cli.main(["config", *words.split()])
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["optimizer"]["learning_rate"] == 2e-4
    Path("again.yaml").write_text(text)
    assert read_settings(Path("again.yaml")) == settings_of(words)


@pytest.mark.parametrize(
    ("recipe", "flags"),
    [
        (
            "semiseg",
            "--image-size 256 --features 16 32 64 128 256 --batch-size 4 --epochs 100 "
            "--learning-rate 1e-3 --schedule cosine --warmup-epochs 5 --ema 0.99 "
            "--augment standard --stop-patience 100",
        ),
        (
            "paper",
            "--split paper --image-size 192 --features 8 16 32 64 128 --batch-size 8 "
            "--learning-rate 2e-3 --schedule cosine --ema 0.99 --augment standard --epochs 60 "
            "--stop-patience 60",
        ),
        (
            "network",
            "--no-lesion-slices-only --intensity lung --crop lungs --augment strong "
            "--bce-weight 1 --balance source --epoch-slices 240 --split patient --image-size 192 "
            "--features 16 32 64 128 256 --batch-size 8 --learning-rate 2e-3 --schedule cosine "
            "--warmup-epochs 1 --ema 0.99 --epochs 36 --stop-patience 36",
        ),
    ],
)
def test_recipes_are_the_commands_of_results_md(recipe: str, flags: str) -> None:
    results = (Path(covid_jax.__file__).parents[1] / "RESULTS.md").read_text()
    assert flags in results
    assert settings_of(f"--config {recipe}") == settings_of(f"--preset paper {flags}")
    assert len(list(RECIPES.iterdir())) == 3


@pytest.mark.parametrize(
    ("flags", "notes"),
    [
        ("--preset quick", []),
        ("--loss tversky --alpha 0.6", []),
        ("--loss dice --gamma 2", ["--gamma 2.0 has no effect: it is for --loss ftl"]),
        (
            "--loss dice --alpha 1",
            ["--alpha 1.0 has no effect: it is for --loss ftl and --loss tversky"],
        ),
        ("--window 0 80", ["--window 0.0 80.0 has no effect: it is for --intensity window"]),
        ("--window 0 80 --intensity window", []),
        (
            "--schedule cosine --plateau-patience 2",
            ["--plateau-patience 2 has no effect: it is for --schedule plateau"],
        ),
    ],
)
def test_flags_without_effect_are_noted(flags: str, notes: list[str]) -> None:
    assert list(without_effect(settings_of(flags))) == notes


def test_a_second_run_gets_a_folder_of_its_own(place: Path) -> None:
    def folder(words: str, *, study: bool = False) -> str:
        return str(run_folder(settings_of(words), study=study))

    assert folder("--data ct") == folder("--data ct --resume") == str(Path("runs/ct"))
    Path("runs/ct").mkdir(parents=True)
    assert folder("--data ct") == str(Path("runs/ct-2"))
    assert folder("--data ct --resume") == folder("--data ct", study=True) == str(Path("runs/ct"))
    Path("runs/ct-2").mkdir()
    assert folder("--data ct") == str(Path("runs/ct-3"))
    assert folder("--data ct --resume") == str(Path("runs/ct-2"))
    assert folder("--data ct --out runs/ct") == str(Path("runs/ct"))
    assert folder("") == str(Path("runs/phantom"))


def test_the_cache_is_listed_and_deleted(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["cache"])
    assert "0.0 MiB  in " in capsys.readouterr().out
    folder = place.parent / "cache/covid_jax"
    for name, mebibytes in (("slices/a", 3), ("slices/b", 1), ("phantom-1", 2)):
        (folder / name).mkdir(parents=True)
        (folder / name / "array.bin").write_bytes(bytes(mebibytes << 20))
    cli.main(["cache"])
    printed = capsys.readouterr().out
    assert f"4.0 MiB  decoded datasets: {folder}/slices\n" in printed
    assert f"2.0 MiB  the phantom: {folder}/phantom-1\n" in printed
    assert f"6.0 MiB  in {folder}" in printed
    cli.main(["cache", "--clear"])
    assert f"6.0 MiB  deleted from {folder}" in capsys.readouterr().out
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    cli.main(["completion", shell])
    script = capsys.readouterr().out
    for word in ("covid-jax", *cli.COMMANDS, "--lr", "tversky"):
        assert word in script
    if shell != "bash" or shutil.which("bash") is None:
        return
    ask = "COMP_WORDS=(covid-jax train --lo); COMP_CWORD=2; COMPREPLY=(); _tyro_covid_jax"
    done = subprocess.run(
        ["bash", "-c", f'{script}\n{ask}; echo "${{COMPREPLY[@]}}"'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["--loss"]


def test_quiet_prints_nothing_and_verbose_a_traceback(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["phantom", "made", "--size", "32", "-q"])
    assert capsys.readouterr().out == ""
    for flag in ("-v", "-q"):
        with pytest.raises(SystemExit) as end:
            cli.main(["phantom", "made", "--size", "32", flag])
        assert end.value.code == 2
        error = capsys.readouterr().err
        assert ("Traceback" in error) == (flag == "-v")
        assert "error: made" in error
