"""A copy of a collection with every slice turned by a quarter, so that both collections lie alike.

    python -m benchmarks.experiments.rotate_dataset data/semiseg turned/semiseg --clockwise
    python -m benchmarks.experiments.rotate_dataset data/radiopaedia turned/radiopaedia

COVID-SemiSeg's pictures lie on their side: the front of the chest is on the left, where other
slices have it on top. Pictures stay as they are but for the turn (JPEG files become PNG).
"""

import argparse
import shutil
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image


def turn_picture(path: Path, target: Path, clockwise: bool) -> None:
    """A PNG or JPEG file."""
    way = Image.Transpose.ROTATE_270 if clockwise else Image.Transpose.ROTATE_90
    with Image.open(path) as picture:
        picture.transpose(way).save(target.with_suffix(".png"))


def turn_volume(path: Path, target: Path, clockwise: bool) -> None:
    """A NIfTI file, whose array is (x, y, z) and whose slices are shown transposed."""
    volume = nibabel.nifti1.Nifti1Image.from_filename(path)
    array = np.rot90(np.asanyarray(volume.dataobj), 1 if clockwise else -1, axes=(0, 1))
    nibabel.nifti1.Nifti1Image(array, volume.affine, volume.header).to_filename(target)


def main() -> None:
    """Goes through the folder and leaves the same folder, turned."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clockwise", action="store_true", help="else against the clock")
    options = parser.parse_args()
    for path in sorted(options.source.rglob("*")):
        target = options.out / path.relative_to(options.source)
        if path.is_dir():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name.endswith(".nii.gz"):
            turn_volume(path, target, options.clockwise)
        elif path.suffix in (".png", ".jpg"):
            turn_picture(path, target, options.clockwise)
        else:
            shutil.copyfile(path, target)


if __name__ == "__main__":
    main()
