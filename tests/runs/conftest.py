"""Runs of one module with equal settings share their compiled programs."""

from tests.support.compiled import shared_programs  # noqa: F401
