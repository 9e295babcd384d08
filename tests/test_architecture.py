"""The rules of docs/architecture.md, read from the imports of every file."""

import ast
from pathlib import Path

import pytest

import covid_jax

PACKAGE = Path(covid_jax.__file__).parent
TREES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
FLOORS = {
    -1: {"__init__", "errors", "files", "schema"},  # what every layer may import
    0: {"parallel"},
    1: {"models", "losses", "metrics"},
    2: {"transforms", "runs", "io", "data", "phantom", "splits"},
    3: {"inference", "ensemble"},
    4: {"evaluation"},
    5: {"reporting"},
    6: {"training", "export", "prediction"},
    7: {"cli"},
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def imports(tree: ast.Module) -> set[str]:
    """Modules a file imports anywhere, inside functions too; ``from a import b`` counts as a.b."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def imported_rooms(file: str) -> set[str]:
    """Of ``covid_jax.io.nifti``: data. Of ``covid_jax`` and its version: __init__."""
    own = [name.split(".") for name in imports(TREES[file]) if name.split(".")[0] == "covid_jax"]
    return {parts[1] if parts[1:] and parts[1] in FLOOR else "__init__" for parts in own}


def test_every_room_has_a_floor() -> None:
    assert {room(file) for file in TREES} <= FLOOR.keys()


@pytest.mark.parametrize("file", sorted(TREES.keys() - {"__init__.py"}))  # it loads when asked
def test_each_floor_imports_only_from_floors_below(file: str) -> None:
    here = room(file)
    others = imported_rooms(file) - {here}
    assert {name for name in others if FLOOR[name] > FLOOR[here]} == set()
    if here in ("models", "losses", "metrics"):
        assert others == set()


@pytest.mark.parametrize(
    ("library", "files"),
    [
        ("nibabel", {"io/nifti.py"}),
        ("pydicom", {"io/dicom.py"}),
        ("orbax", {"runs/checkpoints.py"}),
        ("tyro", {"cli/main.py"}),
        (
            "matplotlib",
            {
                *(f"reporting/{name}.py" for name in ("drawing", "example_figures", "plots")),
                *(f"reporting/{name}.py" for name in ("attention_maps", "evaluation_report")),
                "reporting/method_figure.py",
            },
        ),
    ],
)
def test_few_files_know_the_library(library: str, files: set[str]) -> None:
    users = {
        name
        for name, tree in TREES.items()
        if library in {module.split(".")[0] for module in imports(tree)}
    }
    assert users == files


def test_pydicom_is_imported_only_where_it_is_used() -> None:
    """It is an extra: without it every other format opens."""
    top = {module for node in top_level(TREES["io/dicom.py"]) for module in imports(node)}
    assert not any(module.startswith("pydicom") for module in top)


def top_level(tree: ast.Module) -> list[ast.Module]:
    """Statements that run at import: neither within functions nor for type checkers alone."""
    checked_only = "TYPE_CHECKING"
    return [
        ast.Module([node], [])
        for node in tree.body
        if not isinstance(node, ast.FunctionDef)
        and not (isinstance(node, ast.If) and checked_only in ast.unparse(node.test))
    ]


LAYOUTS = [file for file in TREES if file.startswith("data/layouts/")]


@pytest.mark.parametrize("file", LAYOUTS)
def test_layouts_open_no_image(file: str) -> None:
    """They look at names and first bytes; of data they know only whose a scan is."""
    ours = {name for name in imports(TREES[file]) if name.startswith("covid_jax")}
    known = ("covid_jax.errors", "covid_jax.data.scan", "covid_jax.data.patients")
    known += ("covid_jax.io.formats",)
    assert [n for n in ours if not n.startswith((*known, "covid_jax.data.layouts"))] == []
    libraries = {name.split(".")[0] for name in imports(TREES[file])} - {"covid_jax"}
    assert libraries <= {
        "collections",
        "dataclasses",
        "functools",
        "json",
        "pathlib",
        "re",
        "unicodedata",
        "typing",
    }


@pytest.mark.parametrize(("script", "function"), [("train.py", "train"), ("eval.py", "evaluate")])
def test_scripts_only_call_the_command_line(script: str, function: str) -> None:
    tree = ast.parse((PACKAGE.parent / script).read_text())
    assert imports(tree) == {f"covid_jax.cli.main.{function}"}


@pytest.mark.parametrize("file", TREES)
def test_what_is_public_has_a_docstring(file: str) -> None:
    definitions = [
        node
        for node in TREES[file].body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    ]
    assert ast.get_docstring(TREES[file])
    assert [node.name for node in definitions if not ast.get_docstring(node)] == []
