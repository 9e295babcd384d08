"""Prints what pip resolved, a line a package: names and versions, no host, no address.

pip install --dry-run --ignore-installed --report r.json ... && python .ci/lock.py r.json
"""

import json
import sys
from pathlib import Path

for item in sorted(
    json.loads(Path(sys.argv[1]).read_text())["install"],
    key=lambda item: item["metadata"]["name"].lower(),
):
    name, version = (item["metadata"][key] for key in ("name", "version"))
    if name != "covid_jax":
        print(f"{name}=={version.partition('+')[0]}")  # +cpu is a build, not a version
