"""Names on the hub: a small server in its stead, huggingface_hub's own cache, and no other network."""

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from diffusers import DiffusionPipeline
from family_oracles import pipeline, single_file
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from test_families import same
from test_single_file import weights
from torch import Tensor

import tintype
from tintype.checkpoints.hub import fetched, is_hub_name

COMMIT = "5" * 40


@dataclass
class Hub:
    """A repository's files by name, what was asked for, and a file whose sending is cut short once."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    breaks_at: str = ""

    @property
    def sent(self) -> list[str]:
        """Files that were asked for with their content, each once."""
        return list(
            dict.fromkeys(one.split("/resolve/")[1].split("/", 1)[1] for one in self.asked if "/resolve/" in one)
        )


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(with_content=False)

        def do_GET(self) -> None:
            hub.asked.append(self.path)
            self.answer(with_content=True)

        def answer(self, *, with_content: bool) -> None:
            path = self.path.split("?")[0]
            if not path.startswith(("/some/model/resolve/", "/api/models/some/model")):
                self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_content)
            elif path.startswith("/api/models/some/model/tree/"):
                listed = [
                    {"type": "file", "path": name, "size": len(one), "oid": hashlib.sha1(one).hexdigest()}
                    for name, one in hub.files.items()
                ]
                self.reply(200, json.dumps(listed).encode(), {"Content-Type": "application/json"}, with_content)
            elif path.startswith("/api/"):
                siblings = [{"rfilename": name} for name in hub.files]
                info = {"id": "some/model", "sha": COMMIT, "siblings": siblings}
                self.reply(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, with_content)
            else:
                self.send_file(path.split("/resolve/")[1].split("/", 1)[1], with_content)

        def send_file(self, name: str, with_content: bool) -> None:
            if name not in hub.files:
                self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, with_content)
                return
            content = hub.files[name]
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-").split("-")[0])
            if start and with_content:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.reply(206, content[start:], headers, with_content)
            else:
                short = with_content and name == hub.breaks_at
                hub.breaks_at = "" if short else hub.breaks_at
                self.reply(200, content, headers, with_content, short=short)

        def reply(
            self, status: int, content: bytes, headers: dict[str, str], with_content: bool, *, short: bool = False
        ) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(content))}).items():
                self.send_header(name, value)
            self.end_headers()
            if with_content:
                self.wfile.write(content[: len(content) // 2] if short else content)

    return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(found))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.chdir(tmp_path)
    yield found
    server.shutdown()
    server.server_close()


def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("the test allows no network")

    monkeypatch.setattr(socket, "create_connection", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.fixture(scope="module")
def theirs() -> DiffusionPipeline:
    return pipeline("sd1")


@pytest.fixture(scope="module")
def folder(theirs: DiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as they are: several variants, pickles and single files beside what is needed."""
    path = tmp_path_factory.mktemp("repository")
    theirs.save_pretrained(path)
    for name in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        halves = {key: one.half() for key, one in load_file(path / f"{name}.safetensors").items()}
        save_file(halves, path / f"{name}.fp16.safetensors")
        (path / f"{name.replace('/model', '/pytorch_model')}.bin").write_bytes(b"not to be fetched")
    (path / "v1.ckpt").write_bytes(b"not to be fetched")
    (path / "safety_checker").mkdir()
    (path / "safety_checker" / "model.safetensors").write_bytes(b"not to be fetched")
    return path


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Tensor]:
    return weights(tintype.load(folder))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


WEIGHTS = ["text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"]


def sent_weights(hub: Hub) -> list[str]:
    return sorted(name for name in hub.sent if not name.endswith((".json", ".txt")))


def test_what_is_needed_is_fetched_once_and_then_no_network_is_asked(
    hub: Hub, folder: Path, expected: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = contents(folder)
    same(weights(tintype.load("some/model")), expected)
    assert sent_weights(hub) == [f"{name}.safetensors" for name in WEIGHTS]
    cut_off(monkeypatch)
    hub.asked.clear()
    same(weights(tintype.load("some/model")), expected)
    assert hub.asked == []


def test_a_variant_is_fetched_alone(hub: Hub, folder: Path, expected: dict[str, Tensor]) -> None:
    hub.files = contents(folder)
    model = tintype.load("some/model", variant="fp16")
    assert sent_weights(hub) == [f"{name}.fp16.safetensors" for name in WEIGHTS]
    same(weights(model), {name: one.half().float() for name, one in expected.items()})
    hub.asked.clear()
    tintype.load("some/model", variant="fp16")
    assert hub.asked == []


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_of_what_is_asked_for_are_fetched(
    variant: str | None, hub: Hub, theirs: DiffusionPipeline, tmp_path: Path
) -> None:
    for one in (None, "fp16"):
        theirs.save_pretrained(tmp_path / str(one), max_shard_size="2MB", variant=one)
    hub.files = contents(tmp_path / "fp16") | contents(tmp_path / "None")
    tintype.load("some/model", variant=variant)
    found, wanted = fetched("some/model", variant=variant), tmp_path / str(variant)
    there = sorted(str(one.relative_to(wanted)) for one in wanted.rglob("*.safetensors"))
    assert sorted(str(one.relative_to(found)) for one in found.rglob("*.safetensors")) == there


@pytest.mark.parametrize(
    "gone",
    [
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_cache_that_is_not_whole_is_made_whole(
    gone: str, hub: Hub, folder: Path, expected: dict[str, Tensor]
) -> None:
    hub.files = contents(folder)
    (fetched("some/model") / gone).unlink()
    hub.asked.clear()
    same(weights(tintype.load("some/model")), expected)
    assert hub.sent in ([], [gone])  # its content may be in the cache still


def test_a_fetch_cut_short_is_taken_up_again(hub: Hub, folder: Path, expected: dict[str, Tensor]) -> None:
    hub.files = contents(folder)
    hub.breaks_at = "unet/diffusion_pytorch_model.safetensors"
    same(weights(tintype.load("some/model")), expected)
    assert len([one for one in hub.asked if one.endswith("/unet/diffusion_pytorch_model.safetensors")]) == 2


def test_without_network_and_cache_the_error_says_what_to_fetch(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_off(monkeypatch)
    with pytest.raises(
        ValueError, match=r"'some/model' is no path, not in the hub's cache.*run: hf download some/model"
    ):
        tintype.load("some/model")
    with pytest.raises(ValueError, match=r"run: hf download some/model v1\.ckpt"):
        tintype.load("some/model/v1.ckpt")


def test_what_the_hub_has_not_is_refused(hub: Hub, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)the hub refused 'no/body'.*expected a public owner/repository"):
        tintype.load("no/body")
    hub.files = contents(folder)
    with pytest.raises(ValueError, match=r"the hub refused 'some/model/v9\.ckpt'"):
        tintype.load("some/model/v9.ckpt")


def test_single_files(hub: Hub, theirs: DiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(single_file("sd1", theirs), tmp_path / "it.safetensors")
    usual = weights(tintype.load(tmp_path / "it.safetensors"))
    hub.files = {"README.md": b"", "sub/v1.safetensors": (tmp_path / "it.safetensors").read_bytes()}
    same(weights(tintype.load("some/model")), usual)
    hub.files["v2.ckpt"] = b"another"
    with pytest.raises(ValueError, match=r"it holds some/model/sub/v1\.safetensors, some/model/v2\.ckpt; name one"):
        tintype.load("some/model")
    same(weights(tintype.load("some/model/sub/v1.safetensors")), usual)
    cut_off(monkeypatch)
    same(weights(tintype.load("some/model/sub/v1.safetensors")), usual)
    hub.files = {"README.md": b""}


def test_a_path_goes_before_a_name_on_the_hub(
    hub: Hub, theirs: DiffusionPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(monkeypatch)
    theirs.save_pretrained(tmp_path / "some" / "model")
    assert tintype.load("some/model").source == str(tmp_path / "some" / "model")
    assert hub.asked == []


def test_what_a_name_on_the_hub_looks_like() -> None:
    assert is_hub_name("runwayml/stable-diffusion-v1-5")
    assert is_hub_name("a/b/sub/v1-5.safetensors")
    for other in ("model", "a/b/c", "/a/b", "./a", "../a/b", "a/b.safetensors/..", "https://a/b", "a b/c"):
        assert not is_hub_name(other), other
