"""Prints the lowest versions that pyproject.toml declares, as constraints for pip."""

import re
import tomllib
from pathlib import Path

content = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
project = content["project"]
extras = project["optional-dependencies"]
for requirement in (*project["dependencies"], *extras["dicom"], *extras["export"], *extras["test"]):
    if floor := re.match(r"([\w-]+)>=([\w.]+)", requirement):
        print("==".join(floor.groups()))
print("pyparsing<3.3")  # matplotlib 3.9 uses names that later ones warn of; the tests allow none
