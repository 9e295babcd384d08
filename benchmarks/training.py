"""What a training step costs: this network's against PyTorch's, same loss, batch and precision.

    python benchmarks/training.py --out benchmarks/results/training.json [--cases 256:4]

Forward, backward and Adam on a batch that lies on the device, in turns in one run, each contender
in a process of its own; ours also with augmentation, whose share (and that of gathering and
sending) ``data.py`` tells. An epoch is the paper's 378 training slices. With a GPU: ``--device gpu
--calls 10 --cases 512:1 512:8``. Writes JSON and a Markdown table beside it.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from comparison import OURS, Build, Comparison, flags, installed, table, write
from trainer import Trainer
from workers import Contender, device_peak, process_peak

from covid_jax.config import AUGMENTATIONS, AugmentConfig
from covid_jax.data.batches import Batch
from covid_jax.data.preprocess import pack

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
        Batch(
            images=pack(list(images), size),
            masks=masks,
            real=np.ones(batch, bool),
            position=np.arange(batch, dtype=np.int32),
        )
    )
    return Contender(lambda: trainer.step(fixed), jax.block_until_ready, peak_gib=device_peak)


def twin(compiled: bool, half: bool, size: int, batch: int) -> Contender:
    """PyTorch's step: channels_last, eager or compiled, float32 or bfloat16 by autocast."""
    import torch
    from torch_twin import TorchTwin, focal_tversky_loss

    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, masks = slices_of(size, batch)
    mean, deviation = images.mean((1, 2), keepdims=True), images.std((1, 2), keepdims=True)
    x = torch.from_numpy(((images - mean) / deviation).astype(np.float32)[:, None]).to(device)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy((masks > 0).astype(np.float32)[:, None]).to(device)
    network = TorchTwin().to(device, memory_format=torch.channels_last)
    call = torch.compile(network) if compiled else network
    adam = torch.optim.Adam(network.parameters(), lr=5e-5, eps=1e-7)

    def step() -> Any:
        adam.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            logits = call(x)
        loss = focal_tversky_loss(logits.float(), y).mean()
        loss.backward()
        adam.step()
        return loss.detach()

    def peak_gib() -> float:
        on_gpu = device == "cuda"
        return torch.cuda.max_memory_allocated() / 2**30 if on_gpu else process_peak()

    # Fetching the loss waits for the device.
    return Contender(step, lambda loss: loss.item(), peak_gib=peak_gib)


def contenders(size: int, batch: int) -> dict[str, Build]:
    """All whose libraries are installed."""
    none, standard = AugmentConfig(), AUGMENTATIONS["standard"]
    found: dict[str, Build] = {
        OURS["float32"]: functools.partial(ours, jnp.float32, none, size, batch),
        "covid_jax float32, augmented": functools.partial(ours, jnp.float32, standard, size, batch),
        OURS["bfloat16"]: functools.partial(ours, jnp.bfloat16, none, size, batch),
    }
    if installed("torch"):
        for name, compiled, half in (
            ("torch eager float32", False, False),
            ("torch compile float32", True, False),
            ("torch eager bfloat16", False, True),
            ("torch compile bfloat16", True, True),
        ):
            found[name] = functools.partial(twin, compiled, half, size, batch)
    return found


def epoch(part: dict[str, Any], name: str) -> str:
    """A cell of the table."""
    return f"{part['contenders'][name]['epoch_seconds']:.4g} s"


COLUMNS = {f"{EPOCH} slices": epoch}


def main() -> None:
    """Measures and writes JSON and Markdown."""
    options = flags(__doc__.splitlines()[0], [(256, 4)])
    measured = []
    for size, batch in options.cases:
        comparison = Comparison(contenders(size, batch), batch, options)
        comparison.run()
        for row in comparison.rows.values():
            row["epoch_seconds"] = row["median"] * EPOCH
        measured.append({"size": size, "batch": batch, "contenders": comparison.rows})
        print(table(measured[-1:], COLUMNS), flush=True)
    write(options, "training.py", {"measured": measured}, table(measured, COLUMNS))


if __name__ == "__main__":
    main()
