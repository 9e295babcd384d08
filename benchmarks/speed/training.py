"""What a training step costs: this network's against PyTorch's, same loss, batch and precision.

    python -m benchmarks.speed.training --out benchmarks/results/training.json [--cases 256:4]

Forward, backward and Adam on a batch that lies on the device, from the same weights, in turns in
one run, each contender in a process of its own. Ours also normalises the slices and looks for
steps that are no numbers; a row of ours augments them too (its share, and that of gathering and
sending, ``data.py`` tells). An epoch is the paper's 378 training slices. With a GPU: ``--device gpu
--calls 10 --cases 512:1 512:8``. Writes JSON, a Markdown table and a plot beside it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.speed.comparison import (
    OURS,
    Build,
    Comparison,
    flags,
    plot,
    table,
    torch_ways,
    write,
)
from benchmarks.speed.step_timer import FULL_WIDTH, Trainer, initial_params
from benchmarks.speed.workers import Contender, device_peak, torch_peak
from covid_jax.transforms.augmentation import AugmentConfig
from covid_jax.transforms.preprocessing import pack

EPOCH = 378  # training slices of the paper's 473


def slices_of(size: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise (B, H, W) and masks of a tenth of all pixels."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, size, size)).astype(np.float32)
    return images, (rng.random((batch, size, size)) < 0.1).astype(np.uint8)


def ours(dtype: Any, strengths: AugmentConfig, size: int, batch: int) -> Contender:
    """The step as ``train.py`` runs it."""
    images, masks = slices_of(size, batch)
    trainer = Trainer(dtype=dtype, strengths=strengths)
    fixed = trainer.place(
        {
            "image": pack(list(images), size),
            "label": masks,
            "where": np.ones(batch, bool),
            "position": np.arange(batch, dtype=np.int32),
        }
    )
    return Contender(
        start=lambda: trainer.step(fixed),
        wait=jax.block_until_ready,
        fetch=np.asarray,
        peak_gib=device_peak,
    )


def twin(last: bool, mode: str | None, half: bool, size: int, batch: int) -> Contender:
    """PyTorch's step: channels_last or not, compiled in a mode or eager, bfloat16 or not.

    Network and loss are compiled together; Adam is PyTorch's fused one.
    """
    import torch

    from tests.oracles.torch_twin import TorchTwin, focal_tversky_loss, load_jax_params

    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, masks = slices_of(size, batch)
    mean, deviation = images.mean((1, 2), keepdims=True), images.std((1, 2), keepdims=True)
    x = torch.from_numpy(((images - mean) / deviation).astype(np.float32)[:, None]).to(device)
    layout = torch.channels_last if last else torch.contiguous_format
    torch.backends.cudnn.benchmark = True  # XLA tries algorithms too
    x = x.contiguous(memory_format=layout)
    y = torch.from_numpy((masks > 0).astype(np.float32)[:, None]).to(device)
    network = TorchTwin().to(device, memory_format=layout)
    load_jax_params(network, initial_params(FULL_WIDTH))
    adam = torch.optim.Adam(network.parameters(), lr=5e-5, eps=1e-7, fused=True)

    def forward() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=half):
            logits = network(x)
        return focal_tversky_loss(logits.float(), y).mean()

    call = torch.compile(forward, mode=mode) if mode else forward

    def step() -> Any:
        torch.compiler.cudagraph_mark_step_begin()  # the loss before may be overwritten
        adam.zero_grad(set_to_none=True)
        loss = call()
        loss.backward()
        adam.step()
        return loss.detach()

    # Fetching the loss waits for the device.
    return Contender(step, lambda loss: loss.item(), peak_gib=torch_peak)


def contenders(size: int, batch: int) -> dict[str, Build]:
    """All whose libraries are installed."""
    none, standard = AugmentConfig(), AugmentConfig.named("standard")
    found: dict[str, Build] = {
        OURS["float32"]: functools.partial(ours, jnp.float32, none, size, batch),
        "covid_jax float32, augmented": functools.partial(ours, jnp.float32, standard, size, batch),
        OURS["bfloat16"]: functools.partial(ours, jnp.bfloat16, none, size, batch),
        "covid_jax bfloat16, augmented": functools.partial(
            ours, jnp.bfloat16, standard, size, batch
        ),
    }
    for name, way in torch_ways().items():
        found[name] = functools.partial(twin, *way, size, batch)
    return found


def epoch(part: dict[str, Any], name: str) -> str:
    """A cell of the table."""
    return f"{part['contenders'][name]['epoch_seconds']:.4g} s"


def first_loss(part: dict[str, Any], name: str) -> str:
    """Another: from the same weights and slices it is the same for all."""
    return f"{part['contenders'][name]['first_loss']:.5f}"


COLUMNS = {f"{EPOCH} slices": epoch, "first loss": first_loss}


def main() -> None:
    """Measures and writes JSON, Markdown and plot."""
    options = flags(__doc__.splitlines()[0], [(256, 4)])
    measured = []
    for size, batch in options.cases:
        comparison = Comparison(contenders(size, batch), batch, options)
        comparison.run()
        for name, row in comparison.rows.items():
            row["epoch_seconds"] = row["median"] * EPOCH
            row["first_loss"] = float(comparison.outputs[name])
        measured.append({"size": size, "batch": batch, "contenders": comparison.rows})
        print(table(measured[-1:], COLUMNS), flush=True)
        write(options, "training", {"measured": measured}, table(measured, COLUMNS))
    plot(measured, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
