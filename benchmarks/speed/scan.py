"""A scan from file to mask, each way a process of its own, in turns.

    python -m benchmarks.speed.scan SCAN.nii.gz --run BUNDLE --out benchmarks/results/scan.json

The ways: ``covid-jax predict`` in float32, in bfloat16 and by OpenVINO, and a plain PyTorch script
with the same weights (nibabel, one window, resize, network, resize back, mask), which does without
the lungs' box, checks and summaries. The time includes starting Python and compiling; the cache of
compiled programs is warm, as from the second scan on. Masks are compared with float32's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

from covid_jax.metrics import confusion_counts, dice
from covid_jax.runs.provenance import provenance

PREDICT = "{python} -m covid_jax predict {scan} --run {run} -o {out} -q"
WAYS = {
    "covid_jax float32": PREDICT + " --precision float32 --runtime jax",
    "covid_jax bfloat16": PREDICT + " --precision bfloat16 --runtime jax",
    "covid_jax by OpenVINO": PREDICT + " --precision float32 --runtime openvino",
    "plain PyTorch script": "{python} -m benchmarks.speed.scan {scan} --run {run} --torch {out}",
}


def predict_with_torch(scan: Path, bundle: Path, folder: Path, batch: int = 4) -> None:
    """What a researcher's own script does: window, resize, network, resize back, threshold."""
    import torch
    from torch.nn.functional import interpolate

    from tests.oracles.torch_twin import load_bundle

    size = json.loads((bundle / "config.json").read_text())["config"]["data"]["image_size"]
    network, image = load_bundle(bundle).eval(), nib.load(scan)  # type: ignore[attr-defined]
    volume = torch.from_numpy(np.asarray(image.dataobj, np.float32)).permute(2, 1, 0)[:, None]
    masks = []
    with torch.inference_mode():
        for slices in ((volume.clamp(-1350, 150) + 600) / 375).split(batch):
            small = interpolate(slices, (size, size), mode="bilinear", antialias=True)
            logits = interpolate(network(small), slices.shape[2:], mode="bilinear")
            masks.append(logits[:, 0] > 0)
    folder.mkdir(parents=True)
    mask = torch.cat(masks).permute(2, 1, 0).to(torch.uint8).numpy()
    nib.save(nib.Nifti1Image(mask, image.affine), folder / "scan_mask.nii.gz")  # type: ignore


def measure(command: str, folder: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak memory in MiB of one process."""
    started = time.perf_counter()
    process = subprocess.Popen(command.split(), env={**os.environ, "JAX_PLATFORMS": "cpu"})
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status or not any(folder.rglob("*_mask.nii.gz")):
        raise SystemExit(f"failed: {command}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Measures in turns, the first of which warms up, and writes the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--run", type=Path, required=True, help="a bundle")
    parser.add_argument("--torch", type=Path, help="predict here with PyTorch, and no more")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.torch:
        return predict_with_torch(options.scan, options.run, options.torch)
    samples: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    masks = {}
    with tempfile.TemporaryDirectory() as temporary:
        for turn in range(options.turns + 1):
            for number, (way, command) in enumerate(WAYS.items()):
                out = Path(temporary, f"{turn}-{number}")
                given = {"scan": options.scan, "run": options.run, "out": out}
                sample = measure(command.format(python=sys.executable, **given), out)
                samples[way] += [sample] if turn else []
                (path,) = out.rglob("*_mask.nii.gz")
                masks[way] = np.asarray(nib.load(path).dataobj) > 0  # type: ignore[attr-defined]
    masks = {way: mask.reshape(1, -1) for way, mask in masks.items()}  # Dice of the whole scan
    reference = masks["covid_jax float32"]
    rows = {}
    for way, measured in samples.items():
        wall, cpu, memory = (list(values) for values in zip(*measured, strict=True))
        rows[way] = {
            "median_seconds": round(statistics.median(wall), 2),
            "cpu_seconds": round(statistics.median(cpu), 2),
            "peak_mebibytes": round(max(memory)),
            "dice_with_float32": dice(confusion_counts(masks[way], reference)).item(),
            "samples": wall,
        }
        print(way, {name: value for name, value in rows[way].items() if name != "samples"})
    record = {"scan": options.scan.name, "voxels": reference.size, "ways": rows}
    record |= provenance(["python", "-m", "benchmarks.speed.scan", *sys.argv[1:]])
    if options.out:
        options.out.write_text(json.dumps(record, indent=1))
    return None


if __name__ == "__main__":
    main()
