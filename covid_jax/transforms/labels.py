"""Class ids of pixels: to the channels a loss takes, from the channels a network gives."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Integer, UInt8

from covid_jax.data.scan import LESION


def one_hot(ids: Integer[Array, "b h w"], classes: int) -> Float[Array, "b h w c"]:
    """Labels as the losses take them: one channel for one class, else background first."""
    if classes == 1:
        return (ids > 0)[..., None].astype(jnp.float32)
    return jax.nn.one_hot(ids, classes + 1)


def predict_labels(
    scores: Float[Array | np.ndarray, "... h w c"], threshold: float
) -> UInt8[Array | np.ndarray, "... h w"]:
    """Class ids: above the threshold for one channel, else the channel with the highest score."""
    if scores.shape[-1] == 1:
        return (scores[..., 0] > threshold).astype(np.uint8)
    return scores.argmax(-1).astype(np.uint8)


def lesion_probability(scores: Float32[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w"]:
    """Of any lesion class: the one channel, or all but the background's."""
    return scores[..., 0] if scores.shape[-1] == 1 else np.clip(1 - scores[..., 0], 0, 1)


def class_names(targets: tuple[str, ...]) -> tuple[str, ...]:
    """What is scored: the lesion, and where several classes are told apart, each of them."""
    return (targets or (LESION,)) if len(targets) < 2 else (LESION, *targets)


def class_masks(
    ids: Integer[Array | np.ndarray, "*b h w"], classes: int
) -> list[Bool[Array | np.ndarray, "*b h w"]]:
    """The pixels of each of ``class_names``."""
    each = [ids == k for k in range(1, classes + 1)]
    return each if classes == 1 else [ids > 0, *each]
