"""Fine-tuning: initial weights from a trained run, and frozen parameters.

Parameters are named as in ``covid_jax.runs.digest.named_leaves``; settings give the first part of
these names, such as ``encoder`` or ``head1``.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from covid_jax.data import SliceDataset
from covid_jax.errors import ConfigError, RunError, plural, shorten
from covid_jax.inference import Run, load_run, param_shapes
from covid_jax.runs.config import InitConfig, TrainConfig
from covid_jax.runs.digest import digest, named_leaves
from covid_jax.runs.record import Origin, has_checkpoint, read_record
from covid_jax.runs.weights import weights_folder
from covid_jax.training.train_state import TrainState
from covid_jax.training.train_step import TrainStep


class InitialWeights(NamedTuple):
    """The initial weights of a fine-tuned run.

    Attributes:
      leaves: the parameters taken from the other run, by name; the rest are drawn at random.
      origin: describes that run, for config.json.
    """

    leaves: dict[str, Any]
    origin: Origin

    def put_into(self, state: TrainState) -> TrainState:
        """The initial state with these parameters, also in its moving average."""

        def put(name, leaf):
            taken = self.leaves.get(name)
            return leaf if taken is None else jax.device_put(np.asarray(taken), leaf.sharding)

        params = _map_named(put, state.params)
        average = None if state.ema_params is None else jax.tree.map(jnp.copy, params)
        return state.replace(params=params, ema_params=average)


def read_initial_weights(
    config: TrainConfig, out: Path, model: nn.Module, dataset: SliceDataset
) -> InitialWeights | None:
    """Reads the weights of ``--init-from``, and checks the names of parameters in the settings.

    Args:
      config: of the new run.
      out: its folder; if it has a checkpoint, no initial weights are needed.
      model: the new network: images (B, S, S, 1) to logits.
      dataset: of the new run.

    Returns:
      None without ``--init-from``, and for a run that is resumed from a checkpoint.

    Raises:
      ConfigError: if a name in the settings is not the first part of any parameter's name.
      RunError: if the other run cannot be read, or has another network: a parameter is missing,
        unexpected or of another shape. Parameters selected by ``--init-skip``, and heads with
        another number of classes, are exempt.
    """
    settings = config.init
    wanted = named_leaves(param_shapes(model, config.data.image_size))
    for field in ("freeze", "init_skip"):
        for start in getattr(settings, field):
            if not any(name.startswith(start) for name in wanted):
                parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in wanted))
                raise ConfigError(f"{field} {start}: expected the beginning of {parts}", field)
    if settings.init_from is None or (config.resume and has_checkpoint(out)):
        return None
    folder = weights_folder(settings.init_from)
    run = load_run(folder, model=model if "model" in read_record(folder).custom else None)
    stored = named_leaves(run.params)
    drawn = _drawn(stored, wanted, settings)
    data = run.record.data
    notes = tuple(_notes(run, config, drawn, dataset.fingerprint()))
    origin = Origin(digest(stored), run.epoch, data.layout, data.fingerprint, drawn, notes)
    return InitialWeights({name: stored[name] for name in wanted if name not in drawn}, origin)


def _drawn(stored: dict[str, Any], wanted: dict[str, Any], settings: InitConfig) -> tuple[str, ...]:
    """Names of the parameters to draw at random; refuses another network."""
    drawn = []
    for name in {**wanted, **stored}:
        old, new = (tree[name].shape if name in tree else None for tree in (stored, wanted))
        classes_differ = name.startswith("head") and old and new and old[:-1] == new[:-1]
        if any(map(name.startswith, settings.init_skip)) or (old != new and classes_differ):
            drawn += [] if new is None else [name]
        elif old != new:
            shapes = f"{name} is {old or 'missing'} there, {new or 'missing'} here"
            advice = "give the same --features and --attention, or name it in --init-skip"
            raise RunError(f"{settings.init_from}: another network: {shapes}; {advice}")
    return tuple(drawn)


def _notes(run: Run, config: TrainConfig, drawn: tuple[str, ...], data: str) -> Iterator[str]:
    origin = config.init.init_from
    for name in ("intensity", "window", "crop", "image_size", "classes"):  # should not change
        before, now = getattr(run.config.data, name), getattr(config.data, name)
        if before != now:
            yield f"{origin} was trained with {name} {before}; this run has {now}"
    if drawn:
        yield f"{plural(len(drawn), 'parameter')} drawn at random: {shorten(drawn, 6)}"
    if run.record.data.fingerprint == data:
        yield f"{origin} was trained on the same data: its training slices may be tested here"


def freeze(
    names: tuple[str, ...], tx: optax.GradientTransformation, apply_fn: Callable, step: TrainStep
) -> tuple[optax.GradientTransformation, Callable, TrainStep]:
    """Freezes parameters: training does not change them.

    No gradient is computed for them, and the optimizer keeps no moments of them.

    Args:
      names: first parts of the names of frozen parameters.
      tx: optimizer of the others.
      apply_fn: of ``{"params": params}`` and images, gives logits.
      step: as ``make_train_step`` gives it.

    Returns:
      The three, for the frozen network.
    """

    def choose(frozen, trained):
        return _map_named(lambda name, a, b: a if name.startswith(names) else b, frozen, trained)

    def labels(params):
        return _map_named(lambda n, _: "frozen" if n.startswith(names) else "trained", params)

    def apply_frozen(variables, images):
        params = variables["params"]
        return apply_fn({"params": choose(jax.lax.stop_gradient(params), params)}, images)

    def frozen_step(state, batch, key):
        after, metrics = step(state, batch, key)
        # Adding an update of zero turns -0 into 0, and averaging equal values can round them.
        average = after.ema_params and choose(state.ema_params, after.ema_params)
        return after.replace(params=choose(state.params, after.params), ema_params=average), metrics

    partition = optax.partition({"frozen": optax.set_to_zero(), "trained": tx}, labels)
    return partition, apply_frozen, frozen_step


def _map_named(function: Callable, *trees: Any) -> Any:
    """Applies a function to each leaf's name and its values in each tree."""

    def named(keys, *leaves):
        return function(jax.tree_util.keystr(keys, simple=True, separator="."), *leaves)

    return jax.tree_util.tree_map_with_path(named, *trees)
