# SPDX-License-Identifier: Apache-2.0
"""A small OpenAI-compatible server that behaves as badly as a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# (status, headers, body) for (path, body of the request)
Answer = tuple[int, dict[str, str], Any]
Script = Callable[[str, Any], Answer]


def completion(text: Any, reason: str = "stop") -> Answer:
    """A chat completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": reason,
    }
    return 200, {}, {"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}


def obliging(path: str, body: Any) -> Answer:
    """Counts words and says the same about every document."""
    if path == "/tokenize":
        text = body.get("prompt") or body["messages"][0]["content"]
        return 200, {}, {"count": len(text.split()), "max_model_len": 4096}
    if path == "/v1/chat/completions":
        return completion("A line.")
    return 404, {}, {"error": {"message": "no such route"}}


class FakeEndpoint:
    """Where it listens, and what it was asked."""

    def __init__(self, script: Script) -> None:
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = json.loads(raw) if raw else None
                outer.seen.append((self.path, dict(self.headers), body))
                status, headers, given = script(self.path, body)
                data = given if isinstance(given, bytes) else json.dumps(given).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def asked(self, path: str) -> list[Any]:
        """Bodies of the requests to a path."""
        return [body for where, _, body in self.seen if where == path]


@contextmanager
def fake_endpoint(script: Script = obliging) -> Iterator[FakeEndpoint]:
    """Serve until the block ends."""
    endpoint = FakeEndpoint(script)
    thread = threading.Thread(target=endpoint.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.server.shutdown()
        endpoint.server.server_close()
        thread.join()
