"""MONAI's plain U-Net in place of ours: the same slices, split, augmentation, loss and schedule.

    python -m benchmarks.experiments.plain_unet runs/NAME --out plain.json

Repeats a run whose schedule is cosine with MONAI's BasicUNet (instance norm, LeakyReLU, two
convolutions a level, no attention, no residual block, no deep supervision) of the same number of
levels, and scores its test slices (all of ``--data`` with ``--data``) as ``eval`` does. Batches,
augmentation, loss and moving average are covid_jax's own; PyTorch computes the network and Adam.
The scores of other runs stay in the file.
"""

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from monai.networks.nets.basic_unet import BasicUNet

from covid_jax.data import SliceDataset, open_dataset
from covid_jax.data.batches import batches
from covid_jax.evaluation.slice_scores import score_slice
from covid_jax.evaluation.summary import summarize_slices
from covid_jax.inference import Run, load_run
from covid_jax.runs.config import TrainConfig
from covid_jax.runs.provenance import provenance
from covid_jax.training.compiled_run import make_loss
from covid_jax.training.epochs import balance_groups, draw_epoch
from covid_jax.training.optimizer import learning_rate_schedule
from covid_jax.transforms.augmentation import augment
from covid_jax.transforms.preprocessing import Normalization, normalize

COMMAND = ("python", "-m", "benchmarks.experiments.plain_unet")


def plain_unet(config: TrainConfig) -> BasicUNet:
    """BasicUNet with the run's widths; its sixth width is that of the last decoder level."""
    widths = config.model.features
    if len(widths) != 5:
        raise SystemExit(f"{len(widths)} levels; BasicUNet has five")
    slope = {"negative_slope": config.model.negative_slope}
    features = (*widths, widths[0])
    return BasicUNet(
        2, 1, 1, features, act=("LeakyReLU", slope), norm=("instance", {"affine": True})
    )


def draw(dataset: SliceDataset, train: np.ndarray, config: TrainConfig, epoch: int) -> np.ndarray:
    """The slices of one epoch, as the run drew them."""
    groups = balance_groups([dataset.slices[i] for i in train], config.balance)
    return draw_epoch(
        train, seed=config.seed, epoch=epoch, count=config.epoch_slices, groups=groups
    )


def train(model: BasicUNet, run: Run, dataset: SliceDataset) -> torch.nn.Module:
    """Trains for all epochs of the run's settings; the moving average of the weights."""
    config, optimizer = run.config, run.config.optimizer
    slices = np.asarray(run.split.indices(dataset, "train"))
    steps = -(-(config.epoch_slices or len(slices)) // config.batch_size)
    schedule = learning_rate_schedule(
        optimizer.learning_rate,
        optimizer.schedule,
        steps=config.epochs * steps,
        warmup_steps=optimizer.warmup_epochs * steps,
    )
    adam = torch.optim.Adam(model.parameters(), lr=optimizer.learning_rate, eps=1e-7)
    decay = optimizer.ema or 0.0
    average = torch.optim.swa_utils.AveragedModel(
        model, avg_fn=lambda mean, new, taken: mean + (1 - _decay(decay, taken)) * (new - mean)
    )
    gradient = jax.jit(jax.value_and_grad(_mean_loss(config), argnums=0))
    prepare = jax.jit(functools.partial(_prepare, config=config, normalization=run.normalization))
    key = jax.random.split(jax.random.key(config.seed))[1]
    step = 0
    for epoch in range(1, config.epochs + 1):
        losses, order = [], draw(dataset, slices, config, epoch)
        for batch in batches(dataset, order, config.batch_size):
            images, labels = prepare(batch, jax.random.fold_in(key, epoch))
            logits = model(torch.from_numpy(np.array(images)).permute(0, 3, 1, 2))
            seen = jnp.asarray(logits.detach().permute(0, 2, 3, 1).numpy())
            loss, slope = gradient(seen, labels, batch["where"])
            adam.zero_grad()
            logits.backward(torch.from_numpy(np.array(slope)).permute(0, 3, 1, 2))
            adam.param_groups[0]["lr"] = float(schedule(step))
            adam.step()
            average.update_parameters(model)
            losses.append(float(loss))
            step += 1
        print(f"epoch {epoch:3}  loss {np.mean(losses):.4f}", flush=True)
    return average.module


def _decay(decay: float, taken: Any) -> float:
    return min(decay, (1 + float(taken)) / (10 + float(taken)))


def _mean_loss(config: TrainConfig) -> Callable[..., jax.Array]:
    loss = make_loss(config.loss)

    def mean(logits, labels, where):
        values = loss(logits, labels, where=where[:, None, None, None])
        return jnp.mean(values, where=where) if values.ndim else values

    return mean


def _prepare(batch, key, *, config, normalization: Normalization):
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(batch["position"])
    images = normalize(batch["image"], normalization)
    labels = jnp.asarray(batch["label"])[..., None].astype(jnp.float32)
    return augment(keys, images, labels, config.augmentation)


def score(
    model: torch.nn.Module, run: Run, dataset: SliceDataset, indices: list[int]
) -> dict[str, Any]:
    """The numbers of ``eval`` at threshold 0.5."""
    scores = []
    for position in indices:
        images = normalize(dataset.network.images.take([position]), run.normalization)
        with torch.no_grad():
            logits = model.eval()(torch.from_numpy(np.array(images)).permute(0, 3, 1, 2))
        probabilities = torch.sigmoid(logits)[0].permute(1, 2, 0).numpy()
        mask = dataset.network.masks[position]
        scores.append(score_slice(dataset, dataset.slices[position], probabilities, mask, 0.5, 3.0))
    return {"slices": len(scores), **summarize_slices(scores)}


def opened(run: Run, folders: Any) -> SliceDataset:
    """A dataset in the run's input form."""
    data = run.config.data
    return open_dataset(
        folders,
        data.image_size,
        lesion_slices_only=data.lesion_slices_only,
        crop=data.crop == "lungs",
        grey_scale=data.intensity == "lung",
    )


def main() -> None:
    """Trains, scores, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, nargs="+", help="score all slices of these folders")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    run = load_run(options.run)
    torch.manual_seed(run.config.seed)
    model, dataset = plain_unet(run.config), opened(run, run.config.data.data)
    start = time.perf_counter()
    model = train(model, run, dataset)
    seconds = time.perf_counter() - start
    other = opened(run, options.data) if options.data else dataset
    chosen = list(range(len(other))) if options.data else list(run.split.indices(dataset, "test"))
    record = {
        "network": "MONAI BasicUNet",
        "run": options.run.name,
        "parameters": {
            "plain": sum(parameter.numel() for parameter in model.parameters()),
            "ours": sum(leaf.size for leaf in jax.tree.leaves(run.params)),
        },
        "seconds": round(seconds, 1),
        "data": [Path(folder).name for folder in options.data or run.config.data.data],
        **score(model, run, other, chosen),
        **provenance([*COMMAND, *sys.argv[1:]]),
    }
    before = json.loads(options.out.read_text())["runs"] if options.out.exists() else []
    runs = [run for run in before if run["run"] != record["run"]] + [record]
    options.out.write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    print({name: value["mean"] for name, value in record["own_grid"].items()})


if __name__ == "__main__":
    main()
