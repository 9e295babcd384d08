"""Exports a trained network: as a bundle to share, or as a program that runs without covid_jax."""

from pathlib import Path
from typing import Literal, get_args

from covid_jax.errors import ConfigError, RunError
from covid_jax.export.bundle import write_bundle
from covid_jax.export.onnx import write_onnx
from covid_jax.export.stablehlo import notes_path, write_stablehlo
from covid_jax.files import writing_to
from covid_jax.inference import Run

Format = Literal["bundle", "stablehlo", "onnx"]


def export_run(run: Run, format: Format, out: str | Path) -> tuple[Path, ...]:
    """Exports a run's network to a bundle, StableHLO or ONNX.

    Args:
      run: the trained run.
      format: bundle: a folder to share, which ``load_run`` opens (``write_bundle``); stablehlo: a
        program for jax alone, with its constants next to it (``write_stablehlo``); onnx: a file for
        ONNX Runtime, OpenVINO and others (``write_onnx``).
      out: new folder or file; it must not exist.

    Returns:
      Paths of the written files.

    Raises:
      ConfigError: if the format is unknown, or a library of the extra ``export`` is missing.
      RunError: if something is there already, or cannot be written, or the run lacks its split, or
        is an ensemble.
    """
    if len(run.members) > 1:
        raise RunError("an ensemble cannot be exported; export its members one by one")
    if format not in get_args(Format):
        raise ConfigError(f"--format {format}: expected one of {', '.join(get_args(Format))}")
    out = Path(out)
    written = (out, notes_path(out)) if format == "stablehlo" else (out,)
    with writing_to(out, "choose another -o"):
        for path in written:
            if path.exists() or path.is_symlink():
                raise RunError(f"{path}: exists already; choose another -o, or remove it")
        out.parent.mkdir(parents=True, exist_ok=True)
        {"bundle": write_bundle, "stablehlo": write_stablehlo, "onnx": write_onnx}[format](run, out)
    return written
