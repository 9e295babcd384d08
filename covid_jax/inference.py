"""A trained run, ready to predict: raw slices in, lesion probabilities out."""

import functools
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Num

from covid_jax.checkpoint import Checkpoints, Which
from covid_jax.config import TrainConfig
from covid_jax.data.preprocess import Normalization, Packed, normalize, pack, resize
from covid_jax.errors import DataError
from covid_jax.models import SCSEUNet
from covid_jax.runs import read_record


class Run:
    """A trained network with the preprocessing it was trained with.

    Attributes:
      folder: the run folder.
      config: how it was trained.
      record: the whole of config.json: versions, data fingerprint, command line.
      epoch: of the weights.
      params: the network's parameters, float32.
      normalization: of raw intensities.
    """

    def __init__(
        self, folder: Path, config: TrainConfig, record: dict[str, Any], epoch: int, params: Any
    ) -> None:
        self.folder = folder
        self.config = config
        self.record = record
        self.epoch = epoch
        self.params = params
        self.normalization = Normalization(**record["data"]["normalization"])
        forward = functools.partial(_forward, _model(config), self.normalization)
        self._forward = jax.jit(forward)

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
          Probabilities in [0, 1], float32, shaped like ``images``: a list for a list. A run trained
          with several ``--classes`` gives one more axis, last, a channel for each in their order.

        Raises:
          DataError: without any image, or on one of another rank, without pixels, or with pixels
            that are NaN or infinite in float32.
        """
        given = images if isinstance(images, list) or images.ndim == 3 else [images]
        slices = [np.asarray(image) for image in given]
        if not slices:
            raise DataError("no image given")
        for i, image in enumerate(slices):
            if image.ndim != 2 or not image.size:
                raise DataError(f"image {i}: expected a slice (H, W), found shape {image.shape}")
            with np.errstate(over="ignore"):
                finite = np.isfinite(image.astype(np.float32, copy=False))
            if not finite.all():
                raise DataError(f"image {i}: has NaN or infinite pixels")
        maps = self.predict_network(pack(slices, self.config.data.image_size), batch_size)
        own = [on_grid(scores, *image.shape) for scores, image in zip(maps, slices, strict=True)]
        own = [scores[..., 0] if scores.shape[-1] == 1 else scores[..., 1:] for scores in own]
        if isinstance(images, list):
            return own
        return np.stack(own) if images.ndim == 3 else own[0]

    def predict_network(
        self, images: Packed, batch_size: int = 4
    ) -> Float32[np.ndarray, "n s s c"]:
        """Probabilities at the network's size.

        Args:
          images: raw intensities as ``pack`` gives them.
          batch_size: slices computed at once.

        Returns:
          One channel for one class; for several their probabilities, background first.
        """
        parts = []
        for start in range(0, len(images.codes), batch_size):
            part = [array[start : start + batch_size] for array in images]
            # One shape, one compilation: the last batch is filled up with copies.
            batch = Packed(*(np.resize(array, (batch_size, *array.shape[1:])) for array in part))
            parts.append(np.asarray(self._forward(self.params, batch))[: len(part[0])])
        return np.concatenate(parts)


def on_grid(
    scores: Float32[np.ndarray, "s s c"], height: int, width: int
) -> Float32[np.ndarray, "{height} {width} c"]:
    """Probabilities resized linearly to a slice's own grid."""
    planes = [resize(scores[..., c], height, width) for c in range(scores.shape[-1])]
    return np.clip(np.stack(planes, axis=-1), 0.0, 1.0)


def load_run(path: str | Path, which: Which = "best", *, averaged: bool = True) -> Run:
    """Loads a run folder's weights and config.

    Args:
      path: a folder that ``train.py`` made.
      which: the checkpoint of the lowest validation loss, or the latest.
      averaged: take the weights' moving average, where the run kept one.

    Raises:
      RunError: if the folder is no run, or has no whole checkpoint of this network.
    """
    folder = Path(path)
    config, record = read_record(folder)
    size = config.data.image_size
    image = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    shapes = jax.eval_shape(_model(config).init, jax.random.key(0), image)
    with Checkpoints(folder / "checkpoints", create=False) as checkpoints:
        names = ("params",) if config.optimizer.ema is None else ("params", "average")
        wanted = {name: shapes["params"] for name in names}
        found = checkpoints.restore(which, weights=wanted)
    name = "average" if averaged and "average" in names else "params"
    return Run(folder, config, record, found.epoch, found.items["weights"][name])


def _model(config: TrainConfig) -> SCSEUNet:
    classes = max(1, len(config.data.classes))
    return SCSEUNet(num_classes=classes, **config.model.arguments())


def _forward(
    model: SCSEUNet, normalization: Normalization, params: Any, images: Packed
) -> Float[Array, "b s s c"]:
    logits = model.apply({"params": params}, normalize(images, normalization))
    assert isinstance(logits, jax.Array)
    return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits)
