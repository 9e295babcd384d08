"""Segmentation losses from logits: Dice, Tversky, focal Tversky and cross-entropy.

``alpha`` weights false negatives and ``beta`` false positives, as in the paper; MONAI,
segmentation_models.pytorch and optax swap the two names.

Every function takes logits and labels of any rank, ``(B, ..., C)``, and computes in float32.
``axis`` gives the axes over which pixels are summed. ``None`` means all axes except batch and
channel: one value per example. ``(0, 1, 2)`` for (B, H, W, C), all axes except the channel, gives
one value for the batch.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

Logits = Float[Array | np.ndarray, "b *pixels c"]
Labels = Shaped[Array | np.ndarray, "b *pixels c"]
Axis = tuple[int, ...] | None
Where = Shaped[Array | np.ndarray, "..."] | None
Loss = Callable[..., Float[Array, "..."]]  # loss(logits, labels, where=None) -> (B,) or ()

MIN_SMOOTH = 1e-12  # below, 1 / smooth**2 in the gradient overflows float32
_MIN_LOG = -1e30  # of a probability, so that sums of logarithms over pixels are finite


def tversky_index(
    logits: Logits,
    labels: Labels,
    *,
    alpha: float = 0.7,
    beta: float = 0.3,
    smooth: float = 1e-6,
    axis: Axis = None,
    where: Where = None,
) -> Float[Array, "... classes"]:
    """Tversky index of each class, in [0, 1]; 1 is a perfect match.

    ``TI = (TP + s) / (TP + alpha FN + beta FP + s)`` with soft counts ``TP = sum p g``,
    ``FN = sum (1 - p) g``, ``FP = sum p (1 - g)``.

    Args:
      logits: (B, ..., 1), taken through a sigmoid, or (B, ..., K + 1), taken through a softmax, for
        K classes after the background.
      labels: the same shape, values in {0, 1}.
      alpha: weight of false negatives, >= 0.
      beta: weight of false positives, >= 0.
      smooth: s, which prevents 0/0 if mask and prediction are empty.
      axis: None for an index per example, ``(0, 1, 2)`` (all axes but the channel) for one over
        the batch.
      where: broadcastable to (B, ..., 1); pixels where it is false are ignored, even NaN.

    Returns:
      (B, classes), or (classes,) over the batch; float32. The background is left out.

    Raises:
      ValueError: if the shapes differ or are not (B, ..., C), ``axis`` is neither of the two,
        ``where`` does not broadcast, alpha or beta is negative, or smooth is below 1e-12.

    References:
      Tversky, "Features of similarity", 1977; Salehi et al., 2017 (arXiv 1706.05721);
      Zhou, Canu, Ruan 2020, Eq. 10.
    """
    return 1.0 - _tversky_distance(logits, labels, alpha, beta, smooth, axis, where)


def dice_loss(
    logits: Logits, labels: Labels, *, smooth: float = 1e-6, axis: Axis = None, where: Where = None
) -> Float[Array, "..."]:
    """``sum_c (1 - DSC_c)``: the Tversky loss at alpha = beta = 1/2.

    The paper's Eq. 8 omits the factor 2 of the Dice coefficient; this function includes it.
    Arguments, returns and errors are those of ``focal_tversky_loss``.
    """
    return tversky_loss(logits, labels, alpha=0.5, beta=0.5, smooth=smooth, axis=axis, where=where)


def tversky_loss(
    logits: Logits,
    labels: Labels,
    *,
    alpha: float = 0.7,
    beta: float = 0.3,
    smooth: float = 1e-6,
    axis: Axis = None,
    where: Where = None,
) -> Float[Array, "..."]:
    """``sum_c (1 - TI_c)``. Arguments, returns and errors are those of ``focal_tversky_loss``."""
    return _tversky_distance(logits, labels, alpha, beta, smooth, axis, where).sum(axis=-1)


def focal_tversky_loss(
    logits: Logits,
    labels: Labels,
    *,
    alpha: float = 0.7,
    beta: float = 0.3,
    gamma: float = 4 / 3,
    smooth: float = 1e-6,
    axis: Axis = None,
    where: Where = None,
) -> Float[Array, "..."]:
    """Focal Tversky loss ``sum_c (1 - TI_c) ** (1 / gamma)``.

    The exponent is 1/gamma: 0.75 for the paper's gamma = 4/3. The power's derivative is infinite at
    TI = 1; there (a perfect, saturated prediction, or an empty slice predicted empty) the loss is 0
    and its gradient is defined as 0, so value and gradient are finite for every finite input.

    Args:
      logits: (B, ..., 1) for one lesion class, (B, ..., K + 1) for K > 1, background first, such as
        (B, H, W, C) or (B, D, H, W, C). Any float dtype.
      labels: the same shape, values in {0, 1}.
      alpha: weight of false negatives, >= 0.
      beta: weight of false positives, >= 0.
      gamma: in [1, 3]; 1 gives the Tversky loss.
      smooth: see ``tversky_index``.
      axis: None for a loss per example, ``(0, 1, 2)`` (all axes but the channel) for one pooled
        over the batch.
      where: broadcastable to (B, ..., 1); pixels where it is false are ignored.

    Returns:
      (B,) or, pooled, (); float32; classes summed.

    Raises:
      ValueError: as ``tversky_index``, and if gamma is outside [1, 3].

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
    # Two wheres: the power must not be evaluated where its derivative is infinite.
    zero = distance <= jnp.finfo(jnp.float32).tiny  # false for NaN, which must stay NaN
    base = jnp.where(zero, 1.0, distance)
    return jnp.where(zero, 0.0, base ** (1.0 / gamma)).sum(axis=-1)


def binary_cross_entropy(
    logits: Logits, labels: Labels, *, axis: Axis = None, where: Where = None
) -> Float[Array, "..."]:
    """Mean cross-entropy over pixels: binary for one channel, of the softmax for several.

    Arguments, returns and errors are those of ``focal_tversky_loss``. The result is 0 for an
    example if ``where`` ignores all its pixels.

    Example:
      >>> print(binary_cross_entropy(jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1))).round(6))
      [0.693147]
    """
    logits, labels, counted, axis = _prepare(logits, labels, axis, where)
    if logits.shape[-1] == 1:
        log_p, log_not_p = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        terms = labels * jnp.maximum(log_p, _MIN_LOG)
        terms += (1.0 - labels) * jnp.maximum(log_not_p, _MIN_LOG)
    else:
        terms = labels * jnp.maximum(jax.nn.log_softmax(logits), _MIN_LOG)
    total = -jnp.sum(terms, axis=(*axis, -1), where=counted)
    return total / jnp.maximum(counted.sum(axis=(*axis, -1), dtype=jnp.float32), 1.0)


def with_cross_entropy(region_loss: Loss, weight: float) -> Loss:
    """A region loss where there is a lesion, plus weighted cross-entropy everywhere.

    ``region_loss * [lesion in the labels] + weight * binary_cross_entropy``. Without a lesion the
    region losses are 1 for every prediction that is not empty, and give no gradient; therefore
    examples without lesion contribute only cross-entropy. If ``region_loss`` pools over the batch,
    the cross-entropy does so too, and the region loss counts if any example has a lesion. A class
    that an example lacks still adds its constant 1 if the example shows another one.

    Args:
      region_loss: ``loss(logits, labels, where=None)`` that returns (B,) or (), such as
        ``focal_tversky_loss`` or a ``functools.partial`` of it.
      weight: of the cross-entropy, >= 0.

    Returns:
      ``loss(logits, labels, where=None)``, with the same shape of result as ``region_loss``.

    Raises:
      ValueError: if weight is negative or not finite.
    """
    if not 0 <= weight < math.inf:
        raise ValueError(f"weight must be finite and not negative, got {weight}")

    def loss(logits: Logits, labels: Labels, where: Where = None) -> Float[Array, "..."]:
        region = region_loss(logits, labels, where=where)
        axis = None if region.ndim else tuple(range(logits.ndim - 1))
        entropy = binary_cross_entropy(logits, labels, axis=axis, where=where)
        _, labels, counted, axis = _prepare(logits, labels, axis, where)
        lesions = labels if labels.shape[-1] == 1 else labels[..., 1:]
        has_lesion = jnp.any((lesions > 0) & counted, axis=(*axis, -1))
        return jnp.where(has_lesion, region, 0.0) + weight * entropy

    return loss


def _tversky_distance(logits, labels, alpha, beta, smooth, axis, where):
    """``1 - TI`` as ``(alpha FN + beta FP) / (...)``, as subtracting from 1 loses precision."""
    if not (0 <= alpha < math.inf and 0 <= beta < math.inf):
        raise ValueError(f"alpha and beta must be finite and not negative, got {alpha=}, {beta=}")
    if not MIN_SMOOTH <= smooth < math.inf:
        raise ValueError(f"smooth must be finite and at least {MIN_SMOOTH}, got {smooth}")
    logits, labels, counted, axis = _prepare(logits, labels, axis, where)
    if logits.shape[-1] == 1:
        p, not_p = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    else:
        log_p = jax.nn.log_softmax(logits)
        p, not_p = jnp.exp(log_p)[..., 1:], -jnp.expm1(log_p)[..., 1:]
        labels = labels[..., 1:]
    tp = jnp.sum(p * labels, axis=axis, where=counted)
    fn = jnp.sum(not_p * labels, axis=axis, where=counted)
    fp = jnp.sum(p * (1.0 - labels), axis=axis, where=counted)
    missed = alpha * fn + beta * fp
    return missed / (tp + missed + smooth)


def _prepare(logits, labels, axis, where) -> tuple[Array, Array, Array, tuple[int, ...]]:
    """Logits and labels checked and in float32, ``where`` and ``axis`` in full.

    Logits are 0 where they do not count: NaN in padding must not spread.
    """
    if logits.ndim < 2:
        raise ValueError(f"logits must be (B, ..., C), got shape {logits.shape}")
    if labels.shape != logits.shape:
        raise ValueError(f"labels need the shape of logits, {logits.shape}, got {labels.shape}")
    per_example, pooled = tuple(range(1, logits.ndim - 1)), tuple(range(logits.ndim - 1))
    axis = per_example if axis is None else axis
    if axis not in (per_example, pooled):
        choices = f"None or {per_example} (per example) or {pooled} (pooled over the batch)"
        raise ValueError(f"axis must be {choices} for logits of shape {logits.shape}, got {axis}")
    logits = jnp.asarray(logits, jnp.float32)
    counted = jnp.broadcast_to(True if where is None else where, (*logits.shape[:-1], 1))
    counted = counted.astype(bool)
    return jnp.where(counted, logits, 0.0), jnp.asarray(labels, jnp.float32), counted, axis
