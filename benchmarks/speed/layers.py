"""What Winograd's algorithm saves: a 3x3 convolution of each level, and the network, both ways.

    python -m benchmarks.speed.layers --out benchmarks/results/layers.json [--size 256 --batch 4]

Forward, and gradients (of a layer without the forward pass, of the network with it and the loss);
both ways in turns in one run, results compared, memory as the compiler plans it. Shows from how
many channels on ``covid_jax/models/cpu_conv.py`` pays. Writes JSON and a Markdown table beside it.
"""

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from benchmarks.experiments import markdown_table
from benchmarks.speed.roofline import FEATURES
from benchmarks.speed.timing import in_turns, settings, spread
from covid_jax.losses import focal_tversky_loss
from covid_jax.models import SCSEUNet
from covid_jax.models import cpu_conv as winograd
from covid_jax.models.cpu_conv import conv3x3
from covid_jax.runs.provenance import provenance

DILATION = 2  # of most of the network's such layers it is 2 or 4; the products are the same
Convolution = Callable[[jax.Array, jax.Array], jax.Array]
Call = Callable[[], Any]


def by_definition(x: jax.Array, kernel: jax.Array, *, dilation: int = 1) -> jax.Array:
    """XLA's convolution, with ``conv3x3``'s arguments."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


WAYS: dict[str, Convolution] = {
    "definition": functools.partial(by_definition, dilation=DILATION),
    "winograd": functools.partial(conv3x3, dilation=DILATION),
}
# Channels from which on the network's layers take Winograd's algorithm.
FEWEST = {"definition": 2**30, "winograd": winograd.FEWEST_CHANNELS}
PARTS = ("forward", "gradients")


def level(size: int, batch: int, channels: int, turns: int) -> dict[str, Any]:
    """Both ways on (batch, size, size, channels): a row of the table."""
    rng = np.random.default_rng(0)
    x, gradient = (
        jnp.asarray(rng.normal(size=(batch, size, size, channels)), jnp.float32) for _ in range(2)
    )
    kernel = jnp.asarray(rng.normal(size=(3, 3, channels, channels)), jnp.float32)

    def gradients(of: Convolution, x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> Any:
        return jax.vjp(of, x, kernel)[1](gradient)

    def compiled(function: Callable[..., Any], *arguments: jax.Array) -> Any:
        return {
            name: program(functools.partial(function, way), *arguments)
            for name, way in WAYS.items()
        }

    return {
        "features": f"{batch} x {size}^2 x {channels}",
        "forward": compared(compiled(lambda way, *of: way(*of), x, kernel), turns),
        "gradients": compared(compiled(gradients, x, kernel, gradient), turns),
    }


def network(size: int, batch: int, turns: int, features: tuple[int, ...] = FEATURES) -> Any:
    """The same of the whole network and the focal Tversky loss."""
    model, rng = SCSEUNet(features=features), np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(batch, size, size, 1)), jnp.float32)
    labels = jnp.asarray(rng.random(images.shape) < 0.1, jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])

    def forward(variables: Any, images: jax.Array) -> jax.Array:
        return jnp.asarray(model.apply(variables, images))

    def loss(variables: Any, images: jax.Array) -> jax.Array:
        return focal_tversky_loss(forward(variables, images), labels).mean()

    found: dict[str, Any] = {"features": f"network, {batch} x {size}^2"}
    for part, function in zip(PARTS, (forward, jax.grad(loss)), strict=True):
        programs = {}
        for name, fewest in FEWEST.items():
            with mock.patch.object(winograd, "FEWEST_CHANNELS", fewest):
                # A new object, so that it is traced anew with this limit.
                programs[name] = program(functools.partial(function), variables, images)
        found[part] = compared(programs, turns)
    return found


def program(function: Callable[..., Any], *arguments: Any) -> tuple[Call, dict[str, float]]:
    """A call of the function, compiled for these arguments, and what it costs beside time."""
    started = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - started
    temporaries = compiled.memory_analysis().temp_size_in_bytes
    costs = {"compile_seconds": seconds, "temporaries_gib": temporaries / 2**30}
    return functools.partial(compiled, *arguments), costs


def compared(programs: dict[str, tuple[Call, dict[str, float]]], turns: int) -> dict[str, Any]:
    """Seconds of both in turns, the ratio turn by turn, how far apart their results are."""
    calls = {name: call for name, (call, _) in programs.items()}
    seconds = in_turns(calls, turns)
    ratios = [b / a for a, b in zip(*(seconds[name] for name in WAYS), strict=True)]
    definition, ours = (ravel_pytree(calls[name]())[0] for name in WAYS)
    return {
        **{name: spread(taken) | programs[name][1] for name, taken in seconds.items()},
        "ratio": statistics.median(ratios),
        "relative_difference": float(
            jnp.linalg.norm(ours - definition) / jnp.linalg.norm(definition)
        ),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Milliseconds both ways, Winograd's over the definition's, GiB of temporaries both ways."""
    cells = []
    for found in rows:
        cells.append([found["features"]])
        for part in PARTS:
            ways = [found[part][name] for name in WAYS]
            cells[-1] += [f"{1000 * way['median']:.1f}" for way in ways]
            cells[-1].append(f"{found[part]['ratio']:.2f}")
            cells[-1].append(" / ".join(f"{way['temporaries_gib']:.2f}" for way in ways))
        cells[-1].append(f"{max(found[part]['relative_difference'] for part in PARTS):.0e}")
    columns = [f"{part}, {of}" for part in PARTS for of in (*WAYS, "ratio", "GiB of both")]
    return markdown_table.table(["features", *columns, "relative difference"], cells)


def main() -> None:
    """Measures and writes JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=512, help="side of the slice, a multiple of 64")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    made = settings(device=None, kept=True)
    rows = [
        level(options.size // 2**depth, options.batch, channels, options.turns)
        for depth, channels in enumerate(FEATURES)
    ]
    rows.append(network(options.size, options.batch, options.turns))
    record = {"rows": rows, "dilation": DILATION, "turns": options.turns, "settings": made}
    record |= provenance(["python", "-m", "benchmarks.speed.layers", *sys.argv[1:]])
    options.out.write_text(json.dumps(record, indent=1))
    options.out.with_suffix(".md").write_text(f"{table(rows)}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
