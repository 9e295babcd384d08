"""The spatial gates of the network's scSE blocks, and their means over lesions."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from covid_jax.data import SliceDataset
from covid_jax.inference import Run
from covid_jax.models import ResDil, SCSEUNet
from covid_jax.transforms.preprocessing import normalize

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
