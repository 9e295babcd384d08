"""The training loop, from a config to a run folder. The one place that jits a step."""

import functools
import json
import math
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float32, UInt8
from rich.console import Console

from covid_jax.checkpoint import Checkpoints
from covid_jax.config import TrainConfig, differences, to_dict, train_config_from_dict
from covid_jax.data import SliceDataset
from covid_jax.data.batches import Batch, batches
from covid_jax.data.splits import Split, Subset, draw_split
from covid_jax.errors import RunError
from covid_jax.files import replace_text
from covid_jax.metrics.overlap import Counts, dice
from covid_jax.models import SCSEUNet
from covid_jax.provenance import provenance
from covid_jax.training import optimizer
from covid_jax.training.logs import Logs
from covid_jax.training.state import TrainState, end_epoch, init_state
from covid_jax.training.steps import eval_step, make_apply, make_loss, train_step


def train(config: TrainConfig, dataset: SliceDataset, out: Path, console: Console) -> None:
    """Trains and leaves a run folder: config, split, metrics, checkpoints, TensorBoard.

    Nothing is written before the data, the split and the folder were found good.

    Args:
      config: all settings; ``config.resume`` goes on with the run in ``out``.
      dataset: opened with the config's data settings.
      out: the run folder.
      console: for the progress.

    Raises:
      ConfigError, RunError: if the data cannot be split so, the folder holds another run, or the
        loss is no longer a number.
    """
    drawn = out / "split.json"
    if config.resume and drawn.exists():
        split = Split.load(drawn)  # never drawn anew: who trained must not test
    else:
        split = draw_split(dataset, config.data.split, config.seed)
    _prepare_folder(out, config, dataset, split)
    for warning in split.warnings:
        console.print(f"[yellow]note:[/yellow] {warning}")
    console.print(
        f"{len(split.train)} training, {len(split.val)} validation, {len(split.test)} test slices; "
        f"{split.statement}"
    )

    init, step, evaluate, plateau = _compile(config)
    init_key, augment_key = jax.random.split(jax.random.key(config.seed))
    images, masks = _arrays(dataset, split, "train")
    val_images, val_masks = _arrays(dataset, split, "val")
    val_order = range(len(val_images))
    val_batches = list(batches(val_images, val_masks, val_order, config.batch_size))
    steps = -(-len(images) // config.batch_size)

    with Checkpoints(out / "checkpoints") as checkpoints:
        state = init(init_key)
        if checkpoints.epoch("latest") is not None:
            state = _restore(checkpoints, state)
        done = int(state.epoch)
        with Logs(out, console, config.epochs * steps, done, done * steps) as logs:
            for epoch in range(done + 1, config.epochs + 1):
                if int(state.stale) >= config.optimizer.stop_patience:
                    console.print(f"no improvement for {int(state.stale)} epochs: stopped early")
                    break
                logs.start_epoch(epoch, config.epochs)
                started = time.perf_counter()
                order = np.random.default_rng([config.seed, epoch]).permutation(len(images))
                key = jax.random.fold_in(augment_key, epoch)
                totals = []
                for batch in batches(images, masks, order, config.batch_size):
                    state, total = step(state, batch, key)
                    totals.append(total)
                    if len(totals) > 1:  # one step behind: the device never waits for the bar
                        totals[-2].block_until_ready()
                    logs.step()
                train_loss = float(np.sum(jax.device_get(totals), dtype=np.float64)) / len(images)
                seconds = time.perf_counter() - started

                val_loss, val_dice = _validate(evaluate, state, val_batches)
                if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
                    raise RunError(
                        f"{out}: the loss is no number in epoch {epoch}; the epochs before it are "
                        "kept. Start again with a lower --learning-rate"
                    )
                learning_rate = config.optimizer.learning_rate * float(state.plateau.scale)
                state = end_epoch(state, plateau, val_loss)
                # The line before the checkpoint: a kill between them leaves a line too many, which
                # resuming drops, and never one too few.
                logs.end_epoch(
                    {
                        "epoch": epoch,
                        "train_loss": train_loss,
                        "val_loss": val_loss,
                        "val_dice": val_dice,
                        "learning_rate": learning_rate,
                        "seconds": round(seconds, 3),
                        "slices_per_second": round(len(images) / seconds, 3),
                    },
                    best=int(state.stale) == 0,
                )
                checkpoints.save(epoch, state.weights(), state.trainer(), to_dict(config), val_loss)


def _compile(config: TrainConfig):
    """The jitted functions of a run (they compile when first called), and the plateau rule."""
    model = SCSEUNet(**config.model.arguments())
    adam, plateau = optimizer.adam(config.optimizer), optimizer.plateau(config.optimizer)
    shared = {"apply": make_apply(model), "loss": make_loss(config.loss)}
    init = functools.partial(init_state, model, adam, plateau, image_size=config.data.image_size)
    step = functools.partial(train_step, **shared, adam=adam, augmented=config.augment != "none")
    evaluate = functools.partial(eval_step, **shared)
    return jax.jit(init), jax.jit(step, donate_argnums=0), jax.jit(evaluate), plateau


def _arrays(
    dataset: SliceDataset, split: Split, subset: Subset
) -> tuple[Float32[np.ndarray, "n s s 1"], UInt8[np.ndarray, "n s s 1"]]:
    """A subset's images and masks at the network's size."""
    part = dataset.select(split.indices(dataset, subset))
    return part.network_images(), part.network_masks()


def _validate(evaluate, state: TrainState, val_batches: list[Batch]) -> tuple[float, float]:
    """Mean over the validation slices of the loss and of Dice (threshold 0.5, network's size)."""
    results = jax.device_get([evaluate(state.params, batch) for batch in val_batches])
    real = np.concatenate([batch.real for batch in val_batches])
    losses = np.concatenate([loss for loss, _ in results])[real]
    counts = Counts(
        *(np.concatenate(part)[real] for part in zip(*(c for _, c in results), strict=True))
    )
    return float(losses.mean(dtype=np.float64)), float(dice(counts).mean())


def _restore(checkpoints: Checkpoints, state: TrainState) -> TrainState:
    restored = checkpoints.restore("latest", weights=state.weights(), trainer=state.trainer())
    return state.replace(**restored["weights"], **restored["trainer"])


def _prepare_folder(out: Path, config: TrainConfig, dataset: SliceDataset, split: Split) -> None:
    """Makes the run folder, or finds in it the run to go on with."""
    record = out / "config.json"
    if record.exists():
        try:
            saved = json.loads(record.read_text())
            before = train_config_from_dict(saved["config"])
            fingerprint = saved["data"]["fingerprint"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{record}: damaged ({error!r}); choose another --out") from error
        changed = differences(before, config, ignore=("out", "resume", "epochs"))
        if changed:
            raise RunError(
                f"{out}: holds a run with another config ({'; '.join(changed)}); choose another "
                "--out, or give the same flags"
            )
        if not config.resume:
            raise RunError(
                f"{out}: holds this very run already; add --resume to go on with it, or choose "
                "another --out"
            )
        if fingerprint != dataset.fingerprint():
            raise RunError(f"{out}: the data has changed since this run was started")
    elif config.resume:
        raise RunError(f"{out}: no run to resume here (no config.json)")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: exists and is no run folder; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: cannot be made ({error.strerror}); choose another --out") from error
    if not config.resume or not (out / "split.json").exists():
        split.save(out / "split.json", dataset)
    data = {
        "layout": dataset.layout,
        "notes": dataset.notes,
        "slices": len(dataset),
        "fingerprint": dataset.fingerprint(),
    }
    text = json.dumps({"config": to_dict(config), "data": data, **provenance(sys.argv)}, indent=1)
    replace_text(record, text)
