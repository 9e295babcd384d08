"""Trained networks, ready to predict: raw slices in, lesion probabilities out.

All predictions (of arrays, a volume, many scans, or in an evaluation) are computed by
``Run.predict_views`` at the network's size and resized to the slice's own grid by ``on_grid``.
"""

import dataclasses
import functools
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jaxtyping import Array, Float, Float32, Num, UInt8

from covid_jax.data.arrays import real_array, slice_array
from covid_jax.data.statistics import intensity_warning
from covid_jax.errors import ConfigError, CovidJaxError, DataError
from covid_jax.files import read_json
from covid_jax.io.geometry import Geometry
from covid_jax.io.nifti import Nifti1Image, name_of, write_like
from covid_jax.io.read_scan import read_scan
from covid_jax.models import SCSEUNet
from covid_jax.models.cpu_bfloat16 import jit_bfloat16, slow_bfloat16
from covid_jax.runs.bundle import is_bundle, read_bundle
from covid_jax.runs.checkpoints import Checkpoints
from covid_jax.runs.config import Precision, TrainConfig, Which
from covid_jax.runs.record import RunRecord, read_record
from covid_jax.runs.weights import weights_folder
from covid_jax.schema import parse
from covid_jax.splits.split import Split
from covid_jax.transforms import preprocessing
from covid_jax.transforms.input_form import InputForm, ScanForm, find_form
from covid_jax.transforms.labels import predict_labels
from covid_jax.transforms.preprocessing import Normalization, QuantizedSlices, normalize

Maps = Float32[np.ndarray, "n s s c"]  # probabilities at the network's size
MemberMaps = Float32[np.ndarray, "n m s s c"]  # of each member
Map = Float32[np.ndarray, "..."]  # of a slice, on its own grid
Stack = Num[np.ndarray, "n h w"]  # raw intensities
Listed = list[Num[np.ndarray, "h w"]] | tuple[Num[np.ndarray, "h w"], ...]
AnyPrecision = Precision | Literal["auto"] | None  # None: the one of the training
FLIPS: tuple[tuple[int, ...], ...] = ((), (-2,), (-3,), (-3, -2))  # axes: rows -3, columns -2
_SAFE_CHANGE = 0.001  # of a mean Dice
_SAME = ("epoch", "data_fingerprint", "threshold", "slices")


class VolumePrediction(NamedTuple):
    """Lesions of a scan, slices in display orientation (anterior up).

    Attributes:
      mask: class ids.
      probabilities: in [0, 1]; one more axis, last, for several classes.
      geometry: of the scan: affine, spacing in mm.
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


@dataclasses.dataclass(eq=False, repr=False)
class Run:
    """A trained network with the preprocessing it was trained with.

    Example:
      ``load_run`` returns a trained run; the weights in this example are random.

      >>> from covid_jax.runs.config import DataConfig, ModelConfig
      >>> from covid_jax.runs.record import DataRecord
      >>> config = TrainConfig(data=DataConfig(image_size=32), model=ModelConfig((4, 8)))
      >>> params = SCSEUNet(features=(4, 8)).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
      >>> record = RunRecord.new(config, DataRecord("random", "none", Normalization()))
      >>> run = Run(Path("runs/x"), record, epoch=0, params=params["params"])
      >>> slices = np.random.default_rng(0).normal(-700, 200, (3, 40, 50))
      >>> run.predict(slices).shape
      (3, 40, 50)
      >>> [scores.shape for scores in run.predict([slices[0], slices[1, :30]])]
      [(40, 50), (30, 50)]

    Attributes:
      folder: the run folder, or the bundle.
      record: its config.json: settings, data, versions, command line.
      config: the settings in it, with the ``precision`` that was asked for.
      epoch: of the weights.
      params: parameters of the network, float32.
      normalization: of raw intensities.
      model: the network.
      members: the runs whose probabilities are averaged: this one.
      variant: suffix for the names of its evaluations if other weights than the default ones are
        loaded: ``-latest``, ``-unaveraged``.
    """

    folder: Path
    record: RunRecord
    epoch: int
    params: Any
    model: Any = None
    precision: Precision | None = None
    variant: str = ""

    def __post_init__(self) -> None:
        network = self.record.config.model
        network = dataclasses.replace(network, precision=self.precision or network.precision)
        self.config = dataclasses.replace(self.record.config, model=network)
        self.normalization = self.record.data.normalization
        self.model = self.model or _model(self.config)
        self.members: tuple[Run, ...] = (self,)
        alone = functools.partial(_forward_alone, self.model, self.normalization)
        self._forward = jit_bfloat16(alone, self.config.model.precision)

    @functools.cached_property
    def split(self) -> Split:
        """The (first) run's split. A bundle stores only the protocol of the split, without slices.

        Raises:
          RunError: if split.json is missing or damaged.
        """
        first = self.members[0]
        if first.record.bundle is None:
            return Split.load(first.folder / "split.json")
        shared, none = first.record.bundle["split"], ((), (), ())
        about = shared["statement"], first.record.data.fingerprint, tuple(shared["warnings"])
        return Split(shared["policy"], *none, *about)

    @overload
    def predict(self, images: Num[np.ndarray, "..."], batch_size: int | None = None) -> Map: ...
    @overload
    def predict(self, images: Listed, batch_size: int | None = None) -> list[Map]: ...
    def predict(self, images, batch_size=None):
        """Lesion probability of each pixel, on the images' own grids.

        Args:
          images: raw intensities as read from the file: one slice (H, W), a stack (N, H, W), or a
            list of slices of any sizes. Any real type will do, bfloat16 too.
          batch_size: slices computed at once; memory grows with it. By default 1 on a CPU, where
            larger batches are not faster, else 4.

        Returns:
          Probabilities in [0, 1], float32, with the shape of ``images`` (a list for a list). A run
          with several ``--classes`` adds a last axis, with one channel per class in their order.

        Raises:
          DataError: if there is no image; if an image is not real-valued, has a channel axis or no
            pixels, or has values that are NaN or infinite in float32; or if the probabilities are
            not finite.
          ValueError: if ``batch_size`` is not positive.
        """
        given, listed = images, isinstance(images, list | tuple)
        if not listed:
            given = real_array(images, "images")
            if given.ndim != 3:
                return self.predict([given], batch_size)[0]
            if given.shape[2] <= 4 < given.shape[1]:
                found = f"shape {given.shape}, which would be slices {given.shape[2]} pixels wide"
                raise DataError(f"images: {found}; give (H, W) or (N, H, W), without channels")
        if not (slices := [slice_array(image, f"image {i}") for i, image in enumerate(given)]):
            raise DataError("no image given")
        scans = [image[None] for image in slices] if listed else [given]
        forms = [form for scan in scans for form in self.input_form(scan).slices]
        maps = [_lesions(scores) for scores in self._on_own_grids(slices, forms, batch_size)]
        return maps if listed else np.stack(maps)

    def predict_volume(
        self, path: str | Path | Nifti1Image, threshold: float = 0.5, batch_size: int | None = None
    ) -> VolumePrediction:
        """Lesion mask and probabilities of a scan, with its geometry.

        All probabilities are kept in memory; ``covid-jax predict`` keeps only those of a batch.

        Args:
          path: a NIfTI, NRRD or MetaImage file, or the folder of a DICOM series; or an image of
            nibabel's in memory.
          threshold: probability above which a pixel is lesion; with several classes the most
            probable one is taken, and it must be 0.5.
          batch_size: as in ``predict``.

        Raises:
          ConfigError: if the threshold is not in (0, 1), or given for several classes.
          DataError: if the scan cannot be read, or is a 2-D image without a geometry, or its
            probabilities are not finite.

        Warns:
          UserWarning: if its intensities are not of the kind that the run was trained on.
        """
        self.check_threshold(threshold)
        source = Path(path) if isinstance(path, str) else path
        stack, geometry = read_scan(source)
        if geometry is None:
            raise DataError(f"{path}: a 2-D image, not a volume; give its pixels to predict")
        if wrong := intensity_warning(self.record, stack):
            warnings.warn(f"{name_of(source)}: {wrong}", stacklevel=2)
        masks, maps = [], []
        for scores in self._on_own_grids(stack, self.input_form(stack).slices, batch_size):
            masks.append(np.asarray(predict_labels(scores, threshold)))
            maps.append(_lesions(scores))
        return VolumePrediction(np.stack(masks), np.stack(maps), geometry)

    def check_threshold(self, threshold: Any, name: str = "threshold") -> None:
        """Refuses an invalid threshold.

        Raises:
          ConfigError: if it is not in (0, 1), or not 0.5 where there are several classes.
        """
        if not (isinstance(threshold, int | float | np.floating) and 0 < threshold < 1):
            raise ConfigError(f"{name} {threshold}: expected a value in (0, 1)")
        if len(self.config.data.classes) > 1 and threshold != 0.5:
            raise ConfigError(f"{name}: only for one class; of several the most probable is taken")

    def input_form(self, stack: Stack, *, inside_lungs: bool = False) -> ScanForm:
        """How a scan's slices become the input of this network (``--crop``, ``--intensity lung``).

        Args:
          stack: slices in order, in display orientation.
          inside_lungs: find the lungs even if the network's input is not cropped to them.
        """
        data = self.config.data
        crop, grey_scale = data.crop == "lungs", data.intensity == "lung"
        return find_form(stack, crop=crop, grey_scale=grey_scale, inside_lungs=inside_lungs)

    def _on_own_grids(
        self, slices: Any, forms: Sequence[InputForm], batch_size: int | None
    ) -> Iterator[Float32[np.ndarray, "h w c"]]:
        """Probabilities of each slice (a stack or a list of them) on its own grid, by batches."""
        size = self.batch_of(len(slices), batch_size)
        for start in range(0, len(slices), size):
            part, seen = list(slices[start : start + size]), forms[start : start + size]
            packed = preprocessing.pack(part, self.config.data.image_size, seen)
            maps = self.predict_network(packed, size)
            for scores, image, form in zip(maps, part, seen, strict=True):
                yield preprocessing.on_grid(scores, *image.shape, box=form.box)

    def batch_of(self, slices: int, batch_size: int | None = None) -> int:
        """Slices computed at once: ``batch_size`` or its default, and never more than there are.

        Raises:
          ValueError: if ``batch_size`` is not positive.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"expected a batch of at least one slice, got {batch_size}")
        return min(batch_size or (1 if jax.default_backend() == "cpu" else 4), max(1, slices))

    def predict_network(self, images: QuantizedSlices, batch_size: int | None = None) -> Maps:
        """Probabilities at the network's size.

        Args:
          images: raw intensities as ``pack`` gives them.
          batch_size: as in ``predict``; the last batch is filled up, so that one shape is compiled.

        Returns:
          One channel for one class; for several their probabilities, background first.

        Raises:
          ValueError: if ``batch_size`` is not positive.
        """
        return self.predict_members(images, batch_size).mean(axis=1)

    def predict_members(self, images: QuantizedSlices, batch_size: int | None = None) -> MemberMaps:
        """As ``predict_network``, separately for each of ``members``."""
        size = max(self.batch_of(len(images.codes), batch_size), batch_size or 1)
        maps = []
        for start in range(0, len(images.codes), size):
            rows = np.arange(start, min(start + size, len(images.codes)))
            filled = images.take(np.resize(rows, size))
            maps.append(np.asarray(self._forward(self.params, filled))[: len(rows)])
        return np.concatenate(maps)

    def predict_views(
        self, images: QuantizedSlices, batch_size: int | None = None, *, flips: bool = True
    ) -> Float32[np.ndarray, "n m v s s c"]:
        """Probabilities at the network's size by each member, of each slice and its flips.

        Flips are flipped back. The prediction is the mean over members and views.

        Args:
          images: raw intensities as ``pack`` gives them.
          batch_size: as in ``predict_network``.
          flips: left-right, up-down and both; without them the slice itself is the only view.

        Raises:
          ValueError: if ``batch_size`` is not positive.
        """
        views = []
        for axes in FLIPS if flips else FLIPS[:1]:
            flipped = images._replace(codes=np.flip(images.codes, tuple(axis + 1 for axis in axes)))
            views.append(np.flip(self.predict_members(flipped, batch_size), axes))
        return np.stack(views, axis=2)


def _lesions(scores: Float32[np.ndarray, "h w c"]) -> Map:
    """Removes the last axis for one class, and the background channel for several classes."""
    return scores[..., 0] if scores.shape[-1] == 1 else scores[..., 1:]


def load_run(
    path: str | Path,
    which: Which = "best",
    *,
    averaged: bool = True,
    precision: AnyPrecision = None,
    model: linen.Module | None = None,
) -> Run:
    """Loads the weights and settings of a run folder, or of a bundle.

    Args:
      path: a folder that ``train.py`` made, or a bundle (``covid-jax export``, ``weights:NAME`` for
        an installed one, ``hf:ORG/NAME`` for one on the Hugging Face hub), which holds one set of
        weights, whatever ``which`` and ``averaged`` ask for.
      which: the checkpoint of the lowest validation loss, or the latest.
      averaged: take the weights' moving average, where the run kept one.
      precision: of the convolutions; by default the one it was trained in. ``auto``: bfloat16 where
        it is faster on this machine and changes the mean Dice of the validation slices by less than
        0.001, as measured by two evaluations (``--subset val``, one in each precision).
      model: the network, where the run was trained with one of your own; (B, S, S, 1) float32 in,
        logits (B, S, S, C) out. By default what the settings say.

    Raises:
      RunError: if the folder is neither a run nor a bundle; if it has no complete weights of this
        network; if weights are NaN or infinite; or if safetensors is needed for a bundle and not
        installed.
    """
    folder = weights_folder(path)
    record = read_record(folder)
    config, variant = record.config, ""
    shapes = param_shapes(model or _model(config), config.data.image_size)
    if is_bundle(folder):
        epoch, params = read_bundle(folder, shapes)
    else:
        names = ("params",) if config.optimizer.ema is None else ("params", "average")
        checkpoints = Checkpoints(folder / "checkpoints", create=False)
        found = checkpoints.restore(which, weights=dict.fromkeys(names, shapes))
        for damage in found.damaged:
            warnings.warn(f"{damage}; epoch {found.epoch} is used instead", stacklevel=2)
        name = "average" if averaged and "average" in names else "params"
        epoch, params = found.epoch, found.items["weights"][name]
        variant = "-latest" * (which == "latest") + "-unaveraged" * (name != names[-1])
    if precision == "auto":
        change = None if variant or slow_bfloat16() else bfloat16_change(folder, epoch)
        precision = None if change is None or abs(change) >= _SAFE_CHANGE else "bfloat16"
    return Run(folder, record, epoch, params, model, precision, variant)


def bfloat16_change(folder: Path, epoch: int) -> float | None:
    """The change of the mean validation Dice of a float32 run if bfloat16 is used.

    Read from two evaluations of the weights of this epoch in the run folder, or from the bundle;
    None if they are missing.
    """
    if is_bundle(folder):
        bundle = read_record(folder).bundle
        return bundle.get("bfloat16_change") if bundle else None
    try:
        places = (folder / "eval" / name / "metrics.json" for name in ("val", "val-bfloat16"))
        reports = [*map(read_json, places)]
        before, after = ({key: report[key] for key in _SAME} for report in reports)
        dice = [parse(float, report["own_grid"]["dice"]["mean"]) for report in reports]
        return dice[1] - dice[0] if before == after and before["epoch"] == epoch else None
    except (CovidJaxError, LookupError, TypeError):
        return None


def param_shapes(model: linen.Module, size: int) -> Any:
    """Shapes of the parameters of a network for slices of this size."""
    image = jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def _model(config: TrainConfig) -> SCSEUNet:
    return SCSEUNet(num_classes=max(1, len(config.data.classes)), **config.model.arguments())


def forward(
    model: linen.Module, normalization: Normalization, params: Any, images: QuantizedSlices
) -> Float[Array, "b s s c"]:
    """Probabilities at the network's size; may be called inside or outside of ``jax.jit``."""
    return probabilities(model.apply({"params": params}, normalize(images, normalization)))


def _forward_alone(*given: Any) -> Float[Array, "b 1 s s c"]:
    """As ``forward``, with an additional axis for the ensemble's members."""
    return forward(*given)[:, None]


def probabilities(logits: Any) -> Float[Array, "b s s c"]:
    """A sigmoid for one class, else a softmax."""
    return jax.nn.sigmoid(logits) if logits.shape[-1] == 1 else jax.nn.softmax(logits)
