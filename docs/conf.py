"""Sphinx: `sphinx-build -W docs build/docs`, with the dependency group `docs` installed."""

import contextlib
import io
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ |= {"COLUMNS": "90", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}

import covid_jax  # noqa: E402

project = "covid_jax"
author = "The covid_jax authors"
copyright = "2026, " + author
version = release = covid_jax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["images"]
html_theme = "furo"
html_title = "covid_jax"
html_show_sphinx = False
myst_heading_anchors = 3
pygments_dark_style = "github-dark"

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 1800  # seconds a cell; a minute on two idle cores
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {
    "members": True,
    "exclude-members": "__init__, parent, name, dtype",
}
autodoc_preserve_defaults = True
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # else a field is described once for its class and once by itself


class CommandHelp(SphinxDirective):
    """What ``covid-jax COMMAND --help`` prints."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        from covid_jax.cli import main

        with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
            main.main(shlex.split(self.arguments[0])[1:])
        text = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue())
        return [nodes.literal_block(text, text, language="text")]


def name_files_of_the_source(_: Sphinx, __: str, content: list[str]) -> None:
    """Links out of this folder, which work where the source is read, become names of files."""
    content[0] = re.sub(r"\[([^\]]+)\]\((?:\.\./)+([^)#]+)[^)]*\)", r"\1 (`\2`)", content[0])


def skip_fields_of_tuples(_: Sphinx, __: str, ___: str, found: Any, *____: object) -> bool | None:
    """NamedTuples describe their fields themselves; None leaves the decision to autodoc."""
    return True if type(found).__name__ == "_tuplegetter" else None


def prepare_for_napoleon(_: Sphinx, what: str, *rest: Any) -> None:
    """Before it takes ``slice: z-score`` of a setting, or ``low`` of ``low, high:``, for a type."""
    lines = rest[-1]
    if what == "attribute":
        lines[:] = [line.replace(": ", " \N{EN DASH} ") for line in lines]
    names = re.compile(r"^\s*\w+(?:, \w+)+(?=: )")
    lines[:] = [names.sub(lambda found: found[0].replace(", ", "/"), line) for line in lines]


def short_signature(_: Sphinx, __: str, ___: str, ____: Any, _____: Any, *texts: Any) -> Any:
    """Names without their modules, and without what Flax adds to its modules' arguments."""
    if texts[0] is None:  # a module's
        return None
    shown = []
    for text in texts:
        text = re.sub(r", parent: .*, name: .*\)$", ")", text or "")
        text = re.sub(r"~?(?:[A-Za-z_]\w*\.)+(?=\w)", "", text)
        shown.append(re.sub(r"<(?:class|function) '?(\w+)'?>", r"\1", text))
    return shown


def setup(app: Sphinx) -> None:
    """Our directive, and what is changed on the way to the pages."""
    app.add_directive("command-help", CommandHelp)
    app.connect("source-read", name_files_of_the_source)
    app.connect("autodoc-skip-member", skip_fields_of_tuples)
    app.connect("autodoc-process-signature", short_signature)
    app.connect("autodoc-process-docstring", prepare_for_napoleon, priority=400)
