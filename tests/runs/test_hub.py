"""Bundles of the Hugging Face hub, from a prepared cache and from a server on this machine."""

import hashlib
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from covid_jax.cli.main import main
from covid_jax.ensemble import load_runs
from covid_jax.errors import ConfigError, RunError
from covid_jax.inference import load_run

constants = pytest.importorskip("huggingface_hub.constants")
BUNDLE = Path(__file__).parents[1] / "fixtures/bundle_0_1"
COMMITS = {"main": "0" * 40, "v1": "1" * 40}


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a download leaves: the snapshot of each commit, and the branches that name them."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub/models--lab--lungs"
    for name, commit in COMMITS.items():
        shutil.copytree(BUNDLE, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / name).write_text(commit)
    return place


@pytest.mark.parametrize(
    ("name", "commit"),
    [("hf:lab/lungs", "0"), ("hf:lab/lungs@v1", "1"), (f"hf:lab/lungs@{'1' * 40}", "1")],
)
def test_a_bundle_is_loaded_by_its_name(repository: Path, name: str, commit: str) -> None:
    run = load_run(name)
    assert run.folder == repository / "snapshots" / (40 * commit)
    assert run.epoch == load_run(BUNDLE).epoch
    assert load_runs([Path(name)]).folder == run.folder  # as the command line gives it


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:lab/other", r"hf:lab/other: cannot be had from the Hugging Face hub \(.+\)$"),
        ("hf:lab/lungs@v2", r"hf:lab/lungs@v2: cannot be had from the Hugging Face hub"),
        ("hf:no name", r"hf:no name: cannot be had from the Hugging Face hub \(Repo id must"),
    ],
)
def test_what_the_hub_has_not_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        load_run(name)


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's HTTP interface that a download needs, for one repository."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        commit, files = COMMITS["v1"], sorted(path.name for path in BUNDLE.iterdir())
        if path == "/api/models/lab/lungs/revision/v1":
            siblings = [{"rfilename": name} for name in files]
            self.answer(
                json.dumps({"id": "lab/lungs", "sha": commit, "siblings": siblings}).encode()
            )
        elif path.startswith(f"/api/models/lab/lungs/tree/{commit}"):
            sizes = {name: (BUNDLE / name).stat().st_size for name in files}
            tree = [
                {"type": "file", "path": name, "size": size, "oid": "0" * 40}
                for name, size in sizes.items()
            ]
            self.answer(json.dumps(tree).encode())
        elif path.startswith(f"/lab/lungs/resolve/{commit}/") and path.split("/")[-1] in files:
            self.answer((BUNDLE / path.split("/")[-1]).read_bytes())
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMITS["v1"])
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield f"http://127.0.0.1:{hub.server_port}"
    hub.shutdown()
    hub.server_close()
    thread.join()


def test_a_bundle_is_downloaded(
    server: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(repository)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", server)
    run = load_run("hf:lab/lungs@v1")
    assert run.folder == repository / "snapshots" / COMMITS["v1"]
    stored = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    assert stored == {path.name: path.read_bytes() for path in BUNDLE.iterdir()}
    with pytest.raises(RunError, match="hf:lab/lungs@v9: cannot be had"):
        load_run("hf:lab/lungs@v9")


def test_another_repository_is_no_bundle(repository: Path) -> None:
    (repository / "snapshots" / COMMITS["v1"] / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"no bundle of covid_jax, as it has no model\.safetensors"):
        load_run("hf:lab/lungs@v1")


def test_without_the_library_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r'pip install "covid_jax\[hub\]"'):
        load_run("hf:lab/lungs")
    (tmp_path / "a.png").touch()
    with pytest.raises(SystemExit) as end:
        main(["predict", str(tmp_path), "--run", "hf:lab/lungs", "-o", str(tmp_path / "out")])
    assert end.value.code == 2
    assert "hf:lab/lungs needs huggingface_hub" in capsys.readouterr().err
