"""Maps of the spatial gates of the network's scSE blocks."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from covid_jax.evaluation.attention import Contrast, Gates
from covid_jax.metrics.surface_distance import boundary
from covid_jax.reporting.drawing import PAGE, Colour, Image, new_figure, painted, to_grey
from covid_jax.transforms.preprocessing import resize

_COLUMNS = 5
_EDGE: Colour = (0.84, 0.37, 0.00)  # vermillion, visible on every grey and every gate


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
