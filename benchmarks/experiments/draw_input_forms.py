"""One patient in two collections, as stored and in the network's common input form.

    python -m benchmarks.experiments.draw_input_forms DATA docs/images/results_forms.jpg

DATA holds ``radiopaedia_window`` and ``radiopaedia``. Of each the slice of the patient with the
largest lesion is drawn: as it is, and with ``--intensity lung --crop lungs``.
"""

import sys
from pathlib import Path

import numpy as np

from covid_jax.data import open_dataset
from covid_jax.reporting.drawing import Image, to_grey
from covid_jax.reporting.figures import picture_grid, save_figure

PATIENT = "p14-85914-0"
SIZE = 256
COLLECTIONS = {
    "radiopaedia_window": "lung window, lung crop",
    "radiopaedia": "equalised whole body",
}


def forms(folder: Path) -> tuple[Image, Image]:
    """Grey values at the network's size, as stored and in the common form."""
    shown = []
    for common in (False, True):
        dataset = open_dataset(folder, SIZE, crop=common, grey_scale=common)
        areas = [np.count_nonzero(each.mask) * (each.patient == PATIENT) for each in dataset.slices]
        values = dataset.network.images.take([int(np.argmax(areas))]).decode()[0]
        shown.append(to_grey(values))
    return shown[0], shown[1]


def main() -> None:
    """Draws two columns for each collection."""
    data, out = map(Path, sys.argv[1:])
    pictures = {name: forms(data / name) for name in COLLECTIONS}
    titles = [
        f"{title},\n{form}"
        for title in COLLECTIONS.values()
        for form in ("as stored", "common form")
    ]
    figure, _ = picture_grid(titles, [[image for pair in pictures.values() for image in pair]], 0.2)
    save_figure(figure, out)


if __name__ == "__main__":
    main()
