"""The locks hold names and versions alone, and versions that pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted(path.name for path in (ROOT / "locks").glob("*.txt"))


def read(path: str) -> str:
    return (ROOT / path).read_text()


def needed() -> list[Requirement]:
    """Of the package, its extras `export` and `test`, and the group `dev`."""
    extras = PROJECT["project"]["optional-dependencies"]
    texts = [*PROJECT["project"]["dependencies"], *extras["export"], *extras["test"]]
    return [Requirement(text) for text in [*texts, *PROJECT["dependency-groups"]["dev"]]]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_versions_that_are_allowed(lock: str) -> None:
    lines = (ROOT / "locks" / lock).read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==\d[\w.]*", line) for line in lines)
    versions = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines}
    assert len(versions) == len(lines)
    for requirement in needed():
        if requirement.name != "covid_jax":
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), (requirement, version)
    assert ("cuda" in lock) == any("cuda" in name for name in versions)


def test_torch_is_the_one_that_is_tested() -> None:
    (torch,) = PROJECT["dependency-groups"]["torch"]
    assert torch in (ROOT / "locks/cpu-py311.txt").read_text().splitlines()


def test_ci_tests_with_each_lock_what_the_page_of_the_locks_says() -> None:
    steps = re.findall(r"-c locks/(\S+)|^ *python -m (pytest.*)", read(".ci/run"), re.MULTILINE)
    assert ["".join(step) for step in steps] == [
        *("cpu-py311.txt", "pytest -n 2", "pytest -n 2 -m slow"),
        "pytest -n 2",  # with the lowest versions
        *("cpu-py313.txt", "pytest -n 2"),
    ]
    table = dict(
        re.findall(r"^\| `(cpu-\S+)` \|.*\| (.*) \|$", read("locks/README.md"), re.MULTILINE)
    )
    assert table == {
        "cpu-py311.txt": "lint, types, the default and the slow tests",
        "cpu-py313.txt": "the default tests",
    }
