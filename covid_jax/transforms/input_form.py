"""One form of input for scans of any origin: the box of the lungs on a common grey scale.

The order is fixed: lung mask, a box per slice, resize, grey scale. ``find_form`` looks at a whole
scan, since a lung mask in HU is three-dimensional; ``preprocessing.pack`` and ``on_grid`` apply the
form of each slice.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Num

from covid_jax.transforms.grey_scale import GreyScale, find_grey_scales, looks_like_hounsfield
from covid_jax.transforms.lungs import Box, Lungs, find_lungs


class InputForm(NamedTuple):
    """How one slice becomes the network's input.

    Attributes:
      box: rows and columns that the network sees; None: all of them.
      scale: the grey scale of its intensities; None: raw intensities.
    """

    box: Box | None = None
    scale: GreyScale | None = None

    def cropped(self, image: Num[np.ndarray, "h w"]) -> Num[np.ndarray, "a b"]:
        """The part of a slice, or of its mask, that the network sees."""
        return image if self.box is None else image[self.box]

    def scaled(self, image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        """Intensities on the form's grey scale."""
        return image if self.scale is None else self.scale.apply(image)


class ScanForm(NamedTuple):
    """How the slices of a scan become the network's input.

    Attributes:
      slices: the form of each.
      lungs: mask and hull of the lungs; None if they were not needed.
      hounsfield: whether the scan's intensities were treated as HU.
    """

    slices: list[InputForm]
    lungs: Lungs | None = None
    hounsfield: bool = False

    @property
    def warnings(self) -> list[str]:
        """Warnings about uncertain parts of the form, one sentence each."""
        scales = [form.scale for form in self.slices]
        reasons = [scale.fallback for scale in scales if scale and scale.fallback]
        guess = f"the grey scale of {len(reasons)} slices is a guess: "
        return [guess + reason for reason in reasons[:1]]


def find_form(
    stack: Num[np.ndarray, "n h w"], *, crop: bool, grey_scale: bool, inside_lungs: bool = False
) -> ScanForm:
    """The input form of a scan.

    Args:
      stack: the scan's slices in display orientation and in order; pictures one by one.
      crop: crop each slice to the box of the lungs. A slice without lung is not cropped.
      grey_scale: map lung and soft tissue to fixed values.
      inside_lungs: find the lungs even if slices are not cropped to them.
    """
    if not (crop or grey_scale or inside_lungs):
        return ScanForm([InputForm()] * len(stack))
    hounsfield = looks_like_hounsfield(stack)
    lungs = find_lungs(stack, hounsfield) if crop or inside_lungs or not hounsfield else None
    none = [None] * len(stack)
    boxes = [lungs.box(k) for k in range(len(stack))] if crop and lungs else none
    mask = lungs.mask if lungs else None
    scales = find_grey_scales(stack, hounsfield, mask) if grey_scale else none
    return ScanForm([*map(InputForm, boxes, scales)], lungs, hounsfield)
