"""Strict house for every test: warnings are errors, rank promotion raises, compilations are cached."""

import os
import tempfile
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / "covid_jax_tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

SHARED_DATA = Path(os.environ.get("COVID_JAX_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real CT data, where there is one: COVID_JAX_DATA or ../shared/data."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs real CT data: set COVID_JAX_DATA (looked in {SHARED_DATA})")
    return SHARED_DATA
