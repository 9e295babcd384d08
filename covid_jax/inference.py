"""A trained run, ready to predict: raw slices in, lesion probabilities out."""

import functools
import warnings
from pathlib import Path
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Num, UInt8

from covid_jax.data.statistics import scale_warning
from covid_jax.errors import DataError
from covid_jax.io.geometry import Geometry
from covid_jax.io.nifti import write_like
from covid_jax.io.read_scan import read_scan
from covid_jax.models import SCSEUNet
from covid_jax.runs.bundle import is_bundle, read_bundle
from covid_jax.runs.checkpoints import Checkpoints
from covid_jax.runs.config import TrainConfig, Which, to_dict
from covid_jax.runs.record import read_record
from covid_jax.transforms.labels import predict_labels
from covid_jax.transforms.preprocessing import (
    Normalization,
    QuantizedSlices,
    normalize,
    on_grid,
    pack,
)

FLIPS: tuple[tuple[int, ...], ...] = ((), (2,), (1,), (1, 2))  # axes of (slices, rows, columns)


class VolumePrediction(NamedTuple):
    """A scan's lesions, slice by slice as a radiologist sees them.

    Attributes:
      mask: class ids.
      probabilities: in [0, 1]; one more axis, last, for several classes.
      geometry: how the scan lies in space, its spacing in mm.
    """

    mask: UInt8[np.ndarray, "n h w"]
    probabilities: Float32[np.ndarray, "n h w"] | Float32[np.ndarray, "n h w c"]
    geometry: Geometry

    def save(self, path: str | Path) -> None:
        """Writes the mask as a NIfTI file in the scan's own grid, voxel for voxel.

        Raises:
          DataError: if the name does not end in ``.nii`` or ``.nii.gz``.
        """
        write_like(Path(path), self.mask, self.geometry)


class Run:
    """A trained network with the preprocessing it was trained with.

    Example:
      ``load_run`` gives a trained one; this one's weights are random.

      >>> from covid_jax.runs.config import DataConfig, ModelConfig
      >>> config = TrainConfig(data=DataConfig(image_size=32), model=ModelConfig((4, 8)))
      >>> params = SCSEUNet(features=(4, 8)).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
      >>> record = {"data": {"normalization": Normalization().record()}}
      >>> run = Run(Path("runs/x"), config, record, epoch=0, params=params["params"])
      >>> slices = np.random.default_rng(0).normal(-700, 200, (3, 40, 50))
      >>> run.predict(slices).shape
      (3, 40, 50)
      >>> [scores.shape for scores in run.predict([slices[0], slices[1, :30]])]
      [(40, 50), (30, 50)]

    Attributes:
      folder: the run folder.
      config: how it was trained.
      record: the whole of config.json: versions, data fingerprint, command line.
      epoch: of the weights.
      model: the network.
      params: its parameters, float32.
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
        self.model = _model(config)
        forward = functools.partial(_forward, self.model, self.normalization)
        self._forward = jax.jit(forward)

    @overload
    def predict(
        self, images: Num[np.ndarray, "..."], batch_size: int = 4
    ) -> Float32[np.ndarray, "..."]: ...
    @overload
    def predict(
        self,
        images: list[Num[np.ndarray, "h w"]] | tuple[Num[np.ndarray, "h w"], ...],
        batch_size: int = 4,
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
          DataError: without any image, or on one that holds no real numbers, is of another rank,
            has no pixels, or pixels that are NaN or infinite in float32.
          ValueError: if ``batch_size`` is not positive.
        """
        listed = isinstance(images, list | tuple)
        array = None if listed else _real(images, "images")
        given = images if array is None else array if array.ndim == 3 else [array]
        slices = [_slice(image, f"image {i}") for i, image in enumerate(given)]
        if not slices:
            raise DataError("no image given")
        maps = self.predict_network(pack(slices, self.config.data.image_size), batch_size)
        own = [on_grid(scores, *image.shape) for scores, image in zip(maps, slices, strict=True)]
        own = [_lesions(scores) for scores in own]
        if array is None:
            return own
        return np.stack(own) if array.ndim == 3 else own[0]

    def predict_volume(
        self, path: str | Path, threshold: float = 0.5, batch_size: int = 4
    ) -> VolumePrediction:
        """Lesion mask and probabilities of a scan, and how it lies in space.

        All probabilities are held in memory; ``covid-jax predict`` holds those of a batch.

        Args:
          path: a NIfTI file, or the folder of a DICOM series.
          threshold: above which a probability is lesion; of several classes the most probable one
            is taken instead.
          batch_size: slices computed at once.

        Raises:
          DataError: if the scan cannot be read, or is a picture, which lies nowhere.

        Warns:
          UserWarning: if its intensities are not of the kind that the run was trained on.
        """
        stack, geometry = read_scan(Path(path))
        if geometry is None:
            raise DataError(f"{path}: a picture, not a volume; give its pixels to predict")
        if wrong := scale_warning(self.record, float(stack.min()), float(stack.max())):
            warnings.warn(f"{path}: {wrong}", stacklevel=2)
        size, masks, maps = self.config.data.image_size, [], []
        for start in range(0, len(stack), batch_size):
            part = stack[start : start + batch_size]
            for scores in self.predict_network(pack(list(part), size), batch_size):
                own = on_grid(scores, *stack.shape[1:])
                masks.append(np.asarray(predict_labels(own, threshold)))
                maps.append(_lesions(own))
        return VolumePrediction(np.stack(masks), np.stack(maps), geometry)

    def predict_network(
        self, images: QuantizedSlices, batch_size: int = 4
    ) -> Float32[np.ndarray, "n s s c"]:
        """Probabilities at the network's size.

        Args:
          images: raw intensities as ``pack`` gives them.
          batch_size: slices computed at once.

        Returns:
          One channel for one class; for several their probabilities, background first.

        Raises:
          ValueError: if ``batch_size`` is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"expected a batch of at least one slice, got {batch_size}")
        parts = []
        for start in range(0, len(images.codes), batch_size):
            part = [array[start : start + batch_size] for array in images]
            # One shape, one compilation: the last batch is filled up with copies.
            batch = QuantizedSlices(
                *(np.resize(array, (batch_size, *array.shape[1:])) for array in part)
            )
            parts.append(np.asarray(self._forward(self.params, batch))[: len(part[0])])
        return np.concatenate(parts)

    def predict_views(
        self, images: QuantizedSlices, batch_size: int = 4, *, flips: bool = True
    ) -> Float32[np.ndarray, "n v s s c"]:
        """Probabilities at the network's size, of each slice and of its flips, turned back.

        Their mean is what test-time augmentation predicts.

        Args:
          images: raw intensities as ``pack`` gives them.
          batch_size: slices computed at once.
          flips: left-right, up-down and both; without them the slice itself is the only view.

        Raises:
          ValueError: if ``batch_size`` is not positive.
        """
        views = []
        for axes in FLIPS if flips else FLIPS[:1]:
            flipped = images._replace(codes=np.flip(images.codes, axes))
            views.append(np.flip(self.predict_network(flipped, batch_size), axes))
        return np.stack(views, axis=1)


def _real(image: Any, name: str) -> Num[np.ndarray, "..."]:
    """An array of whole or real numbers, or of booleans, which count as 0 and 1."""
    try:
        array = np.asarray(image)
    except ValueError as error:  # rows of several lengths
        raise DataError(f"{name}: no array ({error})") from error
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected real numbers, found {array.dtype}")
    return array


def _slice(image: Any, name: str) -> Num[np.ndarray, "h w"]:
    array = _real(image, name)
    if array.ndim != 2 or not array.size:
        raise DataError(f"{name}: expected a slice (H, W), found shape {array.shape}")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{name}: has NaN or infinite pixels, or some beyond float32")
    return array


def _lesions(scores: Float32[np.ndarray, "h w c"]) -> Float32[np.ndarray, "..."]:
    """Without the last axis for one class, without the background for several."""
    return scores[..., 0] if scores.shape[-1] == 1 else scores[..., 1:]


def load_run(path: str | Path, which: Which = "best", *, averaged: bool = True) -> Run:
    """Loads a run folder's weights and config, or a bundle's.

    Args:
      path: a folder that ``train.py`` made, or a bundle (``covid-jax export``), which holds one set
        of weights, whatever the other arguments ask for.
      which: the checkpoint of the lowest validation loss, or the latest.
      averaged: take the weights' moving average, where the run kept one.

    Raises:
      RunError: if the folder is neither, or has no whole weights of this network, or safetensors is
        not installed and it is a bundle.
    """
    folder = Path(path)
    stored = read_record(folder)
    config, record = stored.config, to_dict(stored)
    size = config.data.image_size
    image = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    shapes = jax.eval_shape(_model(config).init, jax.random.key(0), image)
    if is_bundle(folder):
        return Run(folder, config, record, *read_bundle(folder, shapes["params"]))
    with Checkpoints(folder / "checkpoints", create=False) as checkpoints:
        names = ("params",) if config.optimizer.ema is None else ("params", "average")
        wanted = {name: shapes["params"] for name in names}
        found = checkpoints.restore(which, weights=wanted)
    for damage in found.damaged:
        warnings.warn(f"{damage}; epoch {found.epoch} is used instead", stacklevel=2)
    name = "average" if averaged and "average" in names else "params"
    return Run(folder, config, record, found.epoch, found.items["weights"][name])


def _model(config: TrainConfig) -> SCSEUNet:
    classes = max(1, len(config.data.classes))
    return SCSEUNet(num_classes=classes, **config.model.arguments())


def _forward(
    model: SCSEUNet, normalization: Normalization, params: Any, images: QuantizedSlices
) -> Float[Array, "b s s c"]:
    logits = model.apply({"params": params}, normalize(images, normalization))
    assert isinstance(logits, jax.Array)
    return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits)
