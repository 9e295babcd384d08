"""Maps of the spatial gates of the network's scSE blocks, and their means over lesions.

    python -m benchmarks.experiments.attention runs/NAME --out gates.json --picture gates.png

Draws the gates over the best and the worst slice of a subset of the run's split (by Dice), and
writes the mean of each gate over the lesion and over the background of the subset's first 32
slices, at the network's size.
"""

import argparse
import dataclasses
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from matplotlib.figure import Figure
from rich.console import Console

from covid_jax.cli.commands import open_data
from covid_jax.data import SliceDataset
from covid_jax.inference import Run, load_run
from covid_jax.metrics import confusion_counts, dice
from covid_jax.metrics.surface_distance import boundary
from covid_jax.models import ResDil, SCSEUNet
from covid_jax.reporting.drawing import Colour, Image, painted, to_grey
from covid_jax.reporting.figures import PAGE, new_figure, save_figure
from covid_jax.runs.provenance import provenance
from covid_jax.transforms.labels import predict_labels
from covid_jax.transforms.preprocessing import normalize, resize

COMMAND = ("python", "-m", "benchmarks.experiments.attention")
COUNTED = 32  # slices over which the means are taken
_COLUMNS = 5
_EDGE: Colour = (0.84, 0.37, 0.00)  # vermillion, visible on every grey and every gate

Gates = dict[str, Float[np.ndarray, "b _ _"]]
Contrast = dict[str, dict[str, float | None]]
Images = Float[Array | np.ndarray, "b s s c"]


def spatial_gates(model: SCSEUNet, params: Any, images: Images) -> Gates:
    """The factor ``sigmoid(Ws z)`` of each scSE's spatial gate (the paper, Eq. 6), in [0, 1].

    Args:
      model: the network.
      params: its parameters.
      images: network input.

    Returns:
      By block name (``encoder1``), from the encoder's first level to the decoder's last, each at
      the size of its level. Empty for a network without attention.
    """
    gates = {name: np.asarray(gate) for name, gate in _gates(model, params, images).items()}
    encoder = sorted(name for name in gates if name.startswith("encoder"))
    decoder = sorted(gates.keys() - set(encoder), reverse=True)
    return {name: gates[name] for name in encoder + decoder}


def gates_of(run: Run, dataset: SliceDataset, positions: Sequence[int]) -> Gates:
    """The gates of a run for the slices at these positions of the dataset."""
    images = normalize(dataset.network.images.take(list(positions)), run.normalization)
    params = run.members[0].params
    each = [spatial_gates(run.model, params, image[None]) for image in images]
    return {block: np.concatenate([one[block] for one in each]) for block in each[0]}


def gate_contrast(gates: Gates, masks: UInt8[np.ndarray, "b s s"]) -> Contrast:
    """The mean of each gate over the pixels of the lesion and of the background.

    Args:
      gates: of some slices.
      masks: class ids of these slices at the network's size.

    Returns:
      By block, the means ``lesion`` and ``background``; None without such pixels.
    """
    rows = {}
    for name, gate in gates.items():
        repeats = masks.shape[1] // gate.shape[1]
        full = gate.repeat(repeats, 1).repeat(repeats, 2)
        rows[name] = {
            part: float(full[region].mean()) if region.any() else None
            for part, region in (("lesion", masks > 0), ("background", masks == 0))
        }
    return rows


@functools.partial(jax.jit, static_argnums=0)
def _gates(model: SCSEUNet, params: Any, images: Images) -> dict[str, Float[Array, "b _ _"]]:
    captured: Any
    _, captured = model.apply(
        {"params": params},
        images,
        capture_intermediates=lambda module, _: isinstance(module, ResDil),
        mutable="intermediates",
    )
    gates = {}
    for name, outputs in captured.get("intermediates", {}).items():
        block = name.removesuffix("_resdil")
        if scse := params.get(f"{block}_scse"):
            (z,) = outputs["__call__"]  # the input of scSE
            gate = jax.nn.sigmoid(z @ scse["spatial"].astype(z.dtype))
            gates[block] = gate[..., 0].astype(jnp.float32)
    return gates


def attention_figure(
    images: Sequence[Image], masks: UInt8[np.ndarray, "b s s"], gates: Gates, contrast: Contrast
) -> Figure:
    """Draws a row for each slice: the slice with its lesion outlined, then every gate.

    Args:
      images: raw slices at the network's size.
      masks: class ids of these slices.
      gates: of these slices.
      contrast: means of each gate over lesion and background of more slices, for the titles.
    """
    names = list(gates)
    columns = min(_COLUMNS, len(names) + 1)
    rows = -(-(len(names) + 1) // columns)
    side = PAGE / _COLUMNS
    figure = new_figure(side * columns, len(images) * rows * (side + 0.28) + 0.45)
    axes = figure.subplots(len(images) * rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    drawn = None
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        first, *others = axes[rows * number : rows * (number + 1)].flat
        first.imshow(painted(to_grey(image), [(boundary(mask > 0), _EDGE)], 1.0))
        first.set_title("slice, lesion\noutlined", fontsize=6)
        for name, axis in zip(names, others, strict=False):
            gate = resize(gates[name][number], *mask.shape)
            drawn = axis.imshow(gate, cmap="cividis", vmin=0, vmax=1)
            if 0 < np.count_nonzero(mask) < mask.size:  # else older matplotlib warns: no line
                axis.contour(mask > 0, levels=[0.5], colors=[_EDGE], linewidths=0.6)
            means = (contrast[name][part] for part in ("lesion", "background"))
            lesion, rest = ("none" if mean is None else f"{mean:.2f}" for mean in means)
            axis.set_title(f"{name}\nlesion {lesion}, rest {rest}", fontsize=6)
    assert drawn is not None
    bar = figure.colorbar(drawn, ax=axes, location="bottom", fraction=0.03, aspect=40, pad=0.01)
    bar.ax.tick_params(labelsize=6)
    bar.set_label("spatial gate", fontsize=7)
    return figure


def extremes(run: Run, dataset: SliceDataset, positions: Sequence[int]) -> list[int]:
    """The positions of the slices with the best and the worst Dice at the network's size."""
    images, masks = dataset.network
    dices = []
    for position in positions:
        ids = np.asarray(predict_labels(run.predict_network(images.take([position]))[0], 0.5))
        truth = dataset.target_ids(masks[position])
        dices.append(float(dice(confusion_counts(ids > 0, truth > 0))))
    ranked = sorted(zip(dices, positions, strict=True), reverse=True)
    return list(dict.fromkeys((ranked[0][1], ranked[-1][1])))


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, draws, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, nargs="+", help="the dataset's folders, if moved")
    parser.add_argument("--subset", default="test", choices=("test", "val", "train", "all"))
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the means")
    parser.add_argument("--picture", type=Path, required=True, help="PNG or PDF file")
    options = parser.parse_args(argv)
    run = load_run(options.run)
    if run.config.model.attention == "none":
        raise SystemExit(f"{options.run}: a network with no attention")
    data = dataclasses.replace(run.config.data, data=options.data or run.config.data.data)
    dataset = open_data(data, Console())
    positions = run.split.indices(dataset, options.subset)
    images, masks = dataset.network
    counted, shown = positions[:COUNTED], extremes(run, dataset, positions)
    contrast = gate_contrast(
        gates_of(run, dataset, counted), dataset.target_ids(masks[np.asarray(counted)])
    )
    raw, ids = list(images.take(shown).decode()), dataset.target_ids(masks[np.asarray(shown)])
    figure = attention_figure(raw, ids, gates_of(run, dataset, shown), contrast)
    save_figure(figure, options.picture)
    record = {
        "run": options.run.name,
        "epoch": run.epoch,
        "subset": options.subset,
        "slices": len(counted),
        "shown": [dataset.slices[i].id for i in shown],
        "gates": contrast,
        **provenance([*COMMAND, *(sys.argv[1:] if argv is None else argv)]),
    }
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
