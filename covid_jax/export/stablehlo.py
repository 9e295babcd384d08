"""A run as a StableHLO program: jax alone loads and runs it, on CPU or an NVIDIA GPU."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax.export
import jax.numpy as jnp
from jaxtyping import Array, Float

from covid_jax.errors import need
from covid_jax.export.metadata import channel_names, constants
from covid_jax.files import replacing, write_json
from covid_jax.inference import Run, forward
from covid_jax.transforms.preprocessing import CODES, QuantizedSlices


def write_stablehlo(run: Run, out: Path) -> None:
    """Writes the program, weights inside, and its constants as JSON next to it.

    ``jax.export.deserialize(data).call(images)`` takes (B, S, S, 1) float32, raw intensities
    resized to the network's size S, for any B, and gives (B, S, S, C) float32 probabilities: a
    sigmoid for one class, else a softmax with the background first. Normalization is inside, and
    the precision is the run's. Not for long-term storage: JAX guarantees to read it only with
    releases up to six months newer. Use a bundle for that.

    Args:
      run: the trained run.
      out: file to write; the constants' has ``.json`` after its name.

    Raises:
      ConfigError: if flatbuffers is not installed.
    """
    need("flatbuffers", "--format stablehlo", "export")
    exported = _export(run)
    *image, channels = ["batch", *[run.config.data.image_size] * 2, len(channel_names(run))]
    notes = constants(run) | {
        "input_shape": [*image, 1],
        "output_shape": [*image, channels],
        "precision": run.config.model.precision,
        "platforms": list(exported.platforms),
        "jax": jax.__version__,
    }
    with replacing(out) as partial:
        partial.write_bytes(exported.serialize())
        write_json(notes_path(out), notes)


def notes_path(out: Path) -> Path:
    """Path of the JSON file with the constants of a program."""
    return out.with_name(f"{out.name}.json")


def _export(run: Run) -> jax.export.Exported:
    size = run.config.data.image_size

    @jax.jit
    def probabilities(images: Float[Array, "b s s 1"]) -> Float[Array, "b s s c"]:
        return forward(run.model, run.normalization, run.params, _quantized(images))

    shape = jax.export.symbolic_shape(f"batch, {size}, {size}, 1")
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    with _without_source_paths():
        return jax.export.export(probabilities, platforms=("cpu", "cuda"))(images)


def _quantized(images: Float[Array, "b s s 1"]) -> QuantizedSlices:
    """Intensities scaled to the range of codes, because squares of large values overflow."""
    images = images[..., 0]
    low, high = (function(images, axis=(1, 2)) for function in (jnp.min, jnp.max))
    step = high / CODES - low / CODES  # the difference itself may overflow
    divisor = jnp.where(step > 0, step, 1)[:, None, None]
    codes = (images / 2 - low[:, None, None] / 2) / divisor * 2
    return QuantizedSlices(codes, low, step)  # pyright: ignore[reportArgumentType]


@contextlib.contextmanager
def _without_source_paths() -> Iterator[None]:
    """Programs traced in the block do not contain source file paths."""
    with contextlib.ExitStack() as stack:
        for name, value in (
            ("jax_hlo_source_file_canonicalization_regex", ".*"),
            ("jax_include_full_tracebacks_in_locations", False),
        ):
            stack.callback(jax.config.update, name, getattr(jax.config, name))
            jax.config.update(name, value)
        yield
