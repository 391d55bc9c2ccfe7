"""A hub of our own on this machine: real sockets, the hub's protocol, and faults on demand.

It speaks what huggingface_hub uses: the model's information with sizes and hashes, `resolve` addresses that
answer small files themselves and redirect large ones to a second server (the hub's content network), byte ranges,
and error codes in headers. It writes down every request.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import close_session, constants

from personalive.pipelines.diffusion.checkpoints import layout
from personalive.pipelines.diffusion.checkpoints.download.progress import DownloadStep

SITE = Path(__file__).parent / "site"
ALWAYS = 10**9
COMMIT = "c0ffee" + "0" * 34


def released(weights_size: int = 150_000) -> dict[str, dict[str, bytes]]:
    """Content by path, by repository, as it is released: .pth files, and both kinds of some of the others."""
    repositories: dict[str, dict[str, bytes]] = {}
    for file in layout.FILES:
        paths = file.remote[-1:] if file.folder.name == "personalive" else file.remote
        for path in paths:
            content = random.Random(path).randbytes(weights_size)
            if path.endswith(".json"):
                content = json.dumps({"made": path}).encode()
            repositories.setdefault(file.repository.name, {})[path] = content
    return repositories


def is_large(path: str) -> bool:
    """Whether git keeps the file itself elsewhere (LFS)."""
    return not path.endswith(".json")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class Request:
    """`kind`: api, resolve or cdn. `path` is that of the file, or of the address where there is none."""

    kind: str
    method: str
    path: str
    headers: Mapping[str, str]
    status: int = 0
    sent: int = 0

    @property
    def range(self) -> str | None:
        return self.headers.get("Range")


@dataclass
class Refusal:
    status: int
    headers: Mapping[str, str]
    times: int
    body: bytes = b'{"error": "refused"}'


@dataclass
class HubServer:
    repositories: dict[str, dict[str, bytes]] = field(default_factory=released)
    revisions: set[str] = field(default_factory=lambda: {file.repository.revision for file in layout.FILES})
    requests: list[Request] = field(default_factory=list)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    cut_after: int = 0
    """Close the connection after that many bytes of a response, `cuts` times."""
    cut_at: int = 0
    """The same at that place of the file."""
    cuts: int = 0
    corruptions: int = 0
    excess: int = 0
    """Bytes that a file has beyond what is published of it."""
    knows_ranges: bool = True
    lists_names_only: bool = False
    """Some mirrors leave sizes and hashes out of a repository's information."""
    lies: dict[str, object] = field(default_factory=dict)
    """What is told of large files instead of their true `size` and `sha256`."""
    pause: float = 0.0
    """Seconds between pieces of some ten kilobytes."""
    address: str = ""
    cdn: str = ""

    def refuse(self, kind: str, status: int, *, times: int = ALWAYS, **headers: str) -> None:
        """Answer requests of a kind with an error; `X_Error_Code` in `headers` is what the hub says it is."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.refusals[kind] = Refusal(status, named, times)

    def heal(self) -> None:
        """No more faults, and an empty log."""
        self.refusals.clear()
        self.requests.clear()
        self.cuts = self.corruptions = self.excess = 0
        self.pause, self.knows_ranges = 0.0, True

    def make_known(self, patch: pytest.MonkeyPatch) -> None:
        """Let what is published here be what is known of published files."""
        known = {}
        for repository, path in layout.KNOWN_DIGESTS:
            content = self.repositories.get(repository.name, {}).get(path)
            if content is not None:
                known[repository, path] = layout.FileDigest(len(content), sha256(content))
        patch.setattr(layout, "KNOWN_DIGESTS", known)

    def of(self, kind: str, path: str | None = None) -> list[Request]:
        return [r for r in self.requests if r.kind == kind and path in {None, r.path}]

    def sent(self, path: str) -> int:
        """Bytes of a file that went out, all requests together."""
        return sum(request.sent for request in self.requests if request.path == path)

    def content(self, name: str) -> bytes:
        """What the file of a set must hold, given its name in the set's folder."""
        return self.published(name)[1]

    def published(self, name: str) -> tuple[str, bytes]:
        """The path that a file of a set has in its repository, and its content."""
        for file in layout.FILES:
            for path in file.remote:
                if (file.folder / path.rpartition("/")[2]).as_posix() == name:
                    return path, self.repositories[file.repository.name][path]
        raise KeyError(name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: HubServer
    request_log: Request

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            if self._begin("api", self.path):
                self._information("/".join(parts[2:4]), parts[-1])
        elif parts[0] == "cdn":
            path = "/".join(parts[3:])
            if self._begin("cdn", path):
                self._content(self.hub.repositories["/".join(parts[1:3])][path])
        elif parts[2:3] == ["resolve"]:
            if self._begin("resolve", "/".join(parts[4:])):
                self._resolve("/".join(parts[:2]), parts[3])
        elif self._begin("other", self.path):
            self._error(404)

    do_HEAD = do_GET  # noqa: N815 (the name is given)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _begin(self, kind: str, path: str) -> bool:
        """Write the request down; False when it was refused as told."""
        self.request_log = Request(kind, self.command, path, dict(self.headers))
        self.hub.requests.append(self.request_log)
        refusal = self.hub.refusals.get(kind)
        if refusal is None or refusal.times <= 0:
            return True
        refusal.times -= 1
        self._answer(refusal.status, refusal.body, refusal.headers)
        return False

    def _information(self, name: str, revision: str) -> None:
        files = self.hub.repositories.get(name)
        if files is None:
            return self._error(404, "RepoNotFound")
        if revision not in {*self.hub.revisions, COMMIT}:
            return self._error(404, "RevisionNotFound")
        siblings: list[dict[str, Any]] = []
        for path, content in files.items():
            if self.hub.lists_names_only:
                siblings.append({"rfilename": path})
                continue
            entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_sha1(content)}
            if is_large(path):
                entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
                entry["lfs"] |= self.hub.lies
                entry["blobId"] = git_sha1(b"version https://git-lfs.github.com/spec/v1")
            siblings.append(entry)
        body = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}
        return self._answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, commit: str) -> None:
        content = self.hub.repositories.get(name, {}).get(self.request_log.path)
        if commit != COMMIT or content is None:
            return self._error(404, "EntryNotFound")
        if not is_large(self.request_log.path):
            return self._content(content, {"X-Repo-Commit": COMMIT, "ETag": f'"{git_sha1(content)}"'})
        headers = {
            "Location": f"{self.hub.cdn}/cdn/{name}/{self.request_log.path}",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{sha256(content)}"',
            "X-Linked-Size": str(len(content)),
        }
        return self._answer(302, b"Found. Redirecting", headers)

    def _content(self, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        headers, start, status = dict(headers or {}), 0, 200
        content += bytes(self.hub.excess)
        wanted = self.headers.get("Range")
        if wanted and self.hub.knows_ranges:
            start, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if self.hub.corruptions:
            self.hub.corruptions -= 1
            content = bytes([content[0] ^ 1, *content[1:]]) if not start else content[::-1]
        self._answer(status, content[start:], {"Accept-Ranges": "bytes"} | headers, start)

    def _error(self, status: int, code: str = "") -> None:
        self._answer(status, b'{"error": "no"}', {"X-Error-Code": code} if code else {})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str], start: int = 0) -> None:
        self.request_log.status = status
        self.send_response(status)
        for name, value in ({"Content-Type": "application/octet-stream"} | dict(headers)).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self._send(body, start if status in {200, 206} else None)

    def _send(self, body: bytes, start: int | None) -> None:
        """Send, in pieces if slow, and only the beginning if the connection is to be cut."""
        hub, large = self.hub, start is not None and self.request_log.kind == "cdn"
        end = len(body)
        if large and hub.cuts:
            place = hub.cut_after or max(0, hub.cut_at - (start or 0))
            if place < end:
                end, hub.cuts = place, hub.cuts - 1
        for begin in range(0, end, 20_000):
            piece = body[begin : min(end, begin + 20_000)]
            self.wfile.write(piece)
            self.request_log.sent += len(piece)
            if large:
                time.sleep(hub.pause)
        if end < len(body):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever is killed or interrupted hangs up in the middle; that is no news."""


@contextmanager
def serving(patch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with what is released, which this process and its children take for the hub."""
    hub = HubServer()
    handler = cast("type[_Handler]", type("Handler", (_Handler,), {"hub": hub}))
    servers = [_Server(("127.0.0.1", 0), handler) for _ in range(2)]
    threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    hub.address, hub.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    patch.setenv("HF_ENDPOINT", hub.address)
    patch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        patch.delenv(name, raising=False)
    patch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")
    hub.make_known(patch)
    path = os.pathsep.join(filter(None, (str(SITE), os.environ.get("PYTHONPATH"))))
    patch.setenv("PYTHONPATH", path)
    close_session()  # it remembers proxies
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


class Watcher:
    """Writes down what a download tells."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[DownloadStep] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, step: DownloadStep) -> None:
        self.steps.append(step)


def files(root: Path) -> set[str]:
    """What a loader can see of a set."""
    paths = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if not path.parts[0].startswith(".")}


def assert_complete(root: Path, hub: HubServer, *, tiny: bool = False, base: bool = False) -> None:
    for file in layout.FILES:
        path = file.find_in(root)
        wanted = tiny if file.optional else base or not file.fallback
        assert (path is not None) == wanted
        if path:
            assert path.read_bytes() == hub.content(path.relative_to(root).as_posix())
    assert not (root / ".incomplete").exists()
