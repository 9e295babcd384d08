"""Datasets of 4 x 4 slices, made of what splits look at: patients, sources, lesions, pixels."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from covid_jax.data import Slice, SliceDataset

Published = Literal["train", "test"] | None


def make_dataset(
    patients: Sequence[str | None],
    published: Sequence[Published] | None = None,
    *,
    sources: Sequence[str] | None = None,
    lesions: Sequence[int] | None = None,
    copies: dict[int, int] | None = None,
) -> SliceDataset:
    """A slice for each patient named; ids s00, s01, ...

    Args:
      patients: of each slice.
      published: subset of each slice.
      sources: of each slice.
      lesions: lesion pixels of each slice, of 16.
      copies: ``{5: 2}`` gives slice 5 the pixels of slice 2.
    """
    count = len(patients)
    slices = []
    for i, (patient, subset, source, lesion) in enumerate(
        zip(
            patients,
            published or [None] * count,
            sources or ["hand-made"] * count,
            lesions or [8] * count,
            strict=True,
        )
    ):
        pixels = np.arange(16) + 20 * (copies or {}).get(i, i)
        image = pixels.astype(np.int16).reshape(4, 4)
        mask = (np.arange(16) < lesion).astype(np.uint8).reshape(4, 4)
        slices.append(Slice(f"s{i:02d}", source, patient, subset, image, mask))
    return SliceDataset("hand-made", tuple(slices), 16)


def one_each(count: int) -> list[str]:
    return [f"p{i}" for i in range(count)]
