"""What a slice costs without JAX: ONNX Runtime and OpenVINO in float32, bfloat16 and int8.

    python -m benchmarks.speed.deploy --out results/deploy.json [--run RUN --data DATA]

Latency is that of the full-width network at 512 x 512, one slice at a time, all cores, in turns so
that a busy machine slows all alike; the weights are the run's where it is of that size, else
random. With a run and its dataset, Dice on the run's test part says what each form loses; int8 is
calibrated on its training part.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import openvino

from covid_jax.data import SliceDataset, open_dataset
from covid_jax.export import export_run
from covid_jax.inference import Run, load_run
from covid_jax.metrics.confusion import confusion_counts, dice
from covid_jax.models import SCSEUNet
from covid_jax.phantom.dataset import phantom_slices
from covid_jax.runs.config import DataConfig, TrainConfig
from covid_jax.runs.provenance import provenance
from covid_jax.runs.record import DataRecord, RunRecord
from covid_jax.splits.split import Split
from covid_jax.transforms.labels import predict_labels
from covid_jax.transforms.preprocessing import Normalization, QuantizedSlices, pack

SIZE = 512
CALIBRATION = 16
Predict = Callable[[np.ndarray], np.ndarray]


def untrained() -> Run:
    """The paper's network with random weights."""
    config = TrainConfig(data=DataConfig(image_size=SIZE))
    model = SCSEUNet(**config.model.arguments())
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))["params"]
    record = RunRecord.new(config, DataRecord("none", "", Normalization()))
    return Run(Path(), record, 0, params)


def intensities(slices: QuantizedSlices) -> np.ndarray:
    """(N, 1, S, S) float32."""
    return slices.decode()[:, None]


def chosen(slices: QuantizedSlices, positions: Iterable[int]) -> QuantizedSlices:
    """Some of the slices."""
    return QuantizedSlices(*(array[np.asarray(list(positions))] for array in slices))


def forms(run: Run, calibration: np.ndarray) -> dict[str, Predict]:
    """Functions from (1, 1, S, S) intensities to (1, C, S, S) probabilities."""
    with tempfile.TemporaryDirectory() as folder:
        (path,) = export_run(run, "onnx", Path(folder, "network.onnx"))
        file = path.read_bytes()
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        core = openvino.Core()
        network = core.read_model(path)
        models = {"float32": (network, "f32"), "bfloat16": (network, "bf16")}
        if importlib.util.find_spec("nncf"):
            models["int8"] = (quantized(network, calibration), "bf16")
        compiled = {
            f"openvino {name}": core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
            for name, (model, hint) in models.items()
        }

    def jax_forward(images: np.ndarray) -> np.ndarray:
        maps = run.predict_network(pack(list(images[:, 0]), images.shape[-1]), batch_size=1)
        return maps.transpose(0, 3, 1, 2)

    return {
        "jax float32": jax_forward,
        "onnxruntime float32": lambda images: session.run(None, {"image": images})[0],
        **{name: lambda images, model=model: model(images)[0] for name, model in compiled.items()},
    }


def quantized(network: Any, calibration: np.ndarray) -> Any:
    """Eight bits for the wide convolutions alone: the first, the gates, the heads and sums stay.

    So does normalization, as HU do not fit into eight bits. docs/deploy.md does the same.
    """
    import nncf

    return nncf.quantize(
        network,
        nncf.Dataset([image[None] for image in calibration]),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(
            patterns=["normalization/.*", "encoder1_conv/.*", ".*_scse/.*", r"head\d/.*"],
            types=["Add", "Multiply", "ReduceMean", "MVN"],
            validate=False,  # a network without attention has no gates
        ),
    )


def time_forms(functions: dict[str, Predict], image: np.ndarray, turns: int) -> dict[str, Any]:
    """Seconds of a slice, the first turn left out."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(turns + 1):
        for name, predict in functions.items():
            started = time.perf_counter()
            predict(image)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {
        name: {"median_seconds": statistics.median(samples), "samples": samples}
        for name, samples in seconds.items()
    }


def compare(functions: dict[str, Predict], images: np.ndarray, truths: np.ndarray | None) -> dict:
    """Each form against JAX, and against the truth (class ids at the network's size)."""
    maps = {
        name: np.concatenate([predict(image[None]) for image in images]).transpose(0, 2, 3, 1)
        for name, predict in functions.items()
    }
    reference = maps["jax float32"]
    expected = np.asarray(predict_labels(reference, 0.5))
    found: dict[str, Any] = {}
    for name, scores in maps.items():
        mask = np.asarray(predict_labels(scores, 0.5))
        found[name] = {
            "largest_difference": float(np.abs(scores - reference).max()),
            "pixels_that_differ": int((mask != expected).sum()),
            "dice_with_jax": mean_dice(mask, expected),
        }
        if truths is not None:
            found[name]["dice"] = mean_dice(mask, truths)
            found[name]["dice_difference"] = found[name]["dice"] - mean_dice(expected, truths)
    return found


def mean_dice(masks: np.ndarray, truths: np.ndarray) -> float:
    """Of the whole lesion, mean over slices."""
    return float(np.mean(dice(confusion_counts(masks > 0, truths > 0))))


def score_test_part(run: Run, dataset: SliceDataset, most: int) -> dict[str, Any]:
    """What each form loses on the run's test part."""
    split = Split.load(run.folder / "split.json")
    test = split.indices(dataset, "test")[:most]
    images = dataset.network.images
    calibration = intensities(chosen(images, split.indices(dataset, "train")[:CALIBRATION]))
    truths = dataset.target_ids(dataset.network.masks[np.asarray(test)])
    functions = forms(run, calibration)
    return {
        "run": run.folder.name,
        "features": run.config.model.features,
        "image_size": run.config.data.image_size,
        "slices": len(test),
        "forms": compare(functions, intensities(chosen(images, test)), truths),
    }


def main() -> None:
    """Measures and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--data", type=Path, nargs="+")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--slices", type=int, default=100, help="of the test part, at most")
    arguments = parser.parse_args()
    if (arguments.run is None) != (arguments.data is None):
        parser.error("--run and --data go together")
    timed, test_part = untrained(), None
    if arguments.run is not None:
        run = load_run(arguments.run)
        settings = dataclasses.replace(run.config.data, data=())
        dataset = open_dataset(
            arguments.data,
            settings.image_size,
            lesion_slices_only=settings.lesion_slices_only,
            classes=settings.classes,
            series=settings.series,
            crop=settings.crop == "lungs",
            grey_scale=settings.intensity == "lung",
        )
        test_part = score_test_part(run, dataset, arguments.slices)
        same = (run.config.model.features, settings.image_size)
        timed = run if same == (timed.config.model.features, SIZE) else timed
    phantom, _ = phantom_slices(seed=0, patient=1, num_slices=4, size=SIZE)
    images = intensities(pack(list(phantom), SIZE))
    functions = forms(timed, images)
    record = {
        "features": timed.config.model.features,
        "image_size": SIZE,
        "latency": time_forms(functions, images[:1], arguments.turns),
        "agreement": compare(functions, images, None),
        "test_part": test_part,
        "packages": {
            name: importlib.metadata.version(name)
            for name in ("onnx", "onnxruntime", "openvino", "nncf")
            if importlib.util.find_spec(name)
        },
        **provenance(["python", "-m", "benchmarks.speed.deploy", *sys.argv[1:]]),
    }
    arguments.out.write_text(json.dumps(record, indent=1))
    print(json.dumps({k: v for k, v in record.items() if k != "versions"}, indent=1))


if __name__ == "__main__":
    main()
