"""What `import covid_jax` offers, and what it costs, seen from a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

import covid_jax

ROOT = Path(__file__).parents[1]


def modules_after(statement: str) -> set[str]:
    """Top-level packages that a new process has imported after a statement."""
    code = f"{statement}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {"jax", "flax", "numpy", "matplotlib", "orbax", "rich", "tyro", "torch"}
    assert modules_after("import covid_jax") & heavy == set()


@pytest.mark.parametrize("name", sorted(set(covid_jax.__all__) - {"__version__"}))
def test_every_public_name_is_its_modules_own(name: str) -> None:
    value = getattr(covid_jax, name)
    assert value.__name__ == name
    assert value.__module__.startswith(f"covid_jax.{covid_jax._MODULES[name]}")


def test_submodules_resolve_without_an_import_of_their_own() -> None:
    assert "numpy" in modules_after("import covid_jax; assert covid_jax.metrics.dice")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'unet'"):
        _ = covid_jax.unet  # pyright: ignore[reportAttributeAccessIssue]
    assert "SCSEUNet" in dir(covid_jax)
