# SPDX-License-Identifier: Apache-2.0
"""Many HTTP clients in a process of their own, behind the worker protocol.

Written to cost little, since they share the machine with the server: plain sockets on one event
loop, and what came is looked at only after the clock was stopped. Standard library only.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from worker_protocol import serve

ATTEMPTS = 3


class Reply:
    """What one client got."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.first = 0.0  # when the first piece of the body came
        self.last = 0.0
        self.attempts = 1

    def body(self) -> bytes:
        """The body, its chunks joined. Raises ValueError where the status is no 200."""
        head, _, rest = bytes(self.data).partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0] + b" ":
            raise ValueError(f"{head[:60]!r} {rest[:200]!r}")
        if b"transfer-encoding: chunked" not in head.lower():
            return rest
        parts = []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            count = int(size, 16)
            if count == 0:
                break
            parts.append(rest[:count])
            rest = rest[count + 2 :]
        return b"".join(parts)

    def end(self) -> tuple[dict[str, Any], str, str | None]:
        """The tokens that the server counted, why the answer ended, its text if it came whole."""
        body = self.body()
        if not body.startswith(b"data:"):
            whole = json.loads(body)
            choice = whole["choices"][0]
            return whole["usage"], choice["finish_reason"], choice["message"]["content"]
        frames = [line[5:].strip() for line in body.split(b"\n") if line.startswith(b"data:")]
        if frames[-1] != b"[DONE]":
            raise ValueError(f"the stream broke off: {frames[-1][:200]!r}")
        last, usage = (json.loads(frame) for frame in frames[-3:-1])
        return usage["usage"], last["choices"][0]["finish_reason"], None


async def _ask(host: str, port: int, path: str, body: dict[str, Any]) -> Reply:
    """An answer; a server that fails is asked again, on its own time."""
    attempts = 1
    while True:
        reply = await _ask_once(host, port, path, body)
        reply.attempts = attempts
        if attempts == ATTEMPTS or not reply.data.startswith(b"HTTP/1.1 5"):
            return reply
        attempts += 1


async def _ask_once(host: str, port: int, path: str, body: dict[str, Any]) -> Reply:
    text = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 22)
    reply = Reply()
    writer.write(head.encode() + text)
    while piece := await reader.read(1 << 16):
        reply.data += piece
        reply.last = time.perf_counter()
        if not reply.first and b"\r\n\r\n" in reply.data[:-4]:
            reply.first = reply.last
    writer.close()
    return reply


def ask(host: str, port: int, path: str, bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """All bodies at once, each from a client of its own; seconds until the last has its answer."""

    async def everybody() -> list[Reply]:
        return await asyncio.gather(*(_ask(host, port, path, body) for body in bodies))

    began = time.perf_counter()
    replies = asyncio.run(everybody())
    seconds = max(reply.last for reply in replies) - began
    ends = [reply.end() for reply in replies]
    return {
        "seconds": seconds,
        "first": [reply.first - began for reply in replies],
        "prompt_tokens": [usage["prompt_tokens"] for usage, _, _ in ends],
        "tokens": [usage["completion_tokens"] for usage, _, _ in ends],
        "full_length": all(reason == "length" for _, reason, _ in ends),
        "texts": [text for _, _, text in ends],
        "repeated": sum(reply.attempts - 1 for reply in replies),
        "bytes": sum(len(reply.data) for reply in replies),
    }


if __name__ == "__main__":
    serve({"ask": ask})
