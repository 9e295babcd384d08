"""Where the network looks: the spatial gates of its scSE blocks over a slice."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num, UInt8
from matplotlib.figure import Figure

from covid_jax.models import ResDil, SCSEUNet
from covid_jax.reporting.drawing import Colour, new_figure, outline, painted, to_grey
from covid_jax.reporting.plots import PAGE
from covid_jax.transforms.preprocessing import resize

_COLUMNS = 5
_EDGE: Colour = (0.84, 0.37, 0.00)  # vermillion: seen on every grey and every gate
Gates = dict[str, Float[np.ndarray, "b h w"]]


def spatial_gates(model: SCSEUNet, params: Any, images: Float[Array, "b s s c"]) -> Gates:
    """The factor ``sigmoid(Ws z)`` of each scSE's spatial gate (the paper, Eq. 6), in [0, 1].

    Args:
      model: with attention.
      params: its parameters.
      images: as the network takes them.

    Returns:
      By place (``encoder1``), from the encoder's first level to the decoder's last, each at its
      level's size. Empty for a network without attention.
    """
    levels = range(1, len(model.features) + 1)
    places = [f"encoder{n}" for n in levels] + [f"decoder{n}" for n in reversed(levels)]
    gated = tuple(place for place in places if f"{place}_scse" in params)
    gates = _gates(model, gated, params, images) if gated else []
    return dict(zip(gated, map(np.asarray, gates), strict=True))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gates(
    model: SCSEUNet, places: tuple[str, ...], params: Any, images: Float[Array, "b s s c"]
) -> list[Float[Array, "b h w"]]:
    seen: Any
    _, seen = model.apply(
        {"params": params},
        images,
        capture_intermediates=lambda module, _: isinstance(module, ResDil),
        mutable="intermediates",
    )
    gates = []
    for place in places:
        (z,) = seen["intermediates"][f"{place}_resdil"]["__call__"]  # what the block was given
        spatial = params[f"{place}_scse"]["spatial"].astype(z.dtype)
        gates.append(jax.nn.sigmoid(z @ spatial)[..., 0].astype(jnp.float32))
    return gates


def gate_contrast(gates: Gates, masks: UInt8[np.ndarray, "b s s"]) -> dict[str, dict[str, float]]:
    """What each gate does between lesion and background: its mean over either's pixels.

    Args:
      gates: of some slices.
      masks: of these slices, at the network's size.

    Returns:
      By block ``lesion`` and ``background``; NaN where the slices have none of it.
    """
    rows = {}
    for name, gate in gates.items():
        repeats = masks.shape[1] // gate.shape[1]
        full = gate.repeat(repeats, 1).repeat(repeats, 2)
        rows[name] = {
            part: float(full[region].mean()) if region.any() else float("nan")
            for part, region in (("lesion", masks > 0), ("background", masks == 0))
        }
    return rows


def attention_figure(
    images: Sequence[Num[np.ndarray, "s s"]],
    masks: UInt8[np.ndarray, "b s s"],
    gates: Gates,
    contrast: Mapping[str, Mapping[str, float]],
) -> Figure:
    """A row a slice: the slice with its lesion outlined, then every gate over it.

    Args:
      images: raw slices at the network's size.
      masks: of these.
      gates: of these.
      contrast: over more slices, for the titles.
    """
    names = list(gates)
    columns = min(_COLUMNS, len(names) + 1)
    rows = -(-(len(names) + 1) // columns)
    side = PAGE / _COLUMNS
    figure = new_figure(side * columns, len(images) * rows * (side + 0.28) + 0.45)
    axes = figure.subplots(len(images) * rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    shown = None
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        first, *places = axes[rows * number : rows * (number + 1)].flat
        first.imshow(painted(to_grey(image), [(outline(mask > 0), _EDGE)], 1.0))
        first.set_title("slice, lesion\noutlined", fontsize=6)
        for name, axis in zip(names, places, strict=False):
            gate = resize(gates[name][number], *mask.shape)
            shown = axis.imshow(gate, cmap="cividis", vmin=0, vmax=1)
            if (
                0 < np.count_nonzero(mask) < mask.size
            ):  # else older matplotlib warns that there is no line
                axis.contour(mask > 0, levels=[0.5], colors=[_EDGE], linewidths=0.6)
            lesion, rest = (_mean(contrast[name][part]) for part in ("lesion", "background"))
            axis.set_title(f"{name}\nlesion {lesion}, rest {rest}", fontsize=6)
    assert shown is not None
    bar = figure.colorbar(shown, ax=axes, location="bottom", fraction=0.03, aspect=40, pad=0.01)
    bar.ax.tick_params(labelsize=6)
    bar.set_label("spatial gate", fontsize=7)
    return figure


def _mean(value: float) -> str:
    return "none" if math.isnan(value) else f"{value:.2f}"
