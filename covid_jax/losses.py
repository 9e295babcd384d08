"""Region losses from logits: Dice, Tversky, focal Tversky; finite, with their gradients.

``alpha`` weights false negatives and ``beta`` false positives, as the paper does; MONAI,
segmentation_models.pytorch and optax name them the other way round.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Shaped

AXES = ((1, 2), (0, 1, 2))
LEAST_SMOOTH = 1e-12  # below, 1/smooth^2 in the gradient overflows float32


def tversky_index(
    logits: Float[Array, "b h w c"],
    labels: Shaped[Array, "b h w c"],
    *,
    alpha: float = 0.7,
    beta: float = 0.3,
    smooth: float = 1e-6,
    axis: tuple[int, ...] = (1, 2),
    where: Shaped[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Tversky index of each class, in [0, 1]; 1 is a perfect match.

    ``TI = (TP + s) / (TP + alpha FN + beta FP + s)`` with soft counts ``TP = sum p g``,
    ``FN = sum (1 - p) g``, ``FP = sum p (1 - g)``.

    Args:
      logits: one channel (read through a sigmoid), or K + 1 channels (softmax, background first).
      labels: the same shape, values in {0, 1}.
      alpha: weight of false negatives.
      beta: weight of false positives.
      smooth: s, keeps an empty mask predicted empty from dividing by zero.
      axis: ``(1, 2)`` counts over each slice, ``(0, 1, 2)`` over the batch.
      where: broadcastable to (B, H, W, 1); pixels where it is false do not count, whatever they
        hold.

    Returns:
      (B, classes) for ``axis=(1, 2)``, (classes,) for ``axis=(0, 1, 2)``; float32. The background
      of a softmax is left out.

    Raises:
      ValueError: on shapes that differ or are not (B, H, W, C), on another axis, on a
        ``where`` that does not fit, on negative alpha or beta, on smooth under 1e-12.

    References:
      Tversky, "Features of similarity", 1977; Salehi et al., 2017 (arXiv 1706.05721);
      Zhou, Canu, Ruan 2020, Eq. 10.
    """
    return 1.0 - _tversky_distance(logits, labels, alpha, beta, smooth, axis, where)


def dice_loss(
    logits: Float[Array, "b h w c"],
    labels: Shaped[Array, "b h w c"],
    *,
    smooth: float = 1e-6,
    axis: tuple[int, ...] = (1, 2),
    where: Shaped[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """``sum_c (1 - DSC_c)``: the Tversky loss at alpha = beta = 1/2.

    The paper's Eq. 8 lacks the factor 2 of the Dice coefficient; this is the coefficient itself.
    Arguments, returns and errors are those of ``focal_tversky_loss``.
    """
    return tversky_loss(logits, labels, alpha=0.5, beta=0.5, smooth=smooth, axis=axis, where=where)


def tversky_loss(
    logits: Float[Array, "b h w c"],
    labels: Shaped[Array, "b h w c"],
    *,
    alpha: float = 0.7,
    beta: float = 0.3,
    smooth: float = 1e-6,
    axis: tuple[int, ...] = (1, 2),
    where: Shaped[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """``sum_c (1 - TI_c)``. Arguments, returns and errors are those of ``focal_tversky_loss``."""
    return _tversky_distance(logits, labels, alpha, beta, smooth, axis, where).sum(axis=-1)


def focal_tversky_loss(
    logits: Float[Array, "b h w c"],
    labels: Shaped[Array, "b h w c"],
    *,
    alpha: float = 0.7,
    beta: float = 0.3,
    gamma: float = 4 / 3,
    smooth: float = 1e-6,
    axis: tuple[int, ...] = (1, 2),
    where: Shaped[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Focal Tversky loss ``sum_c (1 - TI_c) ** (1 / gamma)``.

    The exponent is 1/gamma: 0.75 for the paper's gamma = 4/3. The power's slope is infinite at
    TI = 1; there (a perfect, saturated prediction, or an empty slice predicted empty) the loss is 0
    and its gradient is defined as 0, so value and gradient are finite for every finite input.

    Args:
      logits: (B, H, W, 1) for one lesion class, (B, H, W, K + 1) for K > 1, background first.
        Any float type; computed in float32.
      labels: the same shape, values in {0, 1}.
      alpha: weight of false negatives, >= 0.
      beta: weight of false positives, >= 0.
      gamma: in [1, 3]; 1 is the Tversky loss.
      smooth: see ``tversky_index``.
      axis: ``(1, 2)`` for a loss per slice, ``(0, 1, 2)`` for one pooled over the batch.
      where: broadcastable to (B, H, W, 1); pixels where it is false do not count.

    Returns:
      (B,) or, pooled, (); float32; classes summed.

    Raises:
      ValueError: as ``tversky_index``, and on gamma outside [1, 3].

    Example:
      >>> logits = jnp.array([[1.0, -1.0], [-1.0, 1.0]])[None, :, :, None]
      >>> labels = jnp.array([[1, 0], [1, 1]])[None, :, :, None]
      >>> print(focal_tversky_loss(logits, labels).round(6))
      [0.463661]

    References:
      Abraham, Khan, "A novel focal Tversky loss function", ISBI 2019 (arXiv 1810.07842);
      Zhou, Canu, Ruan 2020, Eq. 11.
    """
    if not 1.0 <= gamma <= 3.0:
        raise ValueError(f"gamma must lie in [1, 3], got {gamma}")
    distance = _tversky_distance(logits, labels, alpha, beta, smooth, axis, where)
    # A double where: the branch not taken must not see the base whose derivative is infinite.
    zero = distance <= jnp.finfo(jnp.float32).tiny  # false for NaN, which must stay NaN
    base = jnp.where(zero, 1.0, distance)
    return jnp.where(zero, 0.0, base ** (1.0 / gamma)).sum(axis=-1)


def with_cross_entropy(
    region_loss: Callable[..., Float[Array, "..."]], weight: float
) -> Callable[..., Float[Array, "..."]]:
    """A region loss where there is lesion, plus cross-entropy everywhere.

    ``[any g] region_loss + weight CE``. A region loss is flat on an empty mask, so that slices
    without lesion teach nothing; the cross-entropy of their pixels does.

    Args:
      region_loss: such as ``focal_tversky_loss``: logits, labels and ``where`` to a loss per
        example (B,) or, pooled, one for the batch ().
      weight: of the cross-entropy, >= 0: the mean over the pixels of an example (of the batch).

    Returns:
      A loss that takes what ``region_loss`` takes, of the same shape.

    Raises:
      ValueError: if the weight is negative or not finite.
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight must be finite and not negative, got {weight}")

    def loss(logits, labels, *, where=None):
        region = region_loss(logits, labels, where=where)
        counts = jnp.broadcast_to(True if where is None else where, (*logits.shape[:-1], 1))
        counts = counts.astype(bool)
        logits = jnp.where(counts, jnp.asarray(logits, jnp.float32), 0.0)
        labels = jnp.where(counts, jnp.asarray(labels, jnp.float32), 0.0)
        axes = tuple(range(region.ndim, logits.ndim))
        if logits.shape[-1] == 1:
            entropy, lesion = optax.sigmoid_binary_cross_entropy(logits, labels), labels
        else:
            entropy = optax.softmax_cross_entropy(logits, labels)[..., None]
            lesion = labels[..., 1:]
        # At least one: an example without any pixel that counts costs nothing.
        pixels = jnp.maximum(jnp.sum(counts, axes, dtype=jnp.float32), 1.0)
        mean = jnp.sum(entropy, axes, where=counts) / pixels
        return jnp.where(jnp.any(lesion > 0, axes), region, 0.0) + weight * mean

    return loss


def _tversky_distance(logits, labels, alpha, beta, smooth, axis, where):
    """``1 - TI`` as ``(alpha FN + beta FP) / (...)``: a small one is not a difference of ones."""
    if not (0 <= alpha < math.inf and 0 <= beta < math.inf):
        raise ValueError(
            f"alpha and beta must be finite and not negative, got alpha={alpha}, beta={beta}"
        )
    if not LEAST_SMOOTH <= smooth < math.inf:
        raise ValueError(f"smooth must be finite and at least {LEAST_SMOOTH}, got {smooth}")
    if axis not in AXES:
        raise ValueError(f"axis must be one of {AXES}, got {axis}")
    tp, fn, fp = _soft_counts(logits, labels, axis, where)
    missed = alpha * fn + beta * fp
    return missed / (tp + missed + smooth)


class _SoftCounts(NamedTuple):
    tp: Float[Array, "..."]
    fn: Float[Array, "..."]
    fp: Float[Array, "..."]


def _soft_counts(logits, labels, axis, where) -> _SoftCounts:
    """Soft confusion counts of the lesion classes over ``axis``, in float32."""
    if logits.ndim != 4:
        raise ValueError(f"logits must be (B, H, W, C), got shape {logits.shape}")
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels must have the shape of logits, {logits.shape}, got {labels.shape}"
        )
    logits = jnp.asarray(logits, jnp.float32)
    labels = jnp.asarray(labels, jnp.float32)
    pixels = (*logits.shape[:3], 1)
    counts = jnp.broadcast_to(True if where is None else where, pixels).astype(bool)
    logits = jnp.where(counts, logits, 0.0)  # before the sigmoid: NaN in padding must not spread
    if logits.shape[-1] == 1:
        p, not_p = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    else:
        log_p = jax.nn.log_softmax(logits)
        p, not_p = jnp.exp(log_p)[..., 1:], -jnp.expm1(log_p)[..., 1:]
        labels = labels[..., 1:]
    return _SoftCounts(
        tp=jnp.sum(p * labels, axis=axis, where=counts),
        fn=jnp.sum(not_p * labels, axis=axis, where=counts),
        fp=jnp.sum(p * (1.0 - labels), axis=axis, where=counts),
    )
