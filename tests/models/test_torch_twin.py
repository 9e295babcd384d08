"""covid_jax against the same network and loss written in PyTorch: values and gradients."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the PyTorch twin needs torch: the group `oracles`")

from covid_jax.losses import focal_tversky_loss  # noqa: E402
from covid_jax.models import SCSEUNet  # noqa: E402
from tests.oracles import torch_twin  # noqa: E402

TINY = (4, 8, 12, 16)
Pair = tuple[SCSEUNet, dict[str, Any], torch_twin.TorchTwin]


@pytest.fixture(autouse=True)
def plain_float32():
    """No TF32 on the JAX side: its ten bits are coarser than the tolerance of the logits."""
    with jax.default_matmul_precision("highest"):
        yield


def make_pair(images: np.ndarray, **options: Any) -> Pair:
    """A model, parameters of which none has its initial value, and the twin that holds them.

    Scales of one and biases of zero would hide a scale or a bias that was mapped wrongly.
    """
    model = SCSEUNet(**options)
    rng = np.random.default_rng(5)  # with some seeds an scSE of 4 channels has both its ReLUs shut

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "scale":
            values = rng.uniform(0.5, 1.5, leaf.shape)
        elif path[-1].key == "bias":
            values = rng.normal(0.0, 0.3, leaf.shape)
        else:
            *window, inputs, outputs = leaf.shape
            limit = math.sqrt(6 / (math.prod(window) * (inputs + outputs)))
            values = rng.uniform(-limit, limit, leaf.shape)
        return values.astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    params = jax.tree_util.tree_map_with_path(draw, shapes)
    twin = torch_twin.TorchTwin(**options)
    torch_twin.load_jax_params(twin, params)
    keep_off_the_kinks(twin, images)
    # The twin then computes in float64: what differs is our rounding alone, however many threads
    # PyTorch sums with.
    return model, torch_twin.export_params(twin), twin.double()


def keep_off_the_kinks(twin: torch_twin.TorchTwin, images: np.ndarray) -> None:
    """Shifts each norm's biases a little, so that no pre-activation is within rounding of zero.

    LeakyReLU's slope jumps at zero. A value there that rounds to one sign in one framework and to
    the other in the other is no error, yet changes its channel's gradient by a pixel's share, 1e-2
    at the deep levels. Zero is moved to the middle of the widest gap among a channel's values
    around it.
    """

    def shift(norm: torch.nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        values = output.transpose(0, 1).flatten(1).clamp(-0.2, 0.2).sort(dim=1).values
        widest = values.diff(dim=1).argmax(dim=1, keepdim=True)
        middle = (values.gather(1, widest) + values.gather(1, widest + 1))[:, 0] / 2
        norm.bias -= middle
        return output - middle[:, None, None]

    norms = [m for m in twin.modules() if isinstance(m, torch.nn.InstanceNorm2d)]
    hooks = [norm.register_forward_hook(shift) for norm in norms]
    with torch.no_grad():
        twin(to_torch(images).float())
    for hook in hooks:
        hook.remove()


def make_slices(batch: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise images and, as lesion, a rectangle off the centre, NHWC."""
    images = np.random.default_rng(0).normal(size=(batch, height, width, 1)).astype(np.float32)
    labels = np.zeros_like(images)
    labels[:, height // 8 : height // 2, width // 4 : width // 3] = 1.0
    return images, labels


def to_torch(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy()).double()


def to_nhwc(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def flat(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def ours_and_theirs(pair: Pair, images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
    """(logits, flat gradients of the mean focal Tversky loss) of the model, then of the twin."""
    model, params, twin = pair

    def mean_loss(params: Any) -> tuple[jax.Array, jax.Array]:
        logits = model.apply({"params": params}, images)
        return focal_tversky_loss(logits, labels).mean(), logits

    grads, logits = jax.jit(jax.grad(mean_loss, has_aux=True))(params)
    ours = np.asarray(logits), flat(grads)

    logits = twin(to_torch(images))
    torch_twin.focal_tversky_loss(logits, to_torch(labels)).mean().backward()
    return ours, (to_nhwc(logits), flat(torch_twin.export_grads(twin)))


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        pytest.param({}, (1, 128, 128), id="full-width", marks=pytest.mark.slow),
        pytest.param({"features": TINY}, (2, 32, 48), id="encoder_decoder"),
        pytest.param({"features": TINY, "attention": "skip"}, (2, 32, 48), id="skip"),
        pytest.param({"features": TINY, "attention": "none"}, (2, 32, 48), id="none"),
        pytest.param({"features": TINY, "negative_slope": 0.0}, (2, 32, 48), id="relu"),
    ],
)
def test_logits_and_gradients_agree(options: dict[str, Any], shape: tuple[int, int, int]) -> None:
    images, labels = make_slices(*shape)
    (logits, ours), (reference_logits, theirs) = ours_and_theirs(
        make_pair(images, **options), images, labels
    )
    assert logits.shape == reference_logits.shape == (*shape, 1)
    np.testing.assert_allclose(logits, reference_logits, rtol=0, atol=1e-4)

    assert ours.keys() == theirs.keys()
    largest = max(np.abs(grad).max() for grad in theirs.values())
    for name, reference in theirs.items():
        if name.endswith("['conv']['bias']"):  # the norm that follows takes it out again
            assert np.abs(ours[name]).max() < 1e-6 * largest, name
            assert np.abs(reference).max() < 1e-6 * largest, name
        else:
            tolerance = 1e-3 * np.abs(reference).max()
            assert tolerance > 0, name
            np.testing.assert_allclose(ours[name], reference, 0, tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("options", "channels"),
    [
        pytest.param({"features": TINY, "num_classes": 3}, 4, id="three-classes"),
        pytest.param({"features": (4, 8, 12)}, 1, id="two-heads"),
        pytest.param({"features": (4, 8)}, 1, id="one-head"),
    ],
)
def test_logits_agree(options: dict[str, Any], channels: int) -> None:
    images, _ = make_slices(2, 32, 48)
    model, params, twin = make_pair(images, **options)
    ours = jax.jit(model.apply)({"params": params}, images)
    theirs = to_nhwc(twin(to_torch(images)))
    assert ours.shape == theirs.shape == (2, 32, 48, channels)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("attention", "count"),
    [("encoder_decoder", 13_005_091), ("skip", 12_654_915), ("none", 12_567_395)],
)
def test_twin_has_the_papers_widths(attention: str, count: int) -> None:
    """Counts by hand, from the table of levels and widths."""
    with torch.device("meta"):
        twin = torch_twin.TorchTwin(attention=attention)
    assert sum(parameter.numel() for parameter in twin.parameters()) == count


@pytest.mark.parametrize(
    ("alpha", "beta", "smooth", "expected"),
    [(0.5, 0.5, 1e-6, 0.413014), (0.7, 0.3, 1e-6, 0.463661), (0.7, 0.3, 1.0, 0.366076)],
)
def test_both_losses_give_the_outside_value(
    alpha: float, beta: float, smooth: float, expected: float
) -> None:
    """The logits and labels of MONAI's tests/losses/test_tversky_loss.py, raised to 0.75."""
    logits = np.array([[1, -1], [-1, 1]], np.float32).reshape(1, 2, 2, 1)
    labels = np.array([[1, 0], [1, 1]], np.float32).reshape(1, 2, 2, 1)
    options = {"alpha": alpha, "beta": beta, "smooth": smooth}
    theirs = torch_twin.focal_tversky_loss(to_torch(logits), to_torch(labels), **options)
    ours = focal_tversky_loss(jnp.asarray(logits), jnp.asarray(labels), **options)
    np.testing.assert_allclose(theirs, [expected], rtol=0, atol=2e-6)
    np.testing.assert_allclose(ours, [expected], rtol=0, atol=2e-6)


def test_loading_refuses_a_tree_that_does_not_fit() -> None:
    images, _ = make_slices(1, 16, 16)
    _, params, twin = make_pair(images, features=(4, 8))
    head = params["head1"]
    for wrong in (
        {name: node for name, node in params.items() if name != "head1"},
        {**params, "head2": head},
        {**params, "head1": {"kernel": head["kernel"]}},
        {**params, "head1": {**head, "kernel": head["kernel"][0]}},
    ):
        with pytest.raises(ValueError, match="head"):
            torch_twin.load_jax_params(twin, wrong)
