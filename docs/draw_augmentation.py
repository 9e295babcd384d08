"""Draws docs/images/augmentation.jpg: what augmentation does to slices and their masks.

    python docs/draw_augmentation.py [--data DATASET] [--out FILE]

Without ``--data`` the synthetic phantom is drawn. Each transform is shown alone at both ends of its
range, and random results of all of them together.
"""

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num
from matplotlib.axes import Axes

from covid_jax.data import open_dataset
from covid_jax.files import cache_folder
from covid_jax.phantom.dataset import GENERATOR_VERSION, write_phantom
from covid_jax.reporting.drawing import MISS, class_colour
from covid_jax.reporting.figures import new_figure, save_figure
from covid_jax.transforms.augmentation import (
    CONTROL_POINTS,
    CURVE_SEGMENTS,
    MOVEMENTS,
    AugmentConfig,
    Draws,
    augment,
    read_from,
    transform,
)
from covid_jax.transforms.preprocessing import Normalization, normalize

COLUMNS = 6
SLICES = 3  # shown with random results, a row each
LINES = 8  # gaps of the grid that shows how a slice was moved
WIDTH = 7.2  # inches
ROW = 1.3  # inches
LABEL = 7  # points


STRENGTHS = {  # where a draw and its strength differ in name
    "gamma": "gamma_correction",
    "curve": "intensity_curve",
}


class Change(NamedTuple):
    """One transform alone, at an end of its range.

    Attributes:
      label: what it does, in words and numbers.
      transform: the field of Draws that does it.
      draws: of which all others change nothing.
    """

    label: str
    transform: str
    draws: Draws


def augmentation_gallery(
    images: Float[np.ndarray, "n h w 1"],
    masks: Num[np.ndarray, "n h w 1"],
    strengths: AugmentConfig,
    path: Path,
    seed: int = 0,
) -> None:
    """Draws slices beside random results, then each transform alone at the ends of its range.

    Masks are outlined, a colour for each class, so that one sees them move with their image. All
    pictures of a slice share one grey scale, that of the slice as it is.

    Args:
      images: slices in any unit; the first three are shown, the first one with each transform.
      masks: class ids, 0 background.
      strengths: of the random changes.
      path: of the picture; its ending chooses the format.
      seed: of what is drawn at random.
    """
    images, masks = np.asarray(images[:SLICES], np.float32), np.asarray(masks[:SLICES])
    changes = full_range(strengths, seed)
    rows = [len(images), math.ceil(len(changes) / COLUMNS)]
    figure = new_figure(WIDTH, ROW * sum(rows) + 0.5)
    grid = figure.add_gridspec(2, 1, height_ratios=rows)
    titles = (
        f"Slices as they are (left), and random results (seed {seed})",
        "Each transform alone, at the ends of its range; the grid was straight",
    )
    panels = []
    for i, (count, title) in enumerate(zip(rows, titles, strict=True)):
        part = figure.add_subfigure(grid[i])
        part.suptitle(title, fontsize=LABEL + 1)
        panels.append(part.subplots(count, COLUMNS, squeeze=False))
    _random_results(panels[0], images, masks, strengths, seed)
    _each_alone(panels[1].ravel(), images[0], masks[0], strengths, changes)
    save_figure(figure, path)


def full_range(strengths: AugmentConfig, seed: int = 0) -> list[Change]:
    """Every transform that is on, at either end of its range; the control points at random ends."""
    key = jax.random.key(seed)
    nothing = Draws(
        flip=jnp.ones(2),
        rotation=jnp.zeros(()),
        scale=jnp.zeros(()),
        shift=jnp.zeros(2),
        elastic=jnp.zeros((CONTROL_POINTS, CONTROL_POINTS, 2)),
        blur=jnp.array(-1.0),
        gamma=jnp.zeros(()),
        contrast=jnp.zeros(()),
        brightness=jnp.zeros(()),
        noise=jnp.array(-1.0),
        grain=key,
        orientation=jnp.ones(3),
        curve=jnp.zeros(CURVE_SEGMENTS),
    )
    s, signs = strengths, jax.random.rademacher(key, nothing.elastic.shape, jnp.float32)
    bend = jnp.array([1, -1] * (CURVE_SEGMENTS // 2))
    changes: list[tuple[str, str, Any]] = [
        ("transposed", "orientation", [-1, 1, 1]),
        ("quarter turn", "orientation", [-1, -1, 1]),
        ("left-right", "flip", [1, -1]),
        ("up-down", "flip", [-1, 1]),
        (f"rotation -{s.rotation:.3g}°", "rotation", -1),
        (f"rotation +{s.rotation:.3g}°", "rotation", 1),
        (f"scale x {1 - s.scale:.3g}", "scale", -1),
        (f"scale x {1 + s.scale:.3g}", "scale", 1),
        (f"shift -{100 * s.shift:.3g} %", "shift", [-1, -1]),
        (f"shift +{100 * s.shift:.3g} %", "shift", [1, 1]),
        (f"elastic {100 * s.elastic:.3g} %", "elastic", signs),
        ("elastic, opposite", "elastic", -signs),
        (f"blur {s.blur:.3g} px of 512", "blur", 1),
        (f"noise {s.noise:.3g} SD", "noise", 1),
        (f"gamma {math.exp(-s.gamma_correction):.2f}", "gamma", -1),
        (f"gamma {math.exp(s.gamma_correction):.2f}", "gamma", 1),
        (f"curve {s.intensity_curve:.3g}", "curve", bend),
        ("curve, opposite", "curve", -bend),
        (f"contrast x {1 - s.contrast:.3g}", "contrast", -1),
        (f"contrast x {1 + s.contrast:.3g}", "contrast", 1),
        (f"brightness -{s.brightness:.3g} SD", "brightness", -1),
        (f"brightness +{s.brightness:.3g} SD", "brightness", 1),
    ]
    return [
        Change(label, name, nothing._replace(**{name: jnp.asarray(end, jnp.float32)}))
        for label, name, end in changes
        if getattr(strengths, STRENGTHS.get(name, name)) not in (0, "none")
    ]


def _random_results(panels, images, masks, strengths, seed):
    results = COLUMNS - 1
    keys = jax.random.split(jax.random.key(seed), len(images) * results)
    repeated = [np.repeat(array, results, axis=0) for array in (images, masks)]
    changed = jax.jit(augment, static_argnums=3)(keys, repeated[0], repeated[1], strengths)
    shape = (len(images), results, *images.shape[1:])
    moved_images, moved_masks = (np.asarray(array).reshape(shape) for array in changed)
    for row, image, mask, *moved in zip(
        panels, images, masks, moved_images, moved_masks, strict=True
    ):
        _show(row[0], image, mask, image)
        for axis, moved_image, moved_mask in zip(row[1:], *moved, strict=True):
            _show(axis, moved_image, moved_mask, image)


def _each_alone(panels, image, mask, strengths, changes):
    @jax.jit
    def apply(draws):
        moved = transform(draws, jnp.asarray(image), jnp.asarray(mask), strengths)
        return *moved, read_from(draws, image.shape[0], image.shape[1], strengths)

    for axis, change in zip(panels, changes, strict=False):
        moved_image, moved_mask, read = apply(change.draws)
        _show(axis, np.asarray(moved_image), np.asarray(moved_mask), image)
        axis.set_title(change.label, fontsize=LABEL, pad=2)
        if change.transform in MOVEMENTS:
            _draw_grid(axis, read)
    for axis in panels[len(changes) :]:
        axis.set_axis_off()


def _show(
    axis: Axes,
    image: Float[np.ndarray, "h w 1"],
    mask: Num[np.ndarray, "h w 1"],
    reference: Float[np.ndarray, "h w 1"],
) -> None:
    """The image in the reference's grey scale, its mask outlined."""
    low, high = np.percentile(reference, (0.5, 99.5))
    axis.imshow(image[..., 0], cmap="gray", vmin=low, vmax=max(high, low + 1e-6))
    # One pixel of background all round closes the outlines that reach the slice's edge.
    ids = np.pad(mask[..., 0], 1)
    rows, columns = (np.arange(side) - 1 for side in ids.shape)
    for number in np.unique(ids[ids > 0]):
        colours = [class_colour(int(number))]
        axis.contour(columns, rows, ids == number, levels=[0.5], colors=colours, linewidths=0.7)
    height, width = image.shape[:2]
    axis.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axis.spines[:].set_visible(False)


def _draw_grid(axis: Axes, read: tuple[Any, Any]) -> None:
    """Lines that were straight, and the slice's edge, before the slice was moved."""
    for coordinates, side in zip(read, read[0].shape, strict=True):
        lines = np.linspace(0, side - 1, LINES + 1)
        axis.contour(np.asarray(coordinates), levels=lines, colors=[MISS], linewidths=0.4)


def main() -> None:
    """Draws three slices spread over the dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    image = Path(__file__).parent / "images/augmentation.jpg"
    phantom = cache_folder() / f"phantom-{GENERATOR_VERSION}"
    parser.add_argument("--data", type=Path, default=phantom)
    parser.add_argument("--out", type=Path, default=image)
    options = parser.parse_args()
    if options.data == phantom and not phantom.exists():
        write_phantom(phantom)
    dataset = open_dataset((options.data,), 256)
    chosen = np.linspace(0, len(dataset) - 1, SLICES).round().astype(int)
    packed = dataset.network.images.take(chosen)
    images = np.asarray(normalize(packed, Normalization()))
    masks = dataset.network.masks[chosen][..., None]
    augmentation_gallery(images, masks, AugmentConfig.named("standard"), options.out)


if __name__ == "__main__":
    main()
