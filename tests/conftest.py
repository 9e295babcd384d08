"""Strict house for every test: rank promotion raises, warnings are errors (pyproject.toml)."""

import ctypes
import gc
import importlib.util
import os
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jaxtyping
import numpy as np
import pytest
from beartype import BeartypeConf, FrozenDict, beartype
from xdist.scheduler import LoadFileScheduling

# Annotations are checked at every call in the package, shapes and dtypes among them. The hook takes
# its checker by name; this one lets NumPy's numbers stand for Python's, and an int for a float.
checker = types.ModuleType("annotation_checker")
whole, real = int | np.integer, float | int | np.floating | np.integer
overrides = FrozenDict({int: whole, float: real})
checker.checked = beartype(conf=BeartypeConf(hint_overrides=overrides))
sys.modules[checker.__name__] = checker
jaxtyping.install_import_hook("covid_jax", "annotation_checker.checked")
collect_ignore = [] if importlib.util.find_spec("torch") else ["oracles/torch_twin.py"]

jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiled steps are shared by all tests, those of other processes among them. XLA optimises little,
# in half the time. jaxlib 0.10 has an older writer of machine code, in a third of the rest; with
# newer versions the tests meet the one that users meet.
if jax.__version_info__ < (0, 11):
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", flags)
for name, value in (
    ("jax_disable_most_optimizations", True),
    ("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / "covid_jax_tests")),
    ("jax_persistent_cache_min_compile_time_secs", 0.3),
):
    os.environ[name.upper()] = str(value)
    jax.config.update(name, value)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """With ``-n 2`` a file's tests stay in one process, where they share fixtures."""
    return LoadFileScheduling(config, log)


def pytest_collection_finish() -> None:
    """Garbage collections skip what the imported modules hold, which saves a sixth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Decoded slices and phantoms of the tests do not mix with the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module", autouse=True)
def _little_memory() -> Iterator[None]:
    """Compiled programs of one module do not stay for the next, nor does their memory."""
    yield
    jax.clear_caches()
    gc.collect()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


@pytest.fixture
def unchecked_annotations() -> Iterator[None]:
    """For tests of what a function itself says of a wrong argument."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CT data (covid_semiseg/, radiopaedia/, io/) that COVID_JAX_DATA names."""
    folder = os.environ.get("COVID_JAX_DATA")
    if folder is None or not Path(folder).is_dir():
        pytest.skip("needs real CT data: set COVID_JAX_DATA to the folder that holds it")
    return Path(folder)
