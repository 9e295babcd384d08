"""Names and numbers as messages show them."""

from covid_jax.errors import plural, shorten


def test_messages() -> None:
    assert shorten(["a", "b", "c"]) == "a, b, c"
    assert shorten(str(i) for i in range(4)) == "0, 1, 2, ..."
    assert shorten([]) == ""
    assert shorten(["\udcff"]).isascii()  # a file name that is no UTF-8 must not stop a message
    assert [plural(n, "slice") for n in (0, 1, 2)] == ["0 slices", "1 slice", "2 slices"]
