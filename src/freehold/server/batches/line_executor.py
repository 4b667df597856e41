# SPDX-License-Identifier: Apache-2.0
"""An executor of jobs whose items are requests: they are answered by the server's own routes.

There is no server: the application is asked without a connection, by nobody but this process. So a
request has the same answer here, in `/v1/batches` and over HTTP. Requests of several blocks share
the engine's steps; each is given back as soon as it is answered.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AsyncExitStack
from typing import Any

from freehold.documents.jobs import ErrorInfo, Item, ItemResult
from freehold.documents.jobs.requests import request_of, usage_of
from freehold.server.app import create_app
from freehold.server.models.registry import ModelRegistry
from freehold.server.request_context import RequestRecord, set_current
from freehold.server.services import Services
from freehold.server.settings import ServerSettings

_LATER = (429, 503, 529)  # not the request's fault: it is asked again
_TRIES = 20


class LineExecutor:
    """Loads a model for the first request and lets it go when it is closed."""

    def __init__(
        self, settings: ServerSettings, *, adapted: str | None = None, at_a_time: int = 64,
        registry: ModelRegistry | None = None,
    ) -> None:  # fmt: skip
        """`settings` name one model; `adapted` is the name of its adapter, if there is one."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="freehold-lines")
        self._app = create_app(settings, registry)
        self._services: Services = self._app.state.services
        base = self._services.registry.bases()[0].name
        self._name = base if adapted is None else f"{base}:{adapted}"
        self._at_a_time = at_a_time
        self._held = AsyncExitStack()
        self._loaded = False

    def run(self, task: Any, blocks: Iterable[Sequence[Item]]) -> Generator[Sequence[ItemResult]]:
        """Results one by one or a few at a time, as they become ready.

        Raises what loading the model raises.
        """
        todo = (item for block in blocks for item in block)
        running: set[Future[ItemResult]] = set()
        try:
            while True:
                while len(running) < self._at_a_time and (item := next(todo, None)) is not None:
                    self._load()
                    running.add(asyncio.run_coroutine_threadsafe(self._answer(item), self._loop))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield [future.result() for future in done]
        finally:
            for future in running:
                future.cancel()

    def close(self) -> None:
        """Let the model go."""
        if self._thread.is_alive():
            self._wait(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()

    def _load(self) -> None:
        if not self._loaded:
            self._thread.start()
            self._wait(self._open())
            self._loaded = True

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> None:
        set_current(RequestRecord(over=True, patient=True))
        await self._held.enter_async_context(self._services.registry.lease(self._name))

    async def _close(self) -> None:
        await self._held.aclose()
        await self._services.registry.close()

    async def _answer(self, item: Item) -> ItemResult:
        url, body = request_of(item)
        raw = json.dumps({**body, "model": self._name}).encode()
        ask = self._services.batches.answer
        assert ask is not None
        for _ in range(_TRIES):
            started = time.monotonic()
            status, later, answer = await ask(url, raw, "")
            if status not in _LATER:
                break
            await asyncio.sleep(min(max(later, 1), 30))
        return _result(item, status, json.loads(answer), time.monotonic() - started)


def _result(item: Item, status: int, body: Any, seconds: float) -> ItemResult:
    content, value = str(item.content_sha256), {"status_code": status, "body": body}
    if 200 <= status < 300:
        return ItemResult(item.id, content, "ok", value, None, usage_of(body), seconds)
    told = body.get("error") if isinstance(body, dict) else None
    told = told if isinstance(told, dict) else {}
    kind = str(told.get("code") or told.get("type") or f"status_{status}")
    error = ErrorInfo(kind, str(told.get("message") or f"answered with status {status}"))
    return ItemResult(item.id, content, "error", value, error, {}, seconds)
