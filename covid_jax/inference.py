"""A trained run, ready to predict: raw slices in, lesion probabilities out."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Num

from covid_jax.checkpoint import Checkpoints, Which
from covid_jax.config import TrainConfig, train_config_from_dict
from covid_jax.data.preprocess import resize, to_network
from covid_jax.errors import DataError, RunError
from covid_jax.models import SCSEUNet


class Run:
    """A trained network with the preprocessing it was trained with.

    Attributes:
      folder: the run folder.
      config: how it was trained.
      record: the whole of config.json: versions, data fingerprint, command line.
      epoch: of the weights.
      params: the network's parameters, float32.
    """

    def __init__(
        self, folder: Path, config: TrainConfig, record: dict[str, Any], epoch: int, params: Any
    ) -> None:
        self.folder = folder
        self.config = config
        self.record = record
        self.epoch = epoch
        self.params = params
        self._forward = jax.jit(functools.partial(_forward, _model(config)))

    @overload
    def predict(
        self, images: Num[np.ndarray, "..."], batch_size: int = 4
    ) -> Float32[np.ndarray, "..."]: ...
    @overload
    def predict(
        self, images: list[Num[np.ndarray, "h w"]], batch_size: int = 4
    ) -> list[Float32[np.ndarray, "h w"]]: ...
    def predict(self, images, batch_size=4):
        """Lesion probability of each pixel, on the images' own grids.

        Args:
          images: raw intensities as read from the file: one slice (H, W), a stack (N, H, W), or a
            list of slices of any sizes.
          batch_size: slices computed at once; memory grows with it.

        Returns:
          Probabilities in [0, 1], float32, shaped like ``images``: a list for a list.

        Raises:
          DataError: on an image of another rank, or with NaN or infinite pixels.
        """
        slices = list(images) if isinstance(images, list) or images.ndim == 3 else [images]
        for i, image in enumerate(slices):
            if np.ndim(image) != 2:
                raise DataError(
                    f"image {i}: expected a slice (H, W), found shape {np.shape(image)}"
                )
            if not np.isfinite(image).all():
                raise DataError(f"image {i}: has NaN or infinite pixels")
        maps = self.predict_network(to_network(slices, self.config.data.image_size), batch_size)
        own = [
            np.clip(resize(probability, *image.shape), 0.0, 1.0)
            for probability, image in zip(maps, slices, strict=True)
        ]
        if isinstance(images, list):
            return own
        return np.stack(own) if images.ndim == 3 else own[0]

    def predict_network(
        self, inputs: Float32[np.ndarray, "n s s 1"], batch_size: int = 4
    ) -> Float32[np.ndarray, "n s s"]:
        """Probabilities at the network's size, from images as ``to_network`` gives them."""
        parts = []
        for start in range(0, len(inputs), batch_size):
            part = inputs[start : start + batch_size]
            batch = np.resize(part, (batch_size, *part.shape[1:]))  # one shape, one compilation
            parts.append(np.asarray(self._forward(self.params, batch))[: len(part)])
        return np.concatenate(parts)


def load_run(path: str | Path, which: Which = "best") -> Run:
    """Loads a run folder's weights and config.

    Args:
      path: a folder that ``train.py`` made.
      which: the checkpoint of the lowest validation loss, or the latest.

    Raises:
      RunError: if the folder is no run, or has no whole checkpoint of this network.
    """
    folder = Path(path)
    try:
        record = json.loads((folder / "config.json").read_text())
        config = train_config_from_dict(record["config"])
    except OSError as error:
        raise RunError(f"{folder}: no run here (no config.json)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}/config.json: damaged ({error!r})") from error
    size = config.data.image_size
    image = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    shapes = jax.eval_shape(_model(config).init, jax.random.key(0), image)
    with Checkpoints(folder / "checkpoints", create=False) as checkpoints:
        epoch = checkpoints.epoch(which)
        restored = checkpoints.restore(which, weights={"params": shapes["params"]})
    assert epoch is not None
    return Run(folder, config, record, epoch, restored["weights"]["params"])


def _model(config: TrainConfig) -> SCSEUNet:
    return SCSEUNet(**config.model.arguments())


def _forward(model: SCSEUNet, params: Any, images: Sequence) -> jax.Array:
    logits = model.apply({"params": params}, images)
    assert isinstance(logits, jax.Array)
    return jax.nn.sigmoid(logits[..., 0])
