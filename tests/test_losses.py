"""The losses against MONAI, optax, plain NumPy in float64, and what must hold for any input."""

import functools
import inspect
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads
from jax.typing import DTypeLike

from covid_jax.losses import (
    binary_cross_entropy,
    dice_loss,
    focal_tversky_loss,
    tversky_index,
    tversky_loss,
    with_cross_entropy,
)
from tests.support.annotations import unchecked

LOSSES = [dice_loss, tversky_loss, focal_tversky_loss]

# Of MONAI's tests/losses/test_tversky_loss.py: one example, one class.
LOGITS = jnp.array([[1.0, -1.0], [-1.0, 1.0]]).reshape(1, 2, 2, 1)
LABELS = jnp.array([[1, 0], [1, 1]]).reshape(1, 2, 2, 1)


def reference(
    logits: Any,
    labels: Any,
    alpha: float = 0.7,
    beta: float = 0.3,
    gamma: float = 4 / 3,
    smooth: float = 1e-6,
    axis: tuple[int, ...] = (1, 2),
) -> np.ndarray:
    """Focal Tversky loss by the paper's formula, in float64; 1 - p as the other side's p."""
    z, g = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    if z.shape[-1] == 1:
        p, q = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))
    else:
        e = np.exp(z - z.max(-1, keepdims=True))
        p = e / e.sum(-1, keepdims=True)
        q = (e.sum(-1, keepdims=True) - e) / e.sum(-1, keepdims=True)
        p, q, g = p[..., 1:], q[..., 1:], g[..., 1:]
    tp, fn, fp = (p * g).sum(axis), (q * g).sum(axis), (p * (1 - g)).sum(axis)
    distance = (alpha * fn + beta * fp) / (tp + alpha * fn + beta * fp + smooth)
    return (distance ** (1 / gamma)).sum(-1)


def one_hot(classes: Any, channels: int) -> np.ndarray:
    """Class numbers as labels: themselves for one channel, else one-hot, background first."""
    classes = np.asarray(classes)
    if channels == 1:
        return (classes[..., None] > 0).astype(np.float32)
    return np.eye(channels, dtype=np.float32)[classes]


def example(channels: int, batch: int = 3, side: int = 5) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(channels)
    labels = one_hot(rng.integers(0, max(channels, 2), (batch, side, side)), channels)
    logits = rng.normal(size=labels.shape)
    return jnp.float32(logits), jnp.asarray(labels)


@pytest.mark.parametrize(
    ("alpha", "beta", "smooth", "tversky", "focal"),
    [
        # Rows 1-3, 1 - TI: MONAI's tests/losses/test_tversky_loss.py, whose alpha and beta are
        # swapped. Rows 2 and 4: also optax 0.2.8's dice_loss(alpha=0.3, beta=0.7).
        # The last column is the one before it to the power 3/4.
        (0.5, 0.5, 1e-6, 0.307576, 0.413014),
        (0.7, 0.3, 1e-6, 0.358867, 0.463661),
        (0.3, 0.7, 1e-6, 0.247366, 0.350756),
        (0.7, 0.3, 1.0, 0.261876, 0.366076),
    ],
)
def test_golden_values(
    alpha: float, beta: float, smooth: float, tversky: float, focal: float
) -> None:
    options = {"alpha": alpha, "beta": beta, "smooth": smooth}
    index = tversky_index(LOGITS, LABELS, **options)
    np.testing.assert_allclose(index, [[1 - tversky]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(tversky_loss(LOGITS, LABELS, **options), [tversky], 0, 1e-6)
    np.testing.assert_allclose(focal_tversky_loss(LOGITS, LABELS, **options), [focal], 0, 1e-6)


def test_defaults_are_the_papers() -> None:
    """0.7, 0.3, 4/3 and the Dice loss' halves: rows 2 and 1 of the golden values."""
    np.testing.assert_allclose(focal_tversky_loss(LOGITS, LABELS), [0.463661], 0, 1e-6)
    np.testing.assert_allclose(tversky_loss(LOGITS, LABELS), [0.358867], 0, 1e-6)
    np.testing.assert_allclose(dice_loss(LOGITS, LABELS), [0.307576], 0, 1e-6)


@pytest.mark.parametrize("gamma", [1.0, 4 / 3, 2.0, 3.0])
def test_the_exponent_is_one_over_gamma(gamma: float) -> None:
    """The paper's text lets one read 1.333 as the exponent: that would be 0.255022 at 4/3."""
    loss = focal_tversky_loss(LOGITS, LABELS, gamma=gamma)
    np.testing.assert_allclose(loss, [0.358867 ** (1 / gamma)], rtol=0, atol=2e-6)
    assert abs(float(loss[0]) - 0.255022) > 0.1


def test_softmax_as_monai() -> None:
    """MONAI's case with softmax and without reduction: its second column, the foreground's."""
    logits = jnp.array([[[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]], [[0.0] * 3, [0.0] * 3]])
    foreground = jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    labels = jnp.stack([1 - foreground, foreground], axis=1)  # channels before pixels, as there
    logits, labels = (jnp.moveaxis(x, 1, -1)[:, None] for x in (logits, labels))
    loss = dice_loss(logits, labels, smooth=1e-4)
    np.testing.assert_allclose(loss, [0.295339, 0.428547], rtol=0, atol=2e-6)


@pytest.mark.skipif(
    "alpha" not in inspect.signature(optax.losses.dice_loss).parameters,
    reason="the Dice loss of this optax has no weights",
)
@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("axis", [(1, 2), (0, 1, 2)])
@pytest.mark.parametrize(("alpha", "beta"), [(0.7, 0.3), (0.2, 1.5)])
def test_tversky_as_optax(channels: int, axis: tuple[int, ...], alpha: float, beta: float) -> None:
    """optax's alpha weighs false positives, its beta false negatives."""
    logits, labels = example(channels)
    theirs = optax.losses.dice_loss(
        logits,
        labels,
        smooth=1e-3,
        alpha=beta,
        beta=alpha,
        axis=axis,
        reduction="none",
        ignore_background=True,
    )
    options = {"alpha": alpha, "beta": beta, "smooth": 1e-3, "axis": axis}
    index = tversky_index(logits, labels, **options)
    assert index.shape == theirs.shape == (*(3,) * (axis == (1, 2)), max(channels - 1, 1))
    np.testing.assert_allclose(1 - index, theirs, rtol=1e-5)
    np.testing.assert_allclose(tversky_loss(logits, labels, **options), theirs.sum(-1), rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("axis", [(1, 2), (0, 1, 2)])
@pytest.mark.parametrize("gamma", [4 / 3, 3.0])
def test_focal_as_numpy(channels: int, axis: tuple[int, ...], gamma: float) -> None:
    """Classes are raised to the power one by one, then summed."""
    logits, labels = example(channels)
    options = {"alpha": 0.6, "beta": 0.2, "gamma": gamma, "smooth": 0.1, "axis": axis}
    loss = focal_tversky_loss(logits, labels, **options)
    expected = reference(logits, labels, **options)
    assert loss.shape == expected.shape
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float32, jnp.bfloat16])
def test_labels_of_any_type(dtype: DTypeLike) -> None:
    loss = focal_tversky_loss(LOGITS, LABELS.astype(dtype))
    np.testing.assert_allclose(loss, [0.463661], rtol=0, atol=1e-6)


def test_bfloat16_logits_are_computed_in_float32() -> None:
    """The golden logits are exact in bfloat16: so is, to float32's precision, the loss."""
    loss = focal_tversky_loss(LOGITS.astype(jnp.bfloat16), LABELS)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, [0.463661], rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", [*LOSSES, binary_cross_entropy])
@pytest.mark.parametrize("channels", [1, 4])
def test_gradients_are_the_finite_differences(loss: Any, channels: int) -> None:
    logits, labels = example(channels)
    f = jax.jit(lambda z: loss(z, labels))
    check_grads(f, (logits,), order=1, atol=2e-3, rtol=2e-3, eps=1e-2)


# Predicted and true class of every pixel, at saturated logits, and the losses' value: 0 or 1 for
# each lesion class with a pixel in either.
EXTREMES = {
    "perfect": (1, 1, 0.0),
    "empty predicted empty": (0, 0, 0.0),
    "empty predicted full": (1, 0, 1.0),
    "missed": (0, 1, 1.0),
    "wrong class": (2, 1, 2.0),
}


@functools.partial(jax.jit, static_argnames=("loss", "axis"))
def value_and_gradient(
    logits: jax.Array, labels: jax.Array, loss: Any, axis: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    value = functools.partial(loss, labels=labels, axis=axis)
    return value(logits), jax.grad(lambda z: value(z).sum())(logits)


@pytest.mark.parametrize(
    ("loss", "dtype", "axis"),
    [
        (focal_tversky_loss, jnp.float32, (1, 2)),
        (focal_tversky_loss, jnp.float32, (0, 1, 2)),
        (focal_tversky_loss, jnp.bfloat16, (1, 2)),
        (tversky_loss, jnp.bfloat16, (0, 1, 2)),
        (dice_loss, jnp.float32, (1, 2)),
    ],
)
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("side", [1, 16])
def test_saturated_predictions(
    loss: Any, dtype: DTypeLike, axis: tuple[int, ...], channels: int, side: int
) -> None:
    """Logits of +-120: 0 or 1 a class, and finite gradients, where naive powers give NaN."""
    for name, (predicted, true, expected) in EXTREMES.items():
        if max(predicted, true) >= max(channels, 2):
            continue
        shape = (1, side, side)
        logits = 240 * one_hot(np.full(shape, predicted), channels) - 120
        labels = one_hot(np.full(shape, true), channels)
        value, gradient = value_and_gradient(jnp.asarray(logits, dtype), labels, loss, axis)
        np.testing.assert_allclose(value.sum(), expected, rtol=0, atol=1e-5, err_msg=name)
        assert gradient.dtype == dtype
        chex.assert_tree_all_finite(gradient)


@pytest.mark.parametrize("magnitude", [1.0, 8.0, 20.0, 60.0])
@pytest.mark.parametrize("channels", [1, 4])
def test_large_slices_as_numpy(magnitude: float, channels: int) -> None:
    """512 x 512, on the way to saturation; slices predicted well, empty and wrongly full."""
    classes = np.zeros((3, 512, 512), int)
    classes[0, 100:150, 200:300] = 1
    labels = one_hot(classes, channels)
    classes[2] = 1
    logits = magnitude * (2 * one_hot(classes, channels) - 1)
    value, gradient = value_and_gradient(jnp.asarray(logits), labels, focal_tversky_loss, (1, 2))
    np.testing.assert_allclose(value, reference(logits, labels), rtol=1e-4, atol=1e-5)
    chex.assert_tree_all_finite(gradient)


@pytest.mark.parametrize("magnitude", [8.0, 12.0, 16.0])
def test_a_nearly_perfect_prediction_keeps_its_digits(magnitude: float) -> None:
    """1 - TI of 1e-4 and less, where subtracting float32s would leave three digits or none."""
    labels = np.zeros((1, 4, 4, 1), np.float32)
    labels[0, :2] = 1
    logits = magnitude * (2 * labels - 1)
    loss = focal_tversky_loss(jnp.asarray(logits), labels)
    np.testing.assert_allclose(loss, reference(logits, labels), rtol=1e-5)


def test_gradient_of_an_empty_slice() -> None:
    """By the chain rule: L = d^3/4, d = 0.3 F / (0.3 F + s), F = 16 sigmoid(-3), s = 1."""
    logits = jnp.full((1, 4, 4, 1), -3.0)
    loss = lambda z: focal_tversky_loss(z, jnp.zeros_like(z), smooth=1.0).sum()  # noqa: E731
    p = 1 / (1 + np.exp(3))
    missed = 0.3 * 16 * p
    slope = 0.75 * (missed / (missed + 1)) ** -0.25 * 0.3 / (missed + 1) ** 2 * p * (1 - p)
    np.testing.assert_allclose(jax.grad(loss)(logits), np.full((1, 4, 4, 1), slope), rtol=1e-5)


SHAPE = (1, 3, 4, 1)
soft = hnp.arrays(np.float32, SHAPE, elements=st.floats(-30, 30, width=32))
masks = hnp.arrays(np.bool_, SHAPE)
weights = st.floats(0, 2)
quick = settings(max_examples=25, deadline=None, derandomize=True)


@quick
@given(
    logits=hnp.arrays(np.float32, (2, 3, 4, 3), elements=st.floats(-200, 200, width=32)),
    classes=hnp.arrays(np.int64, (2, 3, 4), elements=st.integers(0, 2)),
    alpha=weights,
    beta=weights,
    gamma=st.floats(1, 3),
)
def test_between_zero_and_the_number_of_classes(
    logits: np.ndarray, classes: np.ndarray, alpha: float, beta: float, gamma: float
) -> None:
    options = {"alpha": alpha, "beta": beta, "gamma": gamma}
    loss = np.asarray(focal_tversky_loss(logits, one_hot(classes, 3), **options))
    assert loss.shape == (2,)
    assert (loss >= 0).all()
    assert (loss <= 2 + 1e-6).all()


@quick
@given(truth=masks)
def test_zero_at_perfection(truth: np.ndarray) -> None:
    logits = np.where(truth, np.float32(200), np.float32(-200))
    for loss in LOSSES:
        np.testing.assert_array_equal(loss(logits, truth), [0.0])


@quick
@given(prediction=masks, truth=masks, alpha=weights, beta=weights)
def test_exchanging_the_masks_exchanges_the_weights(
    prediction: np.ndarray, truth: np.ndarray, alpha: float, beta: float
) -> None:
    """False negatives of one are the other's false positives."""
    hard = lambda mask: np.where(mask, np.float32(200), np.float32(-200))  # noqa: E731
    one = tversky_index(hard(prediction), truth, alpha=alpha, beta=beta)
    other = tversky_index(hard(truth), prediction, alpha=beta, beta=alpha)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    tp, fn = (prediction & truth).sum(), (~prediction & truth).sum()
    fp = (prediction & ~truth).sum()
    counted = (tp + 1e-6) / (tp + alpha * fn + beta * fp + 1e-6)
    np.testing.assert_allclose(one, [[counted]], rtol=0, atol=1e-6)


@quick
@given(logits=soft, truth=masks)
def test_tversky_at_one_half_is_dice(logits: np.ndarray, truth: np.ndarray) -> None:
    """2 |PG| / (|P| + |G|), the usual way to write it, with the factor 2."""
    p, smooth = 1 / (1 + np.exp(-np.float64(logits))), 0.01
    coefficient = (2 * (p * truth).sum() + 2 * smooth) / (p.sum() + truth.sum() + 2 * smooth)
    halves = tversky_index(logits, truth, alpha=0.5, beta=0.5, smooth=smooth)
    np.testing.assert_allclose(halves, [[coefficient]], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        dice_loss(logits, truth, smooth=smooth), [1 - coefficient], rtol=0, atol=1e-6
    )


@quick
@given(logits=soft, truth=masks, order=st.permutations(range(12)))
def test_the_order_of_pixels_does_not_matter(
    logits: np.ndarray, truth: np.ndarray, order: list[int]
) -> None:
    shuffled, labels = (x.reshape(12)[order].reshape(1, 4, 3, 1) for x in (logits, truth))
    np.testing.assert_allclose(
        focal_tversky_loss(logits, truth), focal_tversky_loss(shuffled, labels), rtol=1e-4
    )


@jax.jit
@jax.value_and_grad
def of_what_counts(logits: jax.Array, labels: jax.Array, counted: jax.Array) -> jax.Array:
    return focal_tversky_loss(logits, labels, where=counted, smooth=0.01).sum()


@quick
@given(logits=soft, truth=masks, counted=masks, junk=st.sampled_from([np.nan, np.inf, 1e30, 3.0]))
def test_pixels_left_out_do_not_matter(
    logits: np.ndarray, truth: np.ndarray, counted: np.ndarray, junk: float
) -> None:
    """Whatever they hold, value and gradient are those of the pixels that count."""
    spoilt = np.where(counted, logits, np.float32(junk))
    labels = np.where(counted, truth, np.float32(junk))
    value, gradient = of_what_counts(spoilt, labels, counted)
    kept = counted.reshape(-1)
    expected = reference(
        logits.reshape(1, 1, 12, 1)[:, :, kept], truth.reshape(1, 1, 12, 1)[:, :, kept], smooth=0.01
    )
    np.testing.assert_allclose(value, expected.sum(), rtol=1e-4, atol=1e-6)
    chex.assert_tree_all_finite(gradient)
    np.testing.assert_array_equal(gradient[~counted], np.zeros((~counted).sum()))


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("axis", [(1, 2), (0, 1, 2)])
def test_padding_of_the_last_batch(channels: int, axis: tuple[int, ...]) -> None:
    """A slice that does not count adds nothing to the pool, and its own loss is 0."""
    logits, labels = example(channels)
    where = jnp.array([True, True, False]).reshape(3, 1, 1, 1)
    loss = focal_tversky_loss(logits.at[2].set(jnp.nan), labels, axis=axis, where=where)
    expected = reference(logits[:2], labels[:2], axis=axis)
    padded = np.append(expected, 0.0) if axis == (1, 2) else expected
    np.testing.assert_allclose(loss, padded, rtol=1e-5)


@pytest.mark.parametrize("loss", [*LOSSES, binary_cross_entropy])
@pytest.mark.parametrize("channels", [1, 4])
def test_losses_of_a_batch_are_those_of_its_slices(loss: Any, channels: int) -> None:
    logits, labels = example(channels)
    loss = jax.jit(loss)
    one_by_one = [loss(logits[i : i + 1], labels[i : i + 1])[0] for i in range(3)]
    assert np.ptp(one_by_one) > 0.01
    np.testing.assert_allclose(loss(logits, labels), one_by_one, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 4])
def test_pooled_is_one_long_slice(channels: int) -> None:
    """Counts over (0, 1, 2) are those of all slices' pixels laid side by side; not a mean."""
    logits, labels = example(channels)
    pooled = focal_tversky_loss(logits, labels, axis=(0, 1, 2))
    expected = reference(*(np.concatenate(list(x))[None] for x in (logits, labels)))
    np.testing.assert_allclose(pooled, expected[0], rtol=1e-5)
    assert abs(expected[0] - reference(logits, labels).mean()) > 1e-4


MISTAKES = [
    ({"logits": LOGITS.ravel()}, r"\(B, ..., C\), got shape \(4,\)"),
    ({"logits": LOGITS[None]}, r"shape of logits, \(1, 1, 2, 2, 1\), got \(1, 2, 2, 1\)"),
    ({"labels": LABELS[..., 0]}, r"shape of logits, \(1, 2, 2, 1\), got \(1, 2, 2\)"),
    ({"labels": LABELS[:, :1]}, r"shape of logits, \(1, 2, 2, 1\), got \(1, 1, 2, 1\)"),
    ({"smooth": 0.0}, "smooth must be finite and at least 1e-12, got 0.0"),
    ({"smooth": -1e-6}, "smooth must be finite and at least 1e-12, got -1e-06"),
    ({"axis": (2, 3)}, r"None or \(1, 2\) .* or \(0, 1, 2\) .*, got \(2, 3\)"),
    ({"axis": (0,)}, r"None or \(1, 2\) .* or \(0, 1, 2\) .*, got \(0,\)"),
    ({"where": jnp.ones((1, 3, 2, 1), bool)}, r"\[1,3,2,1\]"),
    ({"alpha": -0.1}, "must be finite and not negative, got alpha=-0.1, beta=0.3"),
    ({"beta": -2}, "must be finite and not negative, got alpha=0.7, beta=-2"),
    ({"gamma": 0.75}, r"gamma must lie in \[1, 3\], got 0.75"),
    ({"gamma": 3.5}, r"gamma must lie in \[1, 3\], got 3.5"),
    ({"gamma": float("nan")}, r"gamma must lie in \[1, 3\], got nan"),
]


@pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
        (loss, options, message)
        for loss in (tversky_index, *LOSSES, binary_cross_entropy)
        for options, message in MISTAKES
        if set(options) <= set(inspect.signature(loss).parameters)
    ],
)
def test_mistakes_are_named(loss: Any, options: dict[str, Any], message: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        loss(**({"logits": LOGITS, "labels": LABELS} | options))


@pytest.mark.parametrize(
    "loss", [*LOSSES, binary_cross_entropy, with_cross_entropy(focal_tversky_loss, 0.5)]
)
def test_a_network_that_returns_nan_is_never_perfect(loss: Any) -> None:
    """Zero would make a diverged run the best one."""
    assert np.isnan(loss(jnp.full((1, 4, 4, 1), jnp.nan), jnp.ones((1, 4, 4, 1)))).all()


@pytest.mark.parametrize("loss", [focal_tversky_loss, binary_cross_entropy])
@pytest.mark.parametrize("channels", [1, 4])
def test_any_rank_is_counted_as_the_same_pixels(loss: Any, channels: int) -> None:
    """(B, N, C), (B, D, H, W, C): pixels in another arrangement, per example and pooled."""
    logits, labels = example(channels, side=4)
    pooled = jax.jit(functools.partial(loss, axis=(0, 1, 2)))(logits, labels)
    per_slice = jax.jit(loss)(logits, labels)
    assert (per_slice.shape, pooled.shape) == ((3,), ())
    for shape, axis in (((3, 16), (0, 1)), ((3, 2, 2, 4), (0, 1, 2, 3))):
        x, y = (array.reshape(*shape, channels) for array in (logits, labels))
        np.testing.assert_allclose(jax.jit(loss)(x, y), per_slice, rtol=1e-5)
        together = jax.jit(functools.partial(loss, axis=axis))(x, y)
        np.testing.assert_allclose(together, pooled, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_cross_entropy_as_optax(channels: int) -> None:
    logits, labels = example(channels)
    if channels == 1:
        theirs = optax.losses.sigmoid_binary_cross_entropy(logits, labels)[..., 0]
    else:
        theirs = optax.losses.softmax_cross_entropy(logits, labels)
    ours = binary_cross_entropy(logits, labels)
    np.testing.assert_allclose(ours, theirs.mean((1, 2)), rtol=1e-5)
    pooled = binary_cross_entropy(logits, labels, axis=(0, 1, 2))
    np.testing.assert_allclose(pooled, theirs.mean(), rtol=1e-5)
    where = jnp.arange(25).reshape(1, 5, 5, 1) < jnp.array([25, 7, 0]).reshape(3, 1, 1, 1)
    masked = binary_cross_entropy(logits.at[2].set(jnp.nan), labels, where=where)
    expected = [theirs[0].mean(), theirs[1].ravel()[:7].mean(), 0.0]
    np.testing.assert_allclose(masked, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_largest_logits_have_finite_losses_and_gradients(
    channels: int, dtype: DTypeLike
) -> None:
    """Right, then wrong everywhere; their differences and sums overflow float32."""
    largest = float(jnp.finfo(dtype).max)
    classes = np.arange(6).reshape(2, 3, 1) % max(channels, 2)
    labels = one_hot(classes, channels)
    signs = np.where(labels > 0, 1.0, -1.0)
    logits = jnp.asarray(np.concatenate([largest * signs, -largest * signs]), dtype)
    labels = jnp.asarray(np.concatenate([labels, labels]))

    @jax.jit
    def all_losses(logits: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        losses = [*LOSSES, binary_cross_entropy, with_cross_entropy(dice_loss, 0.5)]
        values = [loss(logits, labels) for loss in losses]
        return jnp.stack(values).sum(), values

    (_, values), gradient = jax.value_and_grad(all_losses, has_aux=True)(logits)
    chex.assert_tree_all_finite((values, gradient))
    np.testing.assert_array_equal(values[3][:2], 0)  # cross-entropy where all is right


def test_cross_entropy_alone_where_there_is_no_lesion() -> None:
    """Logits 0: each pixel's entropy is log 2; the Tversky index by hand."""
    labels = jnp.zeros((3, 2, 2, 1)).at[0].set(1.0).at[1, 0, 0].set(1.0)
    logits = jnp.zeros_like(labels)
    where = jnp.ones((3, 2, 2, 1), bool).at[1, 0, 0].set(False)  # this lesion does not count
    region = 0.7 * 2 / (2 + 0.7 * 2)  # TP 2, FN 2, FP 0
    loss = with_cross_entropy(tversky_loss, weight=0.5)
    expected = np.array([region, 0.0, 0.0]) + 0.5 * np.log(2)
    np.testing.assert_allclose(loss(logits, labels, where=where), expected, rtol=1e-5)
    second = (0.7 * 0.5 + 0.3 * 1.5) / (0.5 + 0.7 * 0.5 + 0.3 * 1.5)  # TP 1/2, FN 1/2, FP 3/2
    expected[1] += second
    np.testing.assert_allclose(loss(logits, labels), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("channels", [1, 3])
def test_strict_promotion_and_64_bits(dtype: DTypeLike, channels: int) -> None:
    """Losses are float32, gradients of the logits' dtype, labels uint8."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        logits = jax.ShapeDtypeStruct((2, 3, 4, channels), dtype)
        labels = jax.ShapeDtypeStruct(logits.shape, jnp.uint8)
        where = jax.ShapeDtypeStruct((2, 1, 1, 1), bool)
        for loss in (*LOSSES, binary_cross_entropy, with_cross_entropy(focal_tversky_loss, 0.5)):
            total = lambda *a, loss=loss: loss(*a[:2], where=a[2]).sum()  # noqa: E731
            value, gradient = jax.eval_shape(jax.value_and_grad(total), logits, labels, where)
            assert (value.dtype, gradient.dtype) == (jnp.float32, dtype)


@pytest.mark.parametrize("channels", [1, 3])
def test_cross_entropy_is_added_everywhere_and_the_region_loss_where_there_is_lesion(
    channels: int,
) -> None:
    """Against log-probabilities in float64: two slices with lesion, one without, one of padding."""
    logits, labels = example(channels, batch=4)
    empty = one_hot(np.zeros((1, 5, 5), int), channels)
    labels = jnp.concatenate([labels[:2], empty, labels[3:]])
    where = jnp.array([True, True, True, False])[:, None, None, None]
    logits = logits.at[3].set(jnp.nan)
    found = with_cross_entropy(focal_tversky_loss, 0.5)(logits, labels, where=where)
    z, g = np.asarray(logits, np.float64)[:3], np.asarray(labels, np.float64)[:3]
    if channels == 1:
        entropy = np.logaddexp(0, -z) * g + np.logaddexp(0, z) * (1 - g)
    else:
        entropy = (np.log(np.exp(z).sum(-1)) - (z * g).sum(-1))[..., None]
    region = np.where([True, True, False], reference(z, g), 0)
    expected = region + 0.5 * entropy.mean((1, 2, 3))
    np.testing.assert_allclose(found[:3], expected, rtol=1e-5)
    assert found[3] == 0


def test_pooled_with_cross_entropy_is_one_long_slice() -> None:
    logits, labels = example(1, batch=2)
    pooled = functools.partial(focal_tversky_loss, axis=(0, 1, 2))
    found = with_cross_entropy(pooled, 2.0)(logits, labels)
    long = [part.reshape(1, 10, 5, 1) for part in (logits, labels)]
    np.testing.assert_allclose(
        found, with_cross_entropy(focal_tversky_loss, 2.0)(*long)[0], rtol=1e-6
    )
    nothing = with_cross_entropy(pooled, 2.0)(jnp.zeros_like(logits), jnp.zeros_like(labels))
    np.testing.assert_allclose(nothing, 2 * np.log(2), rtol=1e-6)


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_an_impossible_weight_of_the_cross_entropy_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        with_cross_entropy(dice_loss, weight)


@pytest.mark.parametrize("labels", [[1.0, 0.0], [0.0, 0.0]])
def test_with_cross_entropy_the_gradient_of_an_empty_slice_is_not_flat(labels: list[float]) -> None:
    """Of the mean over pixels: (sigmoid(z) - g) / 2, in a slice of two where the region is met."""
    logits = jnp.zeros((1, 1, 2, 1))
    truth = jnp.array(labels).reshape(1, 1, 2, 1)
    flat = jnp.array(0.0)
    loss = with_cross_entropy(lambda *_, where: flat[None], 1.0)
    gradient = jax.grad(lambda z: loss(z, truth).sum())(logits)
    np.testing.assert_allclose(gradient.ravel(), (0.5 - np.array(labels)) / 2, rtol=1e-6)
