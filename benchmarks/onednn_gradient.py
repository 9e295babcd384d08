"""The weight gradient of a bfloat16 convolution that XLA hands to oneDNN, against NumPy's.

    python -m benchmarks.onednn_gradient

Needs nothing but jax and NumPy. What it is for: onednn_gradient.md.
"""

import jax
import jax.numpy as jnp
import numpy as np

OPTION = {"xla_cpu_experimental_onednn_custom_call": True}
CHANNELS = 32


def weight_gradient(x: jax.Array, kernel: jax.Array, upstream: jax.Array) -> jax.Array:
    """Of a 3x3 convolution, stride 1, SAME."""

    def convolve(kernel: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    return jax.vjp(convolve, kernel)[1](upstream)[0]


def by_numpy(x: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    """Each tap of the kernel is the product of the shifted input with the upstream gradient."""
    _, height, width, channels = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    flat = upstream.reshape(-1, upstream.shape[-1])
    taps = [
        padded[:, i : i + height, j : j + width].reshape(-1, channels).T @ flat
        for i in range(3)
        for j in range(3)
    ]
    return np.stack(taps).reshape(3, 3, channels, -1)


def main() -> None:
    """Prints the relative error with and without the option; whole numbers leave no rounding."""
    rng = np.random.default_rng(0)
    x, upstream = (rng.integers(-1, 2, (2, 8, 8, CHANNELS)).astype(np.float32) for _ in range(2))
    kernel = np.ones((3, 3, CHANNELS, CHANNELS), np.float32)
    right = by_numpy(x, upstream)
    arguments = [jnp.asarray(a, jnp.bfloat16) for a in (x, kernel, upstream)]
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    for name, options in (("default", None), ("oneDNN", OPTION)):
        compiled = jax.jit(weight_gradient, compiler_options=options).lower(*arguments).compile()
        found = np.asarray(compiled(*arguments), np.float32)
        error = np.linalg.norm(found - right) / np.linalg.norm(right)
        used = "__onednn$convolution" in str(compiled.as_text())
        print(f"{name}: relative error {error:.4f}, oneDNN used: {used}")


if __name__ == "__main__":
    main()
