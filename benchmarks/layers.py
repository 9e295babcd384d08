"""What a 3x3 convolution of each level costs: by its definition and by Winograd's algorithm.

    python benchmarks/layers.py --out benchmarks/results/layers.json [--size 256 --batch 4]

Forward, and the gradients of features and kernel (without the forward pass); both ways in turns in
one run, their results compared. Shows from how many channels on ``covid_jax/models/winograd.py``
pays. Writes JSON and a Markdown table beside it.
"""

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import markdown_table
from covid_jax.models.winograd import conv3x3
from covid_jax.provenance import provenance
from limits import FEATURES
from timing import in_turns, settings, spread

DILATION = 2  # of most of the network's such layers it is 2 or 4; the products are the same
Convolution = Callable[[jax.Array, jax.Array], jax.Array]


def by_definition(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's convolution."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        rhs_dilation=(DILATION, DILATION),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


WAYS: dict[str, Convolution] = {
    "definition": by_definition,
    "winograd": functools.partial(conv3x3, dilation=DILATION),
}


def level(size: int, batch: int, channels: int, turns: int) -> dict[str, Any]:
    """Seconds of both ways on (batch, size, size, channels), forward and of the gradients."""
    rng = np.random.default_rng(0)
    x, gradient = (
        jnp.asarray(rng.normal(size=(batch, size, size, channels)), jnp.float32) for _ in range(2)
    )
    kernel = jnp.asarray(rng.normal(size=(3, 3, channels, channels)), jnp.float32)

    def gradients(of: Convolution, x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> Any:
        return jax.vjp(of, x, kernel)[1](gradient)

    found: dict[str, Any] = {"size": size, "batch": batch, "channels": channels}
    parts = {
        "forward": {n: functools.partial(jax.jit(way), x, kernel) for n, way in WAYS.items()},
        "gradients": {
            n: functools.partial(jax.jit(functools.partial(gradients, way)), x, kernel, gradient)
            for n, way in WAYS.items()
        },
    }
    for part, calls in parts.items():
        seconds = in_turns(calls, turns)
        ratios = [b / a for a, b in zip(*(seconds[name] for name in WAYS), strict=True)]
        found[part] = {name: spread(taken) for name, taken in seconds.items()}
        found[part]["ratio"] = statistics.median(ratios)
        found[part]["largest_difference"] = max(
            float(jnp.abs(a - b).max() / jnp.abs(a).max())
            for a, b in zip(*(jax.tree.leaves(call()) for call in calls.values()), strict=True)
        )
    return found


def table(levels: list[dict[str, Any]]) -> str:
    """A row a level; milliseconds of a call, and Winograd's over the definition's."""
    rows = []
    for found in levels:
        cells = [f"{found['batch']} x {found['size']}^2 x {found['channels']}"]
        for part in ("forward", "gradients"):
            cells += [f"{1000 * found[part][name]['median']:.1f}" for name in WAYS]
            cells.append(f"{found[part]['ratio']:.2f}")
        cells.append(f"{max(found[p]['largest_difference'] for p in ('forward', 'gradients')):.0e}")
        rows.append(cells)
    columns = [f"{part}, {name}" for part in ("forward", "gradients") for name in (*WAYS, "ratio")]
    return markdown_table.table(["features", *columns, "largest difference"], rows)


def main() -> None:
    """Measures and writes JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512, help="side of the slice, a multiple of 64")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    made = settings(device=None, kept=True)
    levels = [
        level(options.size // 2**depth, options.batch, channels, options.turns)
        for depth, channels in enumerate(FEATURES)
    ]
    record = {"levels": levels, "dilation": DILATION, "turns": options.turns, "settings": made}
    record |= provenance(["python", "benchmarks/layers.py", *sys.argv[1:]])
    options.out.write_text(json.dumps(record, indent=1))
    options.out.with_suffix(".md").write_text(f"{table(levels)}\n")
    print(table(levels))


if __name__ == "__main__":
    main()
