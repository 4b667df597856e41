# SPDX-License-Identifier: Apache-2.0
"""A server on this machine that speaks Hugging Face's and Ollama's protocols, well or badly.

`ModelServer` serves repositories (``/api/models``, ``/resolve`` with a redirect to a second host,
as the real one does for large files), a registry (``/v2``) and plain files. What goes wrong is a
list of `Fault`s, each for the requests that it matches and for so many times. Every request is
kept, headers included, for tests to look at.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote, urlsplit

DATE = "Tue, 01 Dec 2026 00:00:00 GMT"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Fault:
    """`act` decides what happens instead of, or to, the answer; see the constructors below."""

    path: str  # a regular expression that finds something in the path
    act: Callable[[Handler, bytes, int], bool]  # body and status planned; True: answered already
    times: int = 1_000_000
    skip: int = 0  # matching requests that go well first


@dataclass
class Seen:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    port: int


@dataclass
class Repo:
    """One revision of a repository."""

    files: dict[str, bytes]
    card: dict[str, Any] = field(default_factory=dict)
    gated: str | bool = False
    needs_token: str | None = None  # to read its files
    commit: str = COMMIT
    lies: dict[str, dict[str, Any]] = field(default_factory=dict)  # entries of siblings, changed


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    total = 0  # bytes of the file of which a range is sent

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        owner = self.server.owner
        headers = {key.lower(): value for key, value in self.headers.items()}
        with owner.lock:
            owner.seen.append(Seen(self.command, self.path, headers, self.server.server_port))
        with contextlib.suppress(ConnectionError, TimeoutError):
            owner.answer(self)

    # -- ways to answer -------------------------------------------------------------------------

    def send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        for fault in self.server.owner.matching(self.path):
            if fault.act(self, body, status):
                return
        self.head(status, len(body), headers)
        self.body(body)

    def head(self, status: int, length: int | None, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()

    def body(self, data: bytes) -> None:
        if self.command == "HEAD":
            return
        step = self.server.owner.step
        for at in range(0, len(data), step):
            self.wfile.write(data[at : at + step])
            self.server.owner.tick(min(step, len(data) - at))
            if self.server.owner.pause:
                time.sleep(self.server.owner.pause)

    def cut(self) -> None:
        """End the connection at once, so that the client sees a reset."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.shutdown(socket.SHUT_RDWR)

    def file(
        self, data: bytes, etag: str | None = None, ranges: bool = True, commit: str | None = None
    ) -> None:
        """A file or the range of it that is asked for."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {"ETag": etag} if etag else {}
        if etag is not None and etag.startswith("W/"):  # good for no range; the date is then
            headers["Last-Modified"] = etag = DATE
        if commit is not None:
            headers["X-Repo-Commit"] = commit
        condition = self.headers.get("If-Range")
        if not ranges or asked is None or (condition is not None and condition != etag):
            self.send(200, data, headers)
            return
        start = int(asked[1])
        end = min(int(asked[2]) + 1 if asked[2] else len(data), len(data))
        if start >= len(data):
            self.send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        part, self.total = data[start:end], len(data)
        for fault in self.server.owner.matching(self.path):
            if fault.act(self, part, 206):
                return
        self.head(206, len(part), headers)
        self.body(part)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    owner: ModelServer

    def handle_error(self, *_: object) -> None:
        pass


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class ModelServer:
    """Two servers on two ports: the one that is asked, and a store of large files beside it."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.lock = threading.Lock()
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self.repos: dict[str, Repo] = {}
        self.tags: dict[str, bytes] = {}  # "library/x:tag" to manifest
        self.blobs: dict[str, bytes] = {}
        self.files: dict[str, tuple[bytes, str | None]] = {}  # path to content and ETag
        self.registry_token: str | None = None
        self.realm: str | None = None
        self.ranges = True
        self.redirects = True  # large files lie on the other port
        self.step, self.pause = 1 << 16, 0.0
        self.tick: Callable[[int], None] = lambda count: None  # told of bytes that were sent
        self._servers = [self._start(), self._start()]
        scheme = "https" if tls is not None else "http"
        self.url, self.cdn = (f"{scheme}://127.0.0.1:{s.server_port}" for s in self._servers)
        self.host = self.url.removeprefix(f"{scheme}://")

    def _start(self) -> _Server:
        server = _Server(("127.0.0.1", 0), Handler)
        server.owner = self
        if self._tls is not None:
            # The handshake is the handling thread's: one that fails must not end the server.
            server.socket = self._tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> ModelServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def matching(self, path: str) -> Iterator[Fault]:
        with self.lock:
            found = [f for f in self.faults if re.search(f.path, path) and f.times > 0]
            chosen = []
            for fault in found:
                if fault.skip > 0:
                    fault.skip -= 1
                else:
                    fault.times -= 1
                    chosen.append(fault)
        yield from chosen

    def requests(self, pattern: str) -> list[Seen]:
        with self.lock:
            return [seen for seen in self.seen if re.search(pattern, seen.path)]

    # -- what is served -------------------------------------------------------------------------

    def add_ollama(self, name: str, contents: dict[str, bytes], **lies: Any) -> dict[str, Any]:
        """A model of the registry; `lies` change its manifest."""
        entries = []
        for kind, data in contents.items():
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            self.blobs[digest] = data
            entries.append({
                "mediaType": f"application/vnd.ollama.image.{kind.partition('-')[0]}",
                "digest": digest,
                "size": len(data),
            })  # fmt: skip
        config = json.dumps({"model_format": "gguf", "file_type": "Q4_K_M"}).encode()
        digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
        self.blobs[digest] = config
        manifest = {
            "schemaVersion": 2,
            "config": {"digest": digest, "size": len(config)},
            "layers": entries,
        } | lies
        self.tags[name] = json.dumps(manifest).encode()
        return manifest

    def answer(self, handler: Handler) -> None:
        url = urlsplit(handler.path)
        path = unquote(url.path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._model_info(handler, match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(handler, match[1], match[2], match[3])
        elif match := re.fullmatch(r"/v2/([^/]+/[^/]+)/manifests/(.+)", path):
            self._manifest(handler, f"{match[1]}:{match[2]}")
        elif match := re.fullmatch(r"/v2/[^/]+/[^/]+/blobs/(.+)", path):
            self._blob(handler, match[1])
        elif path == "/token":
            handler.send(200, json.dumps({"token": self.registry_token}).encode())
        elif path.startswith("/cdn/"):
            digest = path.removeprefix("/cdn/")
            handler.file(self.blobs[digest], f'"{digest[-32:]}"', self.ranges)
        elif path in self.files:
            handler.file(*self.files[path], ranges=self.ranges)
        else:
            handler.send(404)

    def _model_info(self, handler: Handler, name: str, revision: str | None) -> None:
        repo = self.repos.get(name)
        if repo is None:
            handler.send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        if revision not in (None, "main", repo.commit):
            handler.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [self._sibling(n, d) | repo.lies.get(n, {}) for n, d in repo.files.items()]
        info = {"id": name, "sha": repo.commit, "gated": repo.gated, "cardData": repo.card,
                "tags": ["gguf"], "siblings": siblings, "spaces": [], "private": False}  # fmt: skip
        handler.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _sibling(self, name: str, data: bytes) -> dict[str, Any]:
        if not self._is_large(name):
            return {"rfilename": name, "size": len(data), "blobId": _git_oid(data)}
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[f"sha256:{sha256}"] = data
        lfs = {"size": len(data), "sha256": sha256, "pointerSize": 134}
        return {"rfilename": name, "size": len(data), "blobId": "0" * 40, "lfs": lfs}

    @staticmethod
    def _is_large(name: str) -> bool:
        return name.endswith((".gguf", ".safetensors"))

    def _resolve(self, handler: Handler, name: str, revision: str, file: str) -> None:
        repo = self.repos.get(name)
        if repo is None or file not in repo.files or revision not in ("main", repo.commit):
            handler.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        sent = handler.headers.get("Authorization")
        if repo.needs_token is not None and sent != f"Bearer {repo.needs_token}":
            handler.send(401 if sent is None else 403, b"", {"X-Error-Code": "GatedRepo"})
            return
        data = repo.files[file]
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if self._is_large(file) and self.redirects:
            headers = {
                "Location": f"{self.cdn}/cdn/{digest}?file={quote(file)}&signature=abc",
                "X-Linked-Etag": f'"{digest.removeprefix("sha256:")}"',
                "X-Linked-Size": str(len(data)),
                "X-Repo-Commit": repo.commit,
            }
            handler.send(302, b"", headers)
        else:
            handler.file(data, f'"{_git_oid(data)}"', self.ranges, repo.commit)

    def _manifest(self, handler: Handler, name: str) -> None:
        token = handler.headers.get("Authorization")
        if self.registry_token is not None and token != f"Bearer {self.registry_token}":
            realm = self.realm or f"{self.url}/token"
            scope = "repository:library/x:pull"
            challenge = f'Bearer realm="{realm}",service="{self.host}",scope="{scope}"'
            handler.send(401, b"{}", {"WWW-Authenticate": challenge})
        elif name in self.tags:
            handler.send(200, self.tags[name])
        else:
            handler.send(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')

    def _blob(self, handler: Handler, digest: str) -> None:
        if digest not in self.blobs:
            handler.send(404)
        elif self.redirects:
            handler.send(307, b"", {"Location": f"{self.cdn}/cdn/{digest}"})
        else:
            handler.file(self.blobs[digest], None, self.ranges)


# -- faults ---------------------------------------------------------------------------------------


def status(code: int, headers: dict[str, str] | None = None) -> Callable[..., bool]:
    """Another status."""

    def act(handler: Handler, body: bytes, planned: int) -> bool:
        del body, planned
        handler.head(code, 0, headers)
        return True

    return act


def cut_after(count: int) -> Callable[..., bool]:
    """The connection is reset after so many bytes of the body."""

    def act(handler: Handler, body: bytes, planned: int) -> bool:
        handler.head(planned, len(body), _range_of(handler, body, planned))
        handler.wfile.write(body[:count])
        handler.wfile.flush()
        handler.cut()
        return True

    return act


def stall_after(count: int, seconds: float) -> Callable[..., bool]:
    """Nothing comes after so many bytes."""

    def act(handler: Handler, body: bytes, planned: int) -> bool:
        handler.head(planned, len(body), _range_of(handler, body, planned))
        handler.wfile.write(body[:count])
        handler.wfile.flush()
        time.sleep(seconds)
        handler.cut()
        return True

    return act


def changed(change: Callable[[bytes], bytes]) -> Callable[..., bool]:
    """Other bytes, as if they were the right ones."""

    def act(handler: Handler, body: bytes, planned: int) -> bool:
        other = change(body)
        handler.head(planned, len(other), _range_of(handler, body, planned))
        handler.body(other)
        return True

    return act


def claims_length(length: int) -> Callable[..., bool]:
    """A Content-Length that is not the body's."""

    def act(handler: Handler, body: bytes, planned: int) -> bool:
        handler.head(planned, length, _range_of(handler, body, planned))
        handler.wfile.write(body)
        handler.close_connection = True
        return True

    return act


def endless() -> Callable[..., bool]:
    """The right bytes, and then more, without length and without end."""

    def act(handler: Handler, body: bytes, planned: int) -> bool:
        handler.send_response(planned)
        for key, value in _range_of(handler, body, planned).items():
            handler.send_header(key, value)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.close_connection = True
        chunk = body or bytes(1)
        while True:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    return act


def zipped() -> Callable[..., bool]:
    """gzip, although nobody asked for it."""

    def act(handler: Handler, body: bytes, planned: int) -> bool:
        packed = gzip.compress(body)
        headers = _range_of(handler, body, planned) | {"Content-Encoding": "gzip"}
        handler.head(planned, len(packed), headers)
        handler.body(packed)
        return True

    return act


def redirect(location: str, code: int = 302) -> Callable[..., bool]:
    """Somewhere else."""
    return status(code, {"Location": location})


def _range_of(handler: Handler, body: bytes, planned: int) -> dict[str, str]:
    """The headers of a 206 for the range that was asked for."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
    if planned != 206 or asked is None:
        return {}
    start = int(asked[1])
    return {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{handler.total}"}
