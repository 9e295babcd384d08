"""The network against the method's table (the paper's widths, counted by hand) and closed forms."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from covid_jax.losses import focal_tversky_loss
from covid_jax.models import SCSE, ConvBlock, SCSEUNet, cpu_conv
from tests.support.annotations import unchecked

TINY = (4, 8, 12, 16)

# The method's table: per level the size at 512 and its parameters by hand. A 3x3 layer has
# 9 in out + out (bias) + 2 out (norm), an scSE 2 c c/2 + c, a head c + 1.
ENCODER = {  # level: (size, channels, conv, each layer of the ResDil, scSE)
    1: (512, 32, 384, 9_312, 1_056),
    2: (256, 64, 18_624, 37_056, 4_160),
    3: (128, 128, 74_112, 147_840, 16_512),
    4: (64, 256, 295_680, 590_592, 65_792),
    5: (32, 512, 1_181_184, 2_360_832, 262_656),
}
DECODER = {  # level: (size, channels, up, merge, each layer of the ResDil, scSE)
    4: (64, 256, 1_180_416, 1_180_416, 590_592, 65_792),
    3: (128, 128, 295_296, 295_296, 147_840, 16_512),
    2: (256, 64, 73_920, 73_920, 37_056, 4_160),
    1: (512, 32, 18_528, 18_528, 9_312, 1_056),
}
HEADS = {3: 129, 2: 65, 1: 33}


def paper_counts(attention: str) -> dict[str, int]:
    """Parameters of each module of the table."""
    counts = {f"head{level}": count for level, count in HEADS.items()}
    for level, (_, _, conv, layer, scse) in ENCODER.items():
        counts |= {
            f"encoder{level}_conv": conv,
            f"encoder{level}_resdil/first": layer,
            f"encoder{level}_resdil/second": layer,
        }
        if attention == "encoder_decoder" or (attention == "skip" and level < 5):
            counts[f"encoder{level}_scse"] = scse
    for level, (_, _, up, merge, layer, scse) in DECODER.items():
        counts |= {
            f"decoder{level}_up": up,
            f"decoder{level}_merge": merge,
            f"decoder{level}_resdil/first": layer,
            f"decoder{level}_resdil/second": layer,
        }
        if attention == "encoder_decoder":
            counts[f"decoder{level}_scse"] = scse
    return counts


def abstract_init(model: SCSEUNet, *shape: int) -> Any:
    """The variables' shapes, without computing anything."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def size_of(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("attention", "total"),
    [("encoder_decoder", 13_005_091), ("none", 12_567_395), ("skip", 12_654_915)],
)
def test_parameter_counts_row_by_row(attention: str, total: int) -> None:
    params = abstract_init(SCSEUNet(attention=attention), 1, 512, 512, 1)["params"]
    counts = {}
    for name, node in params.items():
        parts = (
            {f"{name}/{part}": node[part] for part in node} if "resdil" in name else {name: node}
        )
        counts |= {part: size_of(tree) for part, tree in parts.items()}
    assert counts == paper_counts(attention)
    assert size_of(params) == total


def test_sizes_and_channels_of_every_level() -> None:
    """The table's column "size at 512"."""
    model = SCSEUNet()
    apply = functools.partial(model.apply, capture_intermediates=True)
    images = jax.ShapeDtypeStruct((2, 512, 512, 1), jnp.float32)
    logits, state = jax.eval_shape(apply, abstract_init(model, 2, 512, 512, 1), images)
    shapes = {
        name: node["__call__"][0].shape
        for name, node in state["intermediates"].items()
        if name.endswith(("_conv", "_up", "_merge", "_resdil", "_scse"))
    }
    encoder = {
        f"encoder{level}_{part}": (2, size, size, channels)
        for level, (size, channels, *_) in ENCODER.items()
        for part in ("conv", "resdil", "scse")
    }
    decoder = {
        f"decoder{level}_{part}": (2, size, size, channels)
        for level, (size, channels, *_) in DECODER.items()
        for part in ("up", "merge", "resdil", "scse")
    }
    assert shapes == encoder | decoder
    assert logits.shape == (2, 512, 512, 1)


def jaxpr_of(model: SCSEUNet, *shape: int) -> Any:
    """With every convolution by its definition, as on a GPU."""
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    with mock.patch.object(cpu_conv, "conv_general_dilated", jax.lax.conv_general_dilated):
        return jax.make_jaxpr(model.apply)(abstract_init(model, *shape), images)


def test_cost_of_a_slice() -> None:
    """87.06 GMAC of convolutions at 512 x 512 as defined: output pixels x kernel taps.

    The four after upsampling are computed on the small grid: 5/9 of their 4 x 4.83 are saved.
    """
    macs = 0
    for equation in jaxpr_of(SCSEUNet(), 1, 512, 512, 1).eqns:
        if equation.primitive.name == "conv_general_dilated":
            weights = equation.invars[1].aval.shape  # (..., in, out)
            macs += equation.outvars[0].aval.size * math.prod(weights[:-1])
    after_upsampling = 4 * 512 * 512 * 9 * 64 * 32
    assert round((macs + after_upsampling * 5 // 9) / 1e9, 2) == 87.06
    assert round(macs / 1e9, 2) == 76.33


def test_bfloat16_leaves_parameters_statistics_and_logits_in_float32() -> None:
    """The levels' 5 x 3 + 4 x 3 convolutions, and 4 x 4 after upsampling; not the 3 heads."""
    model = SCSEUNet(dtype=jnp.bfloat16)
    params = abstract_init(model, 1, 64, 64, 1)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    jaxpr = jaxpr_of(model, 1, 64, 64, 1)
    assert [logits.dtype for logits in jaxpr.out_avals] == [jnp.float32]
    outputs = Counter(
        (equation.primitive.name, equation.outvars[0].aval.dtype.name) for equation in jaxpr.eqns
    )
    convolutions = {kind: n for kind, n in outputs.items() if kind[0] == "conv_general_dilated"}
    assert convolutions == {
        ("conv_general_dilated", "bfloat16"): 5 * 3 + 4 * 3 + 4 * 4,
        ("conv_general_dilated", "float32"): 3,
    }
    # Sums: a mean and a variance for each norm, a mean for each of the 9 scSE.
    sums = {kind: n for kind, n in outputs.items() if kind[0] == "reduce_sum"}
    assert set(sums) == {("reduce_sum", "float32")}
    assert outputs["rsqrt", "float32"] == 5 * 3 + 4 * 4


@pytest.mark.parametrize(
    ("shape", "options", "channels"),
    [
        ((1, 512, 512, 1), {}, 1),
        ((4, 352, 352, 1), {}, 1),
        ((2, 32, 48, 1), {}, 1),  # the least side: 2 pixels at the bottom
        ((3, 640, 64, 1), {"num_classes": 3}, 4),
        ((2, 64, 32, 1), {"num_classes": 2, "attention": "skip"}, 3),
        ((2, 16, 40, 1), {"features": TINY, "attention": "none"}, 1),
        ((2, 4, 6, 3), {"features": (4, 8)}, 1),  # images of three channels
        ((1, 512, 512, 1), {"dtype": jnp.bfloat16}, 1),
    ],
)
def test_logits_have_the_image_grid(
    shape: tuple[int, ...], options: dict[str, Any], channels: int
) -> None:
    """One channel for one lesion class, K + 1 for more; float32."""
    model = SCSEUNet(**options)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    logits = jax.eval_shape(model.apply, abstract_init(model, *shape), images)
    assert (logits.shape, logits.dtype) == ((*shape[:3], channels), jnp.float32)


@pytest.mark.parametrize(
    ("features", "heads"),
    [
        ((4, 8), {"head1"}),
        ((4, 8, 12), {"head1", "head2"}),
        (TINY, {"head1", "head2", "head3"}),
        ((4, 8, 12, 16, 20, 24), {"head1", "head2", "head3"}),
    ],
)
def test_heads_are_on_the_finest_levels(features: Sequence[int], heads: set[str]) -> None:
    params = abstract_init(SCSEUNet(features=features), 1, 64, 64, 1)["params"]
    assert {name for name in params if name.startswith("head")} == heads


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 100, 96, 1), {}, "multiples of 16, and at least 32, for 5 levels; got 100 x 96"),
        ((1, 96, 100, 1), {}, "got 96 x 100"),
        ((1, 16, 64, 1), {}, "at least 32, for 5 levels; got 16 x 64"),
        ((1, 64, 0, 1), {}, "got 64 x 0"),
        ((1, 12, 16, 1), {"features": TINY}, "multiples of 8, and at least 16.*got 12 x 16"),
        ((64, 64, 1), {}, r"\(B, H, W, C\), got shape \(64, 64, 1\)"),
        ((1, 1, 64, 64, 1), {}, r"got shape \(1, 1, 64, 64, 1\)"),
        ((1, 64, 64, 1), {"features": (8,)}, r"two levels, got \(8,\)"),
        ((1, 64, 64, 1), {"num_classes": 0}, "num_classes must be at least 1, got 0"),
        ((1, 64, 64, 1), {"attention": "decoder"}, "attention must be one of .*, got 'decoder'"),
    ],
)
def test_what_cannot_be_is_refused(
    shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        abstract_init(SCSEUNet(**options), *shape)


def test_slope_reaches_every_layer() -> None:
    """4 x 3 blocks in the encoder, 3 x 4 in the decoder."""
    slopes = []

    def record(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, ConvBlock):
            slopes.append(context.module.negative_slope)
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(record):
        abstract_init(SCSEUNet(features=TINY, negative_slope=0.01), 1, 16, 16, 1)
    assert slopes == [0.01] * (4 * 3 + 3 * 4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_strict_promotion_and_64_bits(dtype: Any) -> None:
    """Float64 images: logits, parameters and their gradients stay float32."""
    model = SCSEUNet(features=(4, 8), num_classes=2, dtype=dtype)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        images = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float64)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        total = lambda variables, images: model.apply(variables, images).sum()  # noqa: E731
        outputs = jax.eval_shape(jax.value_and_grad(total), variables, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {np.dtype(np.float32)}


# From here on tiny networks are computed.


def scattered(model: SCSEUNet, *shape: int) -> dict[str, Any]:
    """Parameters without a single untouched initial value; scSE gates that are not dead."""
    rng = np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = path[-1].key
        values = rng.normal(size=leaf.shape)
        if name == "scale":
            values = 1 + 0.2 * values
        elif name == "bias":
            values = 0.2 * values
        else:
            values = values / np.sqrt(math.prod(leaf.shape[:-1]))
        return jnp.float32(np.abs(values) if name == "squeeze" else values)

    params = abstract_init(model, *shape)["params"]
    return jax.tree_util.tree_map_with_path(draw, params)


def noise(*shape: int) -> jax.Array:
    return jnp.float32(np.random.default_rng(1).normal(size=shape))


def test_initial_values() -> None:
    """Kernels glorot-uniform: |w| < sqrt(6 / (fan in + fan out)); biases 0, the norms' scales 1."""
    key = jax.random.key(0, impl="rbg")  # compiles in a fifth of the default's time
    params = jax.jit(SCSEUNet(features=(4, 8)).init)(key, noise(1, 4, 4, 1))
    drawn = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key == "bias":
            assert not leaf.any(), path
        elif path[-1].key == "scale":
            assert (leaf == 1).all(), path
        else:
            *window, fan_in, fan_out = leaf.shape
            limit = math.sqrt(6 / (math.prod(window) * (fan_in + fan_out)))
            assert np.abs(leaf).max() <= limit, path
            drawn.append(leaf.ravel() / limit)
    np.testing.assert_allclose(np.std(np.concatenate(drawn)), 1 / math.sqrt(3), rtol=0.02)


@pytest.fixture(scope="module")
def heads_and_logits() -> Callable[[dict[str, Any]], tuple[dict[str, np.ndarray], np.ndarray]]:
    """From the heads' parameters to what each head puts out, and the logits."""
    model = SCSEUNet(features=TINY)
    images = noise(2, 16, 24, 1)
    body = scattered(model, *images.shape)

    @jax.jit
    def apply(heads: dict[str, Any]) -> Any:
        return model.apply(
            {"params": body | heads},
            images,
            capture_intermediates=lambda module, _: (module.name or "").startswith("head"),
        )

    def run(heads: dict[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        logits, state = apply(heads)
        maps = {name: np.asarray(state["intermediates"][name]["__call__"][0]) for name in heads}
        return maps, np.asarray(logits)

    return run


def test_heads_are_added(heads_and_logits: Any) -> None:
    """Biases 1, 10 and 100 alone: 111 everywhere, each head counted once."""
    heads = {
        f"head{level}": {"kernel": jnp.zeros((1, 1, features, 1)), "bias": jnp.full(1, bias)}
        for level, features, bias in ((1, 4, 1.0), (2, 8, 10.0), (3, 12, 100.0))
    }
    _, logits = heads_and_logits(heads)
    np.testing.assert_array_equal(logits, np.full((2, 16, 24, 1), 111.0))


def test_coarse_heads_are_repeated_pixel_by_pixel(heads_and_logits: Any) -> None:
    """h1 + up(h2 + up(h3)) with nearest neighbours, so each h3 covers 4 x 4 pixels."""
    rng = np.random.default_rng(2)
    heads = {
        f"head{level}": {
            "kernel": jnp.float32(rng.normal(size=(1, 1, features, 1))),
            "bias": jnp.zeros(1),
        }
        for level, features in ((1, 4), (2, 8), (3, 12))
    }
    maps, logits = heads_and_logits(heads)
    expected = sum(
        np.kron(maps[f"head{level}"], np.ones((1, factor, factor, 1)))
        for level, factor in ((1, 1), (2, 2), (3, 4))
    )
    assert min(np.std(head) for head in maps.values()) > 0.1
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("attention", "fed", "skips"),
    [
        (
            "encoder_decoder",
            {"encoder2_conv", "encoder3_conv", "decoder2_up", "decoder1_up", "head2", "head1"},
            {"decoder2_merge", "decoder1_merge"},
        ),
        ("skip", set(), {"decoder2_merge", "decoder1_merge"}),
        ("none", set(), set()),
    ],
)
def test_where_attention_goes(attention: str, fed: set[str], skips: set[str]) -> None:
    """An scSE that puts out 7s marks what reads it: modules wholly fed by it, and skips.

    A skip is the first half of what a merge reads; the other half comes from below.
    """
    model = SCSEUNet(features=(4, 6, 8), attention=attention)
    images = noise(1, 8, 8, 1)
    inputs = {}

    def mark(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if isinstance(context.module, SCSE):
            return jnp.full_like(args[0], 7.0)
        if len(context.module.path) == 1:
            inputs[context.module.name] = args[0]
        return next_fun(*args, **kwargs)

    @jax.jit
    def read(params: dict[str, Any]) -> dict[str, jax.Array]:
        with nn.intercept_methods(mark):
            model.apply({"params": params}, images)
        return inputs

    found = read(scattered(model, *images.shape))
    merged = {name: x for name, x in found.items() if name.endswith("_merge")}
    assert {name for name, x in found.items() if (x == 7).all()} == fed
    assert {name for name, x in merged.items() if (x[..., : x.shape[-1] // 2] == 7).all()} == skips
    assert not any((x[..., x.shape[-1] // 2 :] == 7).any() for x in merged.values())


def test_slices_of_a_batch_do_not_touch() -> None:
    """The norms and the gates are per slice: a slice's logits are the same beside any other."""
    model = SCSEUNet(features=(4, 6))
    a, b, c = noise(3, 8, 12, 1)
    params = scattered(model, 2, 8, 12, 1)
    apply = jax.jit(model.apply)
    first, second = (apply({"params": params}, jnp.stack(pair)) for pair in ([a, b], [c, a]))
    np.testing.assert_allclose(first[0], second[1], rtol=0, atol=1e-6)
    assert np.abs(first[1] - second[0]).max() > 0.1


def test_gradient_reaches_every_parameter() -> None:
    """But for the biases before a norm, which takes them out again: theirs is zero."""
    model = SCSEUNet(features=(4, 6, 8))
    images = noise(2, 8, 12, 1)
    labels = jnp.zeros_like(images).at[:, 2:5, 6:9].set(1.0)

    @jax.jit
    @jax.grad
    def gradient(params: dict[str, Any]) -> jax.Array:
        return focal_tversky_loss(model.apply({"params": params}, images), labels).mean()

    leaves = jax.tree_util.tree_leaves_with_path(gradient(scattered(model, *images.shape)))
    largest = {tuple(key.key for key in path): float(np.abs(leaf).max()) for path, leaf in leaves}
    before_norm = {path for path in largest if path[-2:] == ("conv", "bias")}
    assert len(before_norm) == 3 * 3 + 2 * 4
    scale = max(largest.values())
    for path, value in largest.items():
        if path in before_norm:
            assert value < 1e-6 * scale, path
        else:
            assert value > 1e-5 * scale, path
