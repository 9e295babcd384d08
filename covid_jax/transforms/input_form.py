"""One form of the network's input for scans of any origin: the lungs' box on a common grey scale.

The order is fixed: lung mask, a box per slice, resize, grey scale. ``find_forms`` looks at a whole
scan, since a lung mask in HU is three-dimensional; ``preprocessing.pack`` and ``on_grid`` apply a
form to each slice.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Num

from covid_jax.transforms.grey_scale import GreyScale, find_grey_scales, looks_like_hounsfield
from covid_jax.transforms.lungs import Box, find_lungs


class InputForm(NamedTuple):
    """How one slice becomes the network's input.

    Attributes:
      box: rows and columns that the network sees; None: all of them.
      scale: the grey scale of its intensities; None: raw intensities.
      inside: the pixels inside the lungs' hull, bit-packed by ``np.packbits``; None: not known.
    """

    box: Box | None = None
    scale: GreyScale | None = None
    inside: bytes | None = None

    def cropped(self, image: Num[np.ndarray, "h w"]) -> Num[np.ndarray, "..."]:
        """The part of a slice, or of its mask, that the network sees."""
        return image if self.box is None else image[self.box]

    def scaled(self, image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        """Intensities on the form's grey scale."""
        return image if self.scale is None else self.scale.apply(image)

    def inside_lungs(self, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        """Which pixels of the slice lie inside the lungs' hull; all where it is not known."""
        if self.inside is None:
            return np.ones(shape, bool)
        bits = np.frombuffer(self.inside, np.uint8)
        return np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(bool)


def find_forms(
    stack: Num[np.ndarray, "n h w"], *, crop: bool, grey_scale: bool, hounsfield: bool | None = None
) -> list[InputForm]:
    """The input form of each slice of a scan.

    Args:
      stack: the scan's slices in display orientation and in order; pictures one by one.
      crop: find the lungs and give the network their box. A slice without lung is taken whole,
        and nothing in it lies inside the lungs.
      grey_scale: map lung and soft tissue to fixed values.
      hounsfield: whether the stack is in HU; by default its intensities decide.
    """
    if not (crop or grey_scale):
        return [InputForm()] * len(stack)
    if hounsfield is None:
        hounsfield = looks_like_hounsfield(stack)
    lungs = find_lungs(stack, hounsfield) if crop or not hounsfield else None
    mask = None if lungs is None else lungs.mask
    scales = find_grey_scales(stack, hounsfield, mask) if grey_scale else [None] * len(stack)
    if not crop or lungs is None:
        return [InputForm(scale=scale) for scale in scales]
    return [
        InputForm(lungs.box(i), scale, np.packbits(lungs.hull(i)).tobytes())
        for i, scale in enumerate(scales)
    ]


def fallbacks(forms: Sequence[InputForm]) -> list[str]:
    """Why the grey scale of some slices is a guess, one reason for each such slice."""
    return [form.scale.fallback for form in forms if form.scale and form.scale.fallback]
