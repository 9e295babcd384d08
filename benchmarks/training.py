"""What a training step costs: this network's against PyTorch's, same loss, batch and precision.

    python benchmarks/training.py --out benchmarks/results/training.json [--sizes 256] [--batches 4]

Forward, backward and Adam on a batch that lies on the device, in turns in one run; ours also with
augmentation, whose share (and that of gathering and sending) ``data.py`` tells. An epoch is the
paper's 378 training slices. Writes JSON and a Markdown table beside it.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import in_turns, ratio, settings, spread

from covid_jax.config import AUGMENTATIONS, AugmentConfig, LossConfig, OptimizerConfig
from covid_jax.data.batches import Batch
from covid_jax.data.preprocess import Normalization, pack
from covid_jax.models import SCSEUNet
from covid_jax.provenance import provenance
from covid_jax.training import optimizer
from covid_jax.training.logs import peak_memory
from covid_jax.training.state import init_state
from covid_jax.training.steps import Inputs, make_apply, make_loss, train_step

EPOCH = 378  # training slices of the paper's 473


def jax_contenders(images: np.ndarray, masks: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Our step, its state donated from call to call."""
    size, batch = images.shape[1], len(images)
    fixed = Batch(
        images=pack(list(images), size),
        masks=masks,
        real=np.ones(batch, bool),
        position=np.arange(batch, dtype=np.int32),
    )
    fixed = jax.device_put(fixed)
    chain = optimizer.optimizer(OptimizerConfig(), steps=1)
    plateau = optimizer.plateau(OptimizerConfig())
    found = {}
    for name, dtype, strengths in (
        ("covid_jax float32", jnp.float32, AugmentConfig()),
        ("covid_jax float32, augmented", jnp.float32, AUGMENTATIONS["standard"]),
        ("covid_jax bfloat16", jnp.bfloat16, AugmentConfig()),
    ):
        model = SCSEUNet(dtype=dtype)

        def begin(key: jax.Array, model: SCSEUNet = model) -> Any:
            return init_state(model, chain, plateau, key, size, averaged=False)

        def step(
            state: Any,
            batch: Batch,
            key: jax.Array,
            model: SCSEUNet = model,
            strengths: AugmentConfig = strengths,
        ) -> Any:
            return train_step(
                state,
                batch,
                key,
                apply=make_apply(model),
                loss=make_loss(LossConfig()),
                optimizer=chain,
                inputs=Inputs(Normalization(), 1),
                strengths=strengths,
            )

        holder = [jax.jit(begin)(jax.random.key(0))]
        compiled = jax.jit(step, donate_argnums=0)

        def call(holder: list[Any] = holder, compiled: Any = compiled) -> Any:
            holder[0], total = compiled(holder[0], fixed, jax.random.key(1))
            return total

        found[name] = call
    return found


def torch_contenders(images: np.ndarray, masks: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The twin's step: channels_last, eager and compiled, bfloat16 by autocast."""
    import torch
    from torch_twin import TorchTwin, focal_tversky_loss

    device = "cuda" if torch.cuda.is_available() else "cpu"
    mean, deviation = images.mean((1, 2), keepdims=True), images.std((1, 2), keepdims=True)
    x = torch.from_numpy(((images - mean) / deviation).astype(np.float32)[:, None]).to(device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy((masks > 0).astype(np.float32)[:, None]).to(device)

    def call(compiled: bool, half: bool) -> Callable[[], Any]:
        twin = TorchTwin().to(device, memory_format=torch.channels_last)
        network = torch.compile(twin) if compiled else twin
        adam = torch.optim.Adam(twin.parameters(), lr=5e-5, eps=1e-7)

        def run() -> float:
            adam.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=half):
                logits = network(x)
            loss = focal_tversky_loss(logits.float(), y).mean()
            loss.backward()
            adam.step()
            return loss.item()  # waits for the device

        return run

    return {
        "torch eager float32": call(False, False),
        "torch compile float32": call(True, False),
        "torch eager bfloat16": call(False, True),
        "torch compile bfloat16": call(True, True),
    }


def measure(size: int, batch: int, turns: int, only: list[str]) -> dict[str, Any]:
    """One size and batch: every contender's seconds a slice and an epoch."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, size, size)).astype(np.float32)
    masks = (rng.random((batch, size, size)) < 0.1).astype(np.uint8)
    contenders = jax_contenders(images, masks)
    if importlib.util.find_spec("torch"):
        contenders |= torch_contenders(images, masks)
    contenders = {n: c for n, c in contenders.items() if not only or any(w in n for w in only)}
    seconds = in_turns(contenders, turns)
    rows = {}
    for name, samples in seconds.items():
        rows[name] = spread([s / batch for s in samples])
        rows[name]["epoch_seconds"] = rows[name]["median"] * EPOCH
        kind = "bfloat16" if "bfloat16" in name else "float32"
        if (ours := f"covid_jax {kind}") in seconds:
            rows[name]["covid_jax over it"] = ratio(seconds[ours], samples)
    return {"size": size, "batch": batch, "contenders": rows, "peak_memory_gib": peak_memory()}


def markdown(record: dict[str, Any]) -> str:
    """The table for a reader."""
    lines = [
        "| size | batch | contender | s a slice (median, 5-95 %) | covid_jax of its precision is | "
        "378 slices |",
        "|---|---|---|---|---|---|",
    ]
    for part in record["measured"]:
        for name, row in part["contenders"].items():
            over = row.get("covid_jax over it")
            lines.append(
                f"| {part['size']} | {part['batch']} | {name} | {row['median']:.3f} "
                f"({row['p5']:.3f} to {row['p95']:.3f}) | "
                f"{'' if over is None else f'{over:.2f} x'} | {row['epoch_seconds']:.0f} s |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures and writes JSON and Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256])
    parser.add_argument("--batches", type=int, nargs="+", default=[4])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "gpu"], help="JAX's first if not given")
    parser.add_argument("--keep-freed-memory", action="store_true", help="as train.py does")
    parser.add_argument("--only", nargs="*", default=[], help="parts of contenders' names")
    arguments = parser.parse_args()
    setting = settings(arguments.device, arguments.keep_freed_memory)
    measured = [
        measure(size, batch, arguments.turns, arguments.only)
        for size in arguments.sizes
        for batch in arguments.batches
    ]
    record = {
        "measured": measured,
        "settings": setting,
        **provenance(["python", "benchmarks/training.py", *sys.argv[1:]]),
    }
    arguments.out.write_text(json.dumps(record, indent=1))
    arguments.out.with_suffix(".md").write_text(markdown(record))
    print(markdown(record))


if __name__ == "__main__":
    main()
