"""Runs without a network, whose probabilities a test can work out by hand."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from covid_jax.inference import Run
from covid_jax.prediction.options import PredictOptions
from covid_jax.prediction.predict_scans import Outcome, predict_scans
from covid_jax.runs.config import DataConfig
from covid_jax.runs.record import DataRecord, RunRecord, SourceRecord
from covid_jax.terminal import Screen
from covid_jax.transforms.preprocessing import Normalization, QuantizedSlices
from tests.support.synthetic import SIZE, tiny_config

_SIZES = ((512, 512), (512, 512))
HU = SourceRecord("scans", 9, 1, 0, _SIZES, None, (-1024.0, 600.0), "HU", {}, ())
PICTURES = SourceRecord("pictures", 9, 1, 0, _SIZES, None, (0.0, 255.0), "8-bit", {}, ())


class BrightRun(Run):
    """A pixel's probability is where it lies in its slice's range: 0 darkest, 1 brightest.

    Attributes:
      batches: how many slices of how many each call was asked for.
    """

    def __init__(
        self, sources: Sequence[SourceRecord] = (HU, PICTURES), size: int = SIZE, classes=()
    ) -> None:
        config = tiny_config(data=DataConfig(image_size=size, classes=classes))
        data = DataRecord("by hand", "none", Normalization(), sources=tuple(sources))
        params = {"w": np.zeros(1, np.float32)}
        super().__init__(Path("bright"), RunRecord.new(config, data), 1, params)
        self.batches: list[tuple[int, int]] = []

    def predict_network(self, images: QuantizedSlices, batch_size: int = 4) -> np.ndarray:
        self.batches.append((len(images.codes), batch_size))
        return (images.codes / 65535).astype(np.float32)[..., None]

    def predict_members(self, images: QuantizedSlices, batch_size: int = 4) -> np.ndarray:
        return self.predict_network(images, batch_size)[:, None]


class LeftRun(BrightRun):
    """Marks the left half of whatever it is shown: the least that flips can agree on."""

    def predict_network(self, images: QuantizedSlices, batch_size: int = 4) -> np.ndarray:
        scores = super().predict_network(images, batch_size)
        half = scores.shape[2] // 2
        scores[:, :, :half], scores[:, :, half:] = 0.9, 0.0
        return scores


class KindsRun(BrightRun):
    """Two classes: 0.2, and 0.7 of the brightness; the background has the rest."""

    def __init__(self) -> None:
        super().__init__(classes=("ground_glass", "consolidation"))

    def predict_network(self, images: QuantizedSlices, batch_size: int = 4) -> np.ndarray:
        bright = super().predict_network(images, batch_size)
        return np.concatenate([0.8 - 0.7 * bright, 0.2 + 0 * bright, 0.7 * bright], axis=-1)


def predicted(run: Run, paths: Sequence[Path] | Path, out: Path, **options) -> tuple[Outcome, str]:
    """What ``predict_scans`` returns and prints."""
    paths = [paths] if isinstance(paths, Path) else paths
    console = Screen(file=io.StringIO(), width=300)
    outcome = predict_scans(run, paths, out, PredictOptions(**options), console, ["predict"])
    return outcome, console.file.getvalue()


def write_picture(path: Path, shape: tuple[int, int] = (SIZE, SIZE), seed: int = 0) -> Path:
    """Noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8)).save(path)
    return path


def read_picture(path: Path) -> np.ndarray:
    """As stored, the file closed."""
    with Image.open(path) as picture:
        return np.asarray(picture)
