"""The layers of docs/architecture.md, read from the imports of every file."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "covid_jax"
FILES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
LAYERS = [  # each imports only from the layers above it in this list, and from itself
    {"__init__", "errors", "schema", "files", "parallel", "terminal"},
    {"models", "losses", "metrics"},
    {"transforms"},
    {"runs"},
    {"io"},
    {"data"},
    {"splits", "phantom"},
    {"inference"},
    {"ensemble"},
    {"evaluation"},
    {"reporting"},
    {"training", "export"},
    {"prediction"},
    {"cli"},
    {"__main__"},
]
LAYER = {module: number for number, modules in enumerate(LAYERS) for module in modules}
METHOD = {"models", "losses", "metrics", "transforms"}  # arrays in, arrays out; know no file
DRAWING = ("figures", "plots", "example_figures")
ONLY = {  # the files that import a library
    "nibabel": {"io/nifti.py"},
    "SimpleITK": {"io/itk_image.py"},
    "pydicom": {"io/dicom.py"},
    "orbax": {"runs/checkpoints.py"},
    "tyro": {"cli/parse.py"},
    "matplotlib": {f"reporting/{name}.py" for name in (*DRAWING, "evaluation_report")},
}


def imports(tree: ast.AST) -> set[str]:
    """Modules imported anywhere, by ``errors.need`` too; ``from a import b`` counts as a.b."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "need":
            found.add(ast.literal_eval(node.args[0]))
    return found


def modules(file: str) -> set[str]:
    """What a file imports of the package; its version counts as ``__init__``."""
    names = [name.split(".") for name in imports(FILES[file]) if name.startswith("covid_jax")]
    return {name[1] if name[1:] and name[1] in LAYER else "__init__" for name in names}


def module_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


@pytest.mark.parametrize("file", sorted(FILES.keys() - {"__init__.py"}))  # it loads when asked
def test_a_file_imports_only_from_layers_below(file: str) -> None:
    own = module_of(file)
    others = modules(file) - {own}
    assert {name for name in others if LAYER[name] >= LAYER[own] > 0} == set()
    if own in METHOD:
        assert others <= {"schema"} if file == "transforms/augment_config.py" else METHOD


@pytest.mark.parametrize("library", ONLY)
def test_few_files_import_the_library(library: str) -> None:
    users = {
        file for file, tree in FILES.items() if library in {n.split(".")[0] for n in imports(tree)}
    }
    assert users == ONLY[library]


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("data/layouts/")])
def test_layouts_open_no_image(file: str) -> None:
    """They look at names and first bytes, with nothing but the standard library."""
    known = (
        "errors",
        "files",
        "io.formats",
        "data.scan",
        "data.patients",
        "data.layouts",
        "transforms.labels",
    )
    ours = tuple(f"covid_jax.{name}" for name in known)
    others = [name for name in imports(FILES[file]) if not name.startswith(ours)]
    assert {name.split(".")[0] for name in others} <= sys.stdlib_module_names


@pytest.mark.parametrize("name", ["train_state", "train_step", "optimizer"])
def test_the_training_step_knows_no_run(name: str) -> None:
    assert modules(f"training/{name}.py") <= METHOD | {"training", "parallel"}


@pytest.mark.parametrize(("script", "function"), [("train.py", "train"), ("eval.py", "evaluate")])
def test_scripts_only_call_the_command_line(script: str, function: str) -> None:
    tree = ast.parse((ROOT / script).read_text())
    assert imports(tree) == {f"covid_jax.cli.main.{function}"}


def test_no_test_imports_from_another_test_module() -> None:
    tests = {path: ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("*.py")}
    named = {name for tree in tests.values() for name in imports(tree) if name.startswith("tests.")}
    assert {name for name in named if ".test_" in name} == set()


@pytest.mark.parametrize("file", FILES)
def test_what_is_public_has_a_docstring(file: str) -> None:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    public = [n for n in FILES[file].body if isinstance(n, kinds) and n.name[0] != "_"]
    assert ast.get_docstring(FILES[file])
    assert [node.name for node in public if not ast.get_docstring(node)] == []
