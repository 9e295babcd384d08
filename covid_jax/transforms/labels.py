"""Class ids of pixels: one-hot labels for the losses, class ids and masks from scores."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Integer, UInt8

AnyArray = Array | np.ndarray
Scores = Float[AnyArray, "... h w c"]  # probabilities or logits
LESION = "lesion"  # the class of all lesions together


def one_hot(ids: Integer[Array, "b h w"], classes: int) -> Float[Array, "b h w c"]:
    """One-hot labels for the losses: one channel for one class, else background first."""
    if classes == 1:
        return (ids > 0)[..., None].astype(jnp.float32)
    return jax.nn.one_hot(ids, classes + 1)


def predict_labels(scores: Scores, threshold: float) -> UInt8[AnyArray, "... h w"]:
    """Class ids: 1 above the threshold for one channel, else the channel of the highest score."""
    if scores.shape[-1] == 1:
        return (scores[..., 0] > threshold).astype(np.uint8)
    return scores.argmax(-1).astype(np.uint8)


def lesion_probability(scores: Float32[np.ndarray, "*v h w c"]) -> Float32[np.ndarray, "*v h w"]:
    """Probability of any lesion class: the only channel, or 1 - background."""
    return scores[..., 0] if scores.shape[-1] == 1 else np.clip(1 - scores[..., 0], 0, 1)


def class_names(targets: tuple[str, ...]) -> tuple[str, ...]:
    """Names of what is scored: the lesion and, with several target classes, each of them."""
    return (targets or (LESION,)) if len(targets) < 2 else (LESION, *targets)


def class_masks(ids: Integer[AnyArray, "*b h w"], classes: int) -> list[Bool[AnyArray, "*b h w"]]:
    """The mask of each of ``class_names``."""
    masks = [ids == k for k in range(1, classes + 1)]
    return masks if classes == 1 else [ids > 0, *masks]
